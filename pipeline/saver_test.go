package pipeline

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// An instance that was frozen wakes up behind its successor. Its session is over, and
// the program is not: the next session stands by.
func TestASuccessorsPositionEndsTheSessionAlone(t *testing.T) {
	store, err := checkpoint.Open(t.Context(), "memory://", checkpoint.Options{Slot: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	ours := checkpoint.Position{Slot: "orders", System: "7", Timeline: 1, Database: "shop", LSN: 100, Time: time.Now().UTC()}
	theirs := ours
	theirs.LSN = 300
	if err := store.Save(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	s := newSaver(store, ours, time.Second)
	s.tracker, s.seen = checkpoint.NewTracker(ours.LSN), new(counters)
	s.confirm = func(lsn wal.LSN) { t.Errorf("%v was confirmed and is not saved", lsn) }
	s.tracker.Begin(200, 0, nil)
	if err := s.save(t.Context()); !errors.Is(err, checkpoint.ErrBackwards) || fault.Classify(err) != fault.Transient {
		t.Errorf("save = %v of class %v, want ErrBackwards as a transient error", err, fault.Classify(err))
	}
	if got, err := store.Load(t.Context()); err != nil || got.LSN != theirs.LSN {
		t.Errorf("saved is %v, %v, want the successor's %v", got.LSN, err, theirs.LSN)
	}
}

// A stop that could not save says so: what the broker has acked is sent again.
func TestAStopThatCannotSaveIsNotOneInOrder(t *testing.T) {
	away := errors.New("the store is away")
	for name, c := range map[string]struct {
		rows    []string
		err     error
		inOrder bool
	}{
		"rows are acked":           {rows: []string{"a"}, err: away},
		"nothing but log":          {err: away, inOrder: true},
		"another instance went on": {rows: []string{"a"}, err: checkpoint.ErrBackwards, inOrder: true},
	} {
		t.Run(name, func(t *testing.T) {
			inTrial(t, func(t *testing.T, x *trial) {
				x.store.err = c.err
				x.batches <- batchOf(0x1100, c.rows...)
				synctest.Wait()
				for range c.rows {
					ack := <-x.sink.acks
					close(x.stop)
					ack(nil)
				}
				if len(c.rows) == 0 {
					close(x.stop)
				}
				close(x.sink.flush)
				err := <-x.done
				if got := !errors.Is(err, fault.ErrDrainTimeout); got != c.inOrder || !errors.Is(err, c.err) {
					t.Errorf("the session ended with %v: in order is %v, want %v", err, got, c.inOrder)
				}
			})
		})
	}
}
