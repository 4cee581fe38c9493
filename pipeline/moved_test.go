package pipeline

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

// An instance that was frozen wakes up behind its successor. Its watch may look at the slot
// before its stream learns that its connection has gone. Only who has saved nothing has
// moved the slot past what was sent.
func TestASlotThatMovedIsTheOperatorsOnlyWhereNobodySavedThat(t *testing.T) {
	for name, successor := range map[string]bool{"a successor's": true, "a stranger's": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				server := waltest.NewServer(0x1000)
				defer server.Close()
				file := "file://" + filepath.Join(t.TempDir(), "position")
				r := openedBy(t, server.Dial, file)
				r.config.WatchInterval, r.config.SaveInterval = time.Second, 10*time.Minute
				stop, ended := make(chan struct{}), make(chan error, 1)
				go func() { ended <- r.Run(ctx, stop) }()
				time.Sleep(5 * time.Second)
				if !successor { // who cannot move it under the stream
					server.SetDown(true)
					server.Cut()
					synctest.Wait() // the last status has arrived
				}
				moved := server.Idle(1 << 20)
				if successor {
					saveBeside(t, file, moved)
				}
				server.SetConfirmed(moved)
				server.SetDown(false)
				time.Sleep(time.Minute)
				state := r.Stats().State
				close(stop)
				err := <-ended
				if successor && (state != Streaming || err != nil) {
					t.Errorf("the stream is %s and ended with %v, want that it goes on", state, err)
				}
				if !successor && (fault.Classify(err) != fault.Operator || !strings.Contains(err.Error(), "moved or made anew")) {
					t.Errorf("the stream is %s and ended with %v, want a gap that is refused", state, err)
				}
			})
		})
	}
}

// saveBeside saves a position as another instance does.
func saveBeside(t *testing.T, file string, at wal.LSN) {
	t.Helper()
	store, err := checkpoint.Open(t.Context(), file, checkpoint.Options{Slot: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close() //nolint:errcheck // what is saved is durable
	p, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.LSN, p.Time = at, time.Now()
	if err := store.Save(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}
