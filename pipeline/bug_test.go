package pipeline

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// brokenSource, brokenSink and brokenStore panic where the test says so.
type brokenSource struct{ Source }

func (brokenSource) Run(_ context.Context, _ <-chan struct{}, out chan<- wal.Batch) error {
	defer close(out)
	panic("bug: of the reader")
}

type brokenSink struct {
	sink.Sink
	send, flush bool
}

func (b brokenSink) Send(ctx context.Context, msgs []sink.Message, ack sink.Ack) error {
	if b.send {
		panic("bug: of the publisher")
	}
	return b.Sink.Send(ctx, msgs, ack)
}

func (b brokenSink) Flush(ctx context.Context) error {
	if b.flush {
		panic("bug: of the drain")
	}
	return b.Sink.Flush(ctx)
}

type brokenStore struct{ checkpoint.Store }

func (brokenStore) Save(context.Context, checkpoint.Position) error { panic("bug: of the saver") }

func TestABugInAnyPartEndsTheSessionAtOnceAndNothingIsSavedAfterIt(t *testing.T) {
	give := func(x *trial) (ack sink.Ack) {
		x.batches <- batchOf(0x1100, "a", "b")
		return <-x.sink.acks
	}
	for who, c := range map[string]struct {
		plant   func(x *trial)
		provoke func(x *trial)
	}{
		"reader": {func(x *trial) { x.s.source = brokenSource{x.script} }, func(*trial) {}},
		"publisher": {
			func(x *trial) { x.s.sink = brokenSink{Sink: x.sink, send: true} },
			func(x *trial) { x.batches <- batchOf(0x1100, "a") },
		},
		"saver":   {func(x *trial) { x.s.saver.store = brokenStore{x.store} }, func(x *trial) { ack := give(x); ack(nil); ack(nil) }},
		"watcher": {func(x *trial) { x.s.watch = func(context.Context) error { panic("bug: of the watcher") } }, func(*trial) {}},
		"drain":   {func(x *trial) { x.s.sink = brokenSink{Sink: x.sink, flush: true} }, func(x *trial) { close(x.stop) }},
		"ledger":  {func(*trial) {}, func(x *trial) { ack := give(x); ack(nil); ack(nil); ack(nil) }},
		"sink": {func(*trial) {}, func(x *trial) {
			ack := give(x)
			ack(&fault.Error{Class: fault.Bug, Err: errors.New("bug: of the sink")})
		}},
	} {
		t.Run(who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				x := newTrial(t)
				c.plant(x)
				go func() { x.done <- x.s.run(ctx, x.stop) }()
				c.provoke(x)
				provoked := time.Now()
				err := <-x.done
				if fault.Classify(err) != fault.Bug || !strings.Contains(err.Error(), "bug: ") {
					t.Errorf("the session ended with %v, want the bug", err)
				}
				if took := time.Since(provoked); took > time.Second {
					t.Errorf("the session ended %v after the bug, want at once", took)
				}
				time.Sleep(time.Minute) // what is left of the session ends too
				for _, what := range x.noted() {
					if strings.HasPrefix(what, "save") || strings.HasPrefix(what, "confirm") {
						t.Errorf("%s after a bug", what)
					}
				}
			})
		})
	}
}

func TestABugIsToldWithTheFivePositions(t *testing.T) {
	r := &Runner{}
	r.seen.saved.Store(0x1200)
	r.seen.confirmed.Store(0x1100)
	r.board.read = func() wal.LSN { return 0x1500 }
	r.board.marks = func() (acked, sent checkpoint.Mark) {
		return checkpoint.Mark{LSN: 0x1300}, checkpoint.Mark{LSN: 0x1400}
	}
	r.board.oldest = func() (time.Time, bool) { return time.Time{}, false }
	err := r.autopsy(&fault.Error{Class: fault.Bug, Err: errors.New("bug: a batch ends twice")})
	const want = "bug: a batch ends twice; read 0/1500, sent 0/1400, acked 0/1300, saved 0/1200, confirmed 0/1100"
	if err.Error() != want || fault.Classify(err) != fault.Bug {
		t.Errorf("told as %q, want %q", err, want)
	}
}

func TestABugThatLeftALockBehindIsToldAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, locked := &Runner{}, make(chan struct{})
		r.board.marks = func() (acked, sent checkpoint.Mark) { <-locked; return acked, sent } // a mutex would stop the bubble's clock
		r.board.read = func() wal.LSN { return 0 }
		r.board.oldest = func() (time.Time, bool) { return time.Time{}, false }
		err := r.autopsy(&fault.Error{Class: fault.Bug, Err: errors.New("bug: of somebody")})
		if fault.Classify(err) != fault.Bug || !strings.Contains(err.Error(), "bug: of somebody; the positions are not known") {
			t.Errorf("told as %q", err)
		}
		close(locked)
	})
}
