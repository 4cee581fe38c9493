package sim

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

// event is one committed outbox row.
type event struct {
	end      wal.LSN // of its transaction
	key      int
	position string // the header that names it
	void     bool   // committed before there was a slot
}

// ledger knows what was committed and what was promised about it.
type ledger struct {
	w *world

	mu       sync.Mutex
	events   []event          // in commit order
	ends     map[wal.LSN]bool // of transactions and idle stretches: no other position is one
	promises []promise
	flush    wal.LSN // the latest
}

// promise is a position that was saved or confirmed, and what the broker held then.
type promise struct {
	what   string
	lsn    wal.LSN
	stored [partitions]int64
}

// last is the end of the last event that must be delivered.
func (l *ledger) last() wal.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range slices.Backward(l.events) {
		if !e.void {
			return e.end
		}
	}
	return 0
}

// between says whether an event ends behind after, and no later than upTo.
func (l *ledger) between(after, upTo wal.LSN) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.events, func(e event) bool { return after < e.end && e.end <= upTo })
}

// ended notes where a stretch of the log ends.
func (l *ledger) ended(lsn wal.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[lsn] = true
}

// saved notes a save.
func (l *ledger) saved(lsn wal.LSN) {
	l.w.transcript.add("saved %v", lsn)
	l.promise("saved", lsn)
}

// confirmed notes a status update, when it says something new.
func (l *ledger) confirmed(s waltest.Status) {
	l.w.transcript.add("status %v", s.Flush)
	l.mu.Lock()
	news := s.Flush > l.flush
	l.flush = max(l.flush, s.Flush)
	l.mu.Unlock()
	if !news {
		return
	}
	l.w.count(func(t *tally) { t.Statuses++ })
	if saved := l.savedPosition(); s.Flush > saved {
		l.w.t.Errorf("confirmed %v, but only %v is saved", s.Flush, saved)
	}
	l.promise("confirmed", s.Flush)
}

func (l *ledger) promise(what string, lsn wal.LSN) {
	p := promise{what: what, lsn: lsn, stored: l.w.kafka.stored()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ends[lsn] {
		l.w.t.Errorf("%s %v, which is the end of nothing", what, lsn)
	}
	l.promises = append(l.promises, p)
}

func (l *ledger) savedPosition() wal.LSN {
	if l.w.file == "" {
		return l.w.server.Saved(slotName)
	}
	store, err := checkpoint.Open(context.Background(), "file://"+l.w.file, checkpoint.Options{Slot: slotName})
	if err != nil {
		l.w.t.Errorf("open the checkpoint: %v", err)
		return 0
	}
	defer store.Close() //nolint:errcheck // nothing was written
	p, err := store.Load(context.Background())
	if err != nil {
		l.w.t.Errorf("load the checkpoint: %v", err)
	}
	return p.LSN
}

// item is a stored message, understood.
type item struct {
	event    int
	key      int
	position string
}

// check holds what the broker has against what was committed and promised.
func (l *ledger) check(logs [partitions][]*kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make([]int64, len(l.events)) // offset behind the first copy of each event, 0 when there is none
	where := make([]int, len(l.events))
	stored := 0
	for p, records := range logs {
		l.checkPartition(p, records, held, where)
		stored += len(records)
	}
	l.checkPromises(held, where)
	lost := 0
	for i, e := range l.events {
		if held[i] == 0 && !e.void {
			if lost == 0 {
				l.w.t.Errorf("event %d of key %d, which ends at %v, was lost", i, e.key, e.end)
			}
			lost++
		}
	}
	l.w.count(func(t *tally) {
		t.Events += len(l.events)
		t.Stored += stored
		for _, e := range l.events {
			if e.void {
				t.Events--
			}
		}
	})
	for p, records := range logs {
		digest := sha256.New()
		for _, r := range records {
			digest.Write([]byte(understood(r).position + "\n"))
		}
		l.w.transcript.add("partition %d holds %d messages: %x", p, len(records), digest.Sum(nil))
	}
}

// checkPartition: first copies are in commit order, no key skips one of its events,
// and every copy of an event names the same position.
func (l *ledger) checkPartition(p int, records []*kgo.Record, held []int64, where []int) {
	var seen [keys]int // how many of the key's events were there
	order := l.perKey()
	latest := ""
	for offset, r := range records {
		it := understood(r)
		if it.event < 0 || it.event >= len(l.events) {
			l.w.t.Errorf("partition %d holds event %d, which was never committed", p, it.event)
			return
		}
		e := l.events[it.event]
		if it.position != e.position || it.key != e.key {
			l.w.t.Errorf("event %d of key %d at %s came as one of key %d at %s", it.event, e.key, e.position, it.key, it.position)
			return
		}
		n := slices.Index(order[e.key], it.event)
		if n > seen[e.key] {
			l.w.t.Errorf("partition %d: event %d of key %d came before event %d", p, it.event, e.key, order[e.key][seen[e.key]])
			return
		}
		seen[e.key] = max(seen[e.key], n+1)
		if held[it.event] != 0 {
			continue
		}
		held[it.event], where[it.event] = int64(offset)+1, p
		if it.position < latest && len(it.position) == len(latest) {
			l.w.t.Errorf("partition %d: the first copy of %s came after %s", p, it.position, latest)
			return
		}
		latest = it.position
	}
}

// perKey gives the events of each key in commit order, those that must be delivered.
func (l *ledger) perKey() (order [keys][]int) {
	for i, e := range l.events {
		if !e.void {
			order[e.key] = append(order[e.key], i)
		}
	}
	return order
}

// checkPromises: what was saved or confirmed was with the broker at that moment.
func (l *ledger) checkPromises(held []int64, where []int) {
	for _, p := range l.promises {
		for i, e := range l.events {
			if e.end > p.lsn {
				break
			}
			if !e.void && (held[i] == 0 || held[i] > p.stored[where[i]]) {
				l.w.t.Errorf("%s %v while event %d, which ends at %v, was not stored", p.what, p.lsn, i, e.end)
				return
			}
		}
	}
}

func understood(r *kgo.Record) item {
	it := item{event: -1}
	fmt.Sscan(string(r.Key[1:]), &it.key) //nolint:errcheck // a wrong number is found out
	for _, h := range r.Headers {
		switch h.Key {
		case "id":
			fmt.Sscan(string(h.Value), &it.event) //nolint:errcheck // as above
		case "outboxcdc-position":
			it.position = string(h.Value)
		}
	}
	return it
}
