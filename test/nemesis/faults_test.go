package nemesis

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// fault is one thing that breaks and is whole again when strike returns.
type fault struct {
	name   string
	strike func()
	calm   bool // the next fault waits until this one is got over
	slow   bool // left out where time is short
}

// faults is one of each kind.
func (w *world) faults() []fault {
	all := []fault{
		{name: "kill -9 of the streamer", strike: w.killStreamer},
		{name: "SIGTERM under load", strike: w.restartStreamer},
		{name: "SIGSTOP, a successor, SIGCONT", strike: w.zombie, calm: true},
		{name: "crash of Postgres", strike: func() { w.pg.Stop(w.t, servers.Immediate); w.let(2 * time.Second); w.pg.Start(w.t) }},
		{name: "kill -9 of Postgres", strike: func() { w.pg.Kill9(w.t); w.pg.Start(w.t) }},
		{name: "fast restart of Postgres", strike: func() { w.pg.Restart(w.t, servers.Fast) }},
		{name: "walsender terminated", strike: w.terminateSender},
		{name: "checkpoint file cannot be written", strike: w.blockCheckpoint},
		{name: "slot advanced by somebody", strike: w.advanceSlot, calm: true},
		{name: "slot dropped", strike: func() { w.loseSlot(false) }, calm: true},
		{name: "slot dropped and made anew", strike: func() { w.loseSlot(true) }, calm: true},
		{name: "publication dropped", strike: w.dropPublication, calm: true},
		{name: "table taken out of the publication", strike: w.unpublish, calm: true},
	}
	all = append(all, w.broker.faults(w)...)
	if w.tiny {
		all = append(all, fault{name: "disk of the checkpoint file full", strike: w.fillDisk})
	}
	for _, link := range []struct {
		name  string
		proxy *servers.Proxy
	}{{"link to Postgres", w.pgLink}, {"link to the broker", w.broker.link()}} {
		all = append(all,
			fault{name: link.name + " cut", strike: link.proxy.Cut},
			fault{name: link.name + " half-closed", strike: link.proxy.HalfClose},
			fault{name: link.name + " refuses", strike: func() {
				link.proxy.Refuse()
				link.proxy.Cut()
				w.let(6 * time.Second)
				link.proxy.Accept(w.t)
			}},
			fault{name: link.name + " is a black hole", strike: func() {
				link.proxy.Blackhole()
				w.let(30 * time.Second)
				link.proxy.Resume()
			}},
			fault{name: link.name + " is slow", strike: func() {
				link.proxy.SetLatency(200 * time.Millisecond)
				link.proxy.SetBandwidth(20_000)
				w.let(8 * time.Second)
				link.proxy.SetLatency(0)
				link.proxy.SetBandwidth(0)
			}},
		)
	}
	return all
}

func (w *world) killStreamer() {
	w.main.kill(w.t)
	w.let(time.Second)
	w.main = w.stream()
}

// restartStreamer stops the streamer as an upgrade does, while it streams.
func (w *world) restartStreamer() {
	w.recovers("the fault before")
	w.main.stop(w.t)
	w.main = w.stream()
}

// zombie freezes the streamer and lets a successor take over. The frozen one finds
// its session gone when it wakes up, and what it had sent to its sockets arrives
// after the successor's.
func (w *world) zombie() {
	w.recovers("the fault before")
	old := w.main
	w.freeze(old)
	w.main = w.stream()
	w.let(3 * time.Second)
	w.terminateSender()
	w.recovers("the death of the frozen session")
	old.signal(w.t, syscall.SIGCONT)
	w.let(4 * time.Second)
	if old.ended() {
		w.t.Fatalf("seed %d: a streamer that was frozen has ended with %v when it woke up:\n%s", *seed, old.cmd.ProcessState, old.log)
	}
	if w.random.IntN(2) == 0 {
		old, w.main = w.main, old
	}
	old.kill(w.t)
}

// freeze stops the streamer between two saves. One that is frozen in a save keeps the lock
// of the file, and every successor waits until it goes on or ends.
func (w *world) freeze(s *streamer) {
	lock, err := os.OpenFile(w.position+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer lock.Close() //nolint:errcheck // which lets go of the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		w.t.Fatal(err)
	}
	s.signal(w.t, syscall.SIGSTOP)
}

func (w *world) terminateSender() {
	w.exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active_pid is not null", w.slot)
}

// blockCheckpoint puts something in the way of the file that each save makes. It
// cannot be removed even by root. A stream that starts now is refused, so the one that
// runs has opened the file before.
func (w *world) blockCheckpoint() {
	w.eventually(recoveryBound, "it streams", func() (active bool) {
		w.sql(func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "select active from pg_replication_slots where slot_name = $1", w.slot).Scan(&active)
		})
		return active
	})
	way := w.position + ".new"
	os.Remove(way) //nolint:errcheck // a save may have left it
	if err := os.MkdirAll(filepath.Join(way, "stays"), 0o700); err != nil {
		// A save is at it: then it has won, as it may.
		w.t.Logf("the checkpoint could not be blocked: %v", err)
		return
	}
	w.let(6 * time.Second)
	if err := os.RemoveAll(way); err != nil {
		w.t.Fatal(err)
	}
}

// fillDisk leaves no byte for the next save.
func (w *world) fillDisk() {
	path := filepath.Join(filepath.Dir(w.position), "filler")
	filler, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	for err == nil { // until the disk is full
		_, err = filler.Write(make([]byte, 512))
	}
	filler.Close() //nolint:errcheck // it was to fail
	w.let(6 * time.Second)
	if err := os.Remove(path); err != nil {
		w.t.Fatal(err)
	}
}

// advanceSlot moves the slot over events that were not sent. The way out: forget the
// saved position, start, and send again from the table.
func (w *world) advanceSlot() {
	defer w.maintain("advance", true)()
	w.exec("select pg_replication_slot_advance($1, pg_current_wal_lsn())", w.slot)
	w.stream().refuses(w.t, "was moved or made anew by someone else")
	w.forgetPosition()
	w.main = w.stream()
}

// loseSlot drops the slot, and makes another of its name behind our back.
func (w *world) loseSlot(anew bool) {
	defer w.maintain("lose", true)()
	w.exec("select pg_drop_replication_slot($1)", w.slot)
	say := "does not exist"
	if anew {
		w.exec("select pg_create_logical_replication_slot($1, 'pgoutput')", w.slot)
		say = "was moved or made anew by someone else"
	}
	w.stream().refuses(w.t, say)
	w.forgetPosition()
	w.main = w.stream()
}

// dropPublication takes the publication away under the running stream. Log that was
// written without it cannot be read with it, so the way out needs a new slot.
func (w *world) dropPublication() {
	defer w.maintain("publication", false)()
	w.exec("drop publication outboxcdc")
	w.load.gap(w.t, w.name("unpublished"), w.random)
	w.main.refuses(w.t, "publication") // the watch says it or the server, whoever looks first
	w.released()
	w.exec("select pg_drop_replication_slot($1)", w.slot)
	w.forgetPosition()
	w.outboxcdc("init")
	w.main = w.stream()
}

// unpublish takes the table out of the publication. The server says nothing and sends
// nothing; the stream must find out by itself.
func (w *world) unpublish() {
	defer w.maintain("unpublish", false)()
	w.exec("alter publication outboxcdc drop table outbox")
	w.load.gap(w.t, w.name("unpublished"), w.random)
	w.main.refuses(w.t, "publication outboxcdc")
	w.exec("alter publication outboxcdc add table outbox")
	w.main = w.stream()
}

// maintain lets the writers pause with everything delivered, and the streamer stop
// when that is asked for; what is written then is in the gap. The function that it
// gives sends the gap again from the table and lets the writers go on.
func (w *world) maintain(name string, stopped bool) (resume func()) {
	w.t.Helper()
	w.recovers("the fault before")
	goOn := w.load.pause()
	w.recovers("the pause of the writers")
	if stopped {
		w.main.stop(w.t)
		w.released()
		w.load.gap(w.t, w.name(name), w.random)
	}
	return func() {
		defer goOn()
		if w.t.Failed() {
			return
		}
		w.recovers("the way out")
		w.resend()
		w.recovers("the gap was sent again")
	}
}

// released waits until nobody streams from the slot. The walsender of a stream that has
// ended lives on for a moment.
func (w *world) released() {
	w.t.Helper()
	w.sql(func(ctx context.Context, conn *pgx.Conn) error {
		clock := time.NewTicker(50 * time.Millisecond)
		defer clock.Stop()
		for active := true; active; <-clock.C {
			if err := conn.QueryRow(ctx, "select active from pg_replication_slots where slot_name = $1", w.slot).Scan(&active); err != nil {
				return err
			}
		}
		return nil
	})
}

// name is one that no other transaction has.
func (w *world) name(what string) string { return what + "-" + time.Since(w.began).String() }

// forgetPosition removes what is saved, and the database's note that there was a stream,
// without which the next start is a first one.
func (w *world) forgetPosition() {
	if err := os.Remove(w.position); err != nil {
		w.t.Fatal(err)
	}
	w.exec("update outboxcdc.outbox_table set streamed_lsn = null where slot = $1", w.slot)
}

// resend does what the refusal advises: rows whose events are on no topic are taken
// out of the table and inserted anew, in their order, under the same ids.
func (w *world) resend() {
	w.t.Helper()
	delivered := map[string]bool{}
	for _, r := range w.broker.records(w) {
		delivered[headerOf(w.t, r, "id")] = true
	}
	w.sql(func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "select id::text from outbox order by seq")
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		var missing []string
		for _, id := range ids {
			if !delivered[id] {
				missing = append(missing, id)
			}
		}
		_, err = conn.Exec(ctx, `with gone as (delete from outbox where id = any($1::uuid[]) returning *)
			insert into outbox (id, aggregate_type, aggregate_id, event_type, payload)
			select id, aggregate_type, aggregate_id, event_type, payload from gone order by seq`, missing)
		return err
	})
}
