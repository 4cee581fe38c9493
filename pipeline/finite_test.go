package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// finiteScript gives what it holds and ends, with err when there is one.
type finiteScript struct {
	*script

	left []wal.Batch
	err  error
}

func (f *finiteScript) Run(ctx context.Context, stop <-chan struct{}, out chan<- wal.Batch) error {
	defer close(out)
	for _, b := range f.left {
		select {
		case out <- b:
		case <-stop:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return f.err
}

func TestASessionOfAFiniteSourceEndsWhenAllOfItIsAckedAndSaved(t *testing.T) {
	broke := errors.New("the source broke")
	for name, want := range map[string]error{"whole": nil, "broken at its end": broke} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				x := newTrial(t)
				x.s.finite = true
				x.s.source = &finiteScript{script: x.script, left: []wal.Batch{batchOf(0x1100, "a"), batchOf(0x1200, "b"), batchOf(0x1300, "c")}, err: want}
				go func() { x.done <- x.s.run(ctx, x.stop) }()
				for acked := 0; ; {
					select {
					case ack := <-x.sink.acks:
						ack(nil)
						acked++
						if acked == 3 {
							close(x.sink.flush)
						}
						continue
					case err := <-x.done:
						if !errors.Is(err, want) {
							t.Fatalf("the session ended with %v, want %v", err, want)
						}
					}
					break
				}
				// One that broke drops what is still queued.
				if got := count(x.noted(), "save 0/1300"); want == nil && got != 1 {
					t.Errorf("what was acked last was saved %d times, want once: %q", got, x.noted())
				}
			})
		})
	}
}
