package test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/wal"
)

type saying = func(format string, args ...any)

// acked is a script that confirms a position of its first transaction, comes back,
// and says what the second connection begins with.
func acked(position func(seen) wal.LSN) func(tb testing.TB, s stage, say saying) {
	return func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		s.write(tb, "insert", "a")
		t := r.transaction()
		say("%s", t.what)
		before := s.confirmed(tb)
		r.ack(position(t))
		say("the slot moved: %v, to where it was told: %v", s.confirmed(tb) > before, s.confirmed(tb) == position(t))
		cut(r.pg)
		s.write(tb, "insert", "z")
		r = contractStream(tb, s, 0, nil)
		say("then %s", r.transaction().what)
	}
}

// written is a script that writes and reads n transactions.
func written(what string, n int, ids ...string) func(tb testing.TB, s stage, say saying) {
	return func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		s.write(tb, what, ids...)
		s.write(tb, "insert", "z")
		var last wal.LSN
		for range n + 1 {
			t := r.transaction()
			say("%s, its end is %s its commit and the commit not before the last end: %v", t.what, compare(t.end, t.commit), t.commit >= last)
			last = t.end
		}
	}
}

var scripts = []script{
	{name: "an ack of the commit's position repeats it", play: acked(func(t seen) wal.LSN { return t.commit })},
	{name: "an ack of the end does not", play: acked(func(t seen) wal.LSN { return t.end })},
	{name: "an ack of the commit's position plus one loses it", play: acked(func(t seen) wal.LSN { return t.commit + 1 })},
	{name: "an ack beyond the end of the log is believed", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		beyond := s.end(tb) + 1<<30
		r.ack(beyond)
		say("the slot is %s the position", compare(s.confirmed(tb), beyond))
	}},
	{name: "only flush moves the slot and zero says nothing", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		s.write(tb, "insert", "a")
		t := r.transaction()
		before := s.confirmed(tb)
		r.status(t.end, 0, t.end, true)
		r.end()
		say("the slot is %s where it was", compare(s.confirmed(tb), before))
	}},
	{name: "an ack that goes back is believed before 18", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		s.write(tb, "insert", "a")
		s.write(tb, "insert", "b")
		first, second := r.transaction(), r.transaction()
		r.status(second.end, second.end, second.end, true)
		r.ack(first.end)
		say("the slot is %s the later end", compare(s.confirmed(tb), second.end))
	}},
	{name: "a start below what is confirmed moves forward", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		s.write(tb, "insert", "a")
		s.write(tb, "insert", "b")
		first := r.transaction()
		r.ack(r.transaction().end)
		say("the slot stands behind the first: %v", s.confirmed(tb) > first.end)
		cut(r.pg)
		s.write(tb, "insert", "z")
		say("%s", contractStream(tb, s, first.commit, nil).transaction().what)
	}},
	{name: "a start above what is confirmed skips", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		s.write(tb, "insert", "a")
		s.write(tb, "insert", "b")
		r := contractStream(tb, s, 0, nil)
		first := r.transaction()
		cut(r.pg)
		say("%s", contractStream(tb, s, first.end, nil).transaction().what)
	}},
	{name: "a transaction that was cut comes again whole", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		s.write(tb, "insert", "a", "b", "c")
		r := contractStream(tb, s, 0, nil)
		for kind := ""; kind != "I"; {
			kind, _ = r.next(20 * time.Second)
		}
		cut(r.pg)
		say("%s", contractStream(tb, s, 0, nil).transaction().what)
	}},
	{name: "the first keepalive is not ahead of the slot", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		s.write(tb, "insert", "a")
		r.ack(r.transaction().end)
		cut(r.pg)
		r = contractStream(tb, s, 0, nil)
		r.status(0, 0, 0, true)
		kind, _ := r.next(5 * time.Second)
		say("%s, ahead of the slot: %v", kind, r.keepalive.end > s.confirmed(tb) && r.keepalive.end > s.end(tb))
	}},
	{name: "what is rolled back never comes", play: written("rollback", 0, "a")},
	{name: "nor what is rolled back to a savepoint", play: written("savepoint", 1, "a", "b")},
	{name: "transactions come in the order of their commits", play: written("interleave", 2, "a", "b")},
	{name: "a table that changes is described again", play: written("alter", 1, "a", "b")},
	{name: "a second client of the slot is refused", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		contractStream(tb, s, 0, nil)
		second := &reader{tb: tb, pg: s.connect(tb, nil), stage: s}
		say("%s", refusal(second.start(0)))
	}},
	{name: "a client that asks is answered", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		for range 3 {
			r.status(0, 0, 0, true)
			for kind := ""; kind != "k"; {
				kind, _ = r.next(5 * time.Second)
			}
			say("answered, asking back: %v", r.keepalive.reply)
		}
	}},
	{name: "idle log is told and can be confirmed", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		s.write(tb, "neighbour")
		end := s.end(tb)
		for began := time.Now(); r.keepalive.end < end && time.Since(began) < 20*time.Second; {
			r.status(0, 0, 0, true)
			r.next(time.Second)
		}
		say("told of the end: %v", r.keepalive.end >= end)
		told := r.keepalive.end
		r.ack(told)
		say("the slot is before it: %v", s.confirmed(tb) < told)
	}},
	{name: "a client that ends the copy is let go in order", play: func(tb testing.TB, s stage, say saying) {
		tb.Helper()
		r := contractStream(tb, s, 0, nil)
		r.pg.Frontend().Send(&pgproto3.CopyDone{})
		if err := r.pg.Frontend().Flush(); err != nil {
			tb.Fatal(err)
		}
		for kind := ""; kind != "ReadyForQuery" && kind != "nothing" && kind != "end"; {
			if kind, _ = r.next(5 * time.Second); kind != "k" {
				say("%s", kind)
			}
		}
		again := &reader{tb: tb, pg: s.connect(tb, nil), stage: s}
		say("and the slot is free: %v", again.start(0) == nil)
	}},
	{name: "a silent client is asked and then left", play: silentClient},
	{name: "a server that stops waits for its client", own: true, play: stoppingServer},
}

// silentClient says in quarters of the timeout, the nearest, when it is asked and when it
// is left.
func silentClient(tb testing.TB, s stage, say saying) {
	tb.Helper()
	const timeout = 2 * time.Second
	r := contractStream(tb, s, 0, map[string]string{"wal_sender_timeout": "2s"})
	began := time.Now()
	for {
		kind, _ := r.next(3 * timeout)
		quarters := int((8*time.Since(began)/timeout + 1) / 2)
		switch {
		case kind == "k" && r.keepalive.reply:
			say("asked after %d quarters", quarters)
		case kind != "k":
			say("%s after %d quarters", kind, quarters)
			return
		}
	}
}

// stoppingServer: the server asks again after each answer that brings no news, takes no
// ordinary client, and ends the copy when everything is confirmed.
func stoppingServer(tb testing.TB, s stage, say saying) {
	tb.Helper()
	r := contractStream(tb, s, 0, nil)
	s.write(tb, "insert", "a")
	say("%s", r.transaction().what)
	s.stop(tb)
	asked := 0
	for asked < 10 {
		kind, _ := r.next(10 * time.Second)
		if kind != "k" {
			say("%s instead of a question", kind)
			return
		}
		if r.keepalive.reply {
			asked++
			r.status(0, 0, 0, false)
		}
	}
	say("asked %d times", asked)
	for {
		kind, _ := r.next(10 * time.Second)
		if kind != "k" {
			say("%s", kind)
			if kind == "end" || kind == "nothing" {
				return
			}
			continue
		}
		r.status(r.keepalive.end, r.keepalive.end, r.keepalive.end, false)
	}
}
