package sim

import (
	"bytes"
	"fmt"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

const (
	keys = 7
	oid  = 16400
)

// write commits transactions of none to many rows, with idle log in between.
func (w *world) write() {
	r := w.random("writer")
	rowsOf := func() int {
		switch r.IntN(20) {
		case 0:
			return 100 + r.IntN(400)
		case 1:
			return 0
		default:
			return 1 + r.IntN(5)
		}
	}
	for range 40 + r.IntN(60) {
		switch {
		case r.IntN(3) > 0: // a burst
			sleep(r, 20*time.Millisecond)
		default:
			sleep(r, 5*time.Second)
		}
		if r.IntN(4) == 0 {
			w.ledger.ended(w.server.Idle(1 + r.IntN(1<<17)))
			continue
		}
		chosen := make([]int, rowsOf())
		for i := range chosen {
			chosen[i] = r.IntN(keys)
		}
		w.commit(chosen, r.IntN(4) == 0)
	}
}

// commit commits a row for each key.
func (w *world) commit(chosen []int, wide bool) {
	l := &w.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	messages := [][]byte{waltest.Relation(oid, "public", "outbox", "id", "aggregate_type", "aggregate_id", "event_type", "payload", "headers")}
	payload := []byte("{}")
	if wide {
		payload = bytes.Repeat([]byte("x"), 300)
	}
	first := len(l.events)
	for i, key := range chosen {
		messages = append(messages, waltest.Insert(oid, fmt.Append(nil, first+i), []byte("order"), fmt.Append(nil, "k", key), []byte("e"), payload, nil))
	}
	commit, end := w.server.Transaction(7, messages...)
	l.ends[end] = true
	for i, key := range chosen {
		l.events = append(l.events, event{end: end, key: key, position: position(commit, i), void: !w.server.Slotted()})
	}
	w.transcript.add("commit of %d rows at %v", len(chosen), commit)
}

// position is the header that names an event.
func position(commit wal.LSN, index int) string {
	return fmt.Sprintf("%s/%d", commit.AppendHex(nil), index)
}

// disturbPostgres lets the server fail in the ways in which servers do.
func (w *world) disturbPostgres() {
	r := w.random("postgres")
	for range r.IntN(10) {
		sleep(r, 20*time.Second)
		length := time.Duration(r.Int64N(int64(15 * time.Second)))
		switch r.IntN(8) {
		case 0:
			w.fault("the connections are cut", func(t *tally) { t.Cuts++ })
			w.server.Cut()
		case 1:
			w.fault("the server crashes", func(t *tally) { t.Crashes++ })
			w.server.SetDown(true)
			w.server.Crash(w.server.Durable())
			time.Sleep(length)
			w.server.SetDown(false)
		case 2:
			w.fault("the links are dead", func(t *tally) { t.LostLinks++ })
			w.server.Lose()
		case 3:
			w.fault("the server refuses connections", func(t *tally) { t.Outages++ })
			w.server.SetDown(true)
			w.server.Cut()
			time.Sleep(length)
			w.server.SetDown(false)
		case 4:
			w.fault("the server is stopped", func(t *tally) { t.Shutdowns++ })
			w.shutdown(length, r.IntN(2) == 0)
		case 5, 6:
			w.fault("the server asks for statuses", func(t *tally) { t.Storms++ })
			var frames []byte
			for range 1 + r.IntN(50) {
				frames = waltest.AppendKeepalive(frames, wal.LSN(r.IntN(int(logStart))), true)
			}
			w.server.Raw(frames)
		default:
			w.server.Checkpoint()
		}
	}
}

// shutdown stops the server in order, as far as its clients let it, and starts it
// again. Servers before 17 forget what was confirmed since the last checkpoint.
func (w *world) shutdown(length time.Duration, forgets bool) {
	w.server.Shutdown()
	limit := 20 * time.Second // a broker that is away longer must not hold it up
	if w.slow > 0 || w.draining.Load() > 0 || w.lostLinks() {
		limit = 2 * time.Minute // what is on its way arrives, a drain and a dead link time out
	}
	stopped := w.server.Stopped(limit)
	w.transcript.add("the server has stopped: %v", stopped)
	if !stopped {
		w.t.Errorf("a stop of the server does not end: a client neither confirms everything nor leaves")
	}
	w.server.SetDown(true)
	w.server.Cut()
	if forgets {
		w.server.Crash(w.server.Durable())
	} else {
		w.server.Checkpoint()
	}
	time.Sleep(length)
	w.server.Started()
	w.server.SetDown(false)
}

func (w *world) lostLinks() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tally.LostLinks > 0
}

func (w *world) fault(what string, count func(t *tally)) {
	w.transcript.add("%s", what)
	w.count(count)
}
