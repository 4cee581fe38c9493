//go:build synctests

package pipeline

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
)

// awakened is a database whose log grows with each save: by pages of the table, the
// index and the history, with what a server adds by itself when something was written.
type awakened struct {
	checkpoint.Memory
	s *saver

	mu    sync.Mutex
	end   wal.LSN
	next  uint64
	saves int
	kept  int
}

const (
	bytesASave = 40 << 10
	bytesAKeep = 20 << 10
)

func (a *awakened) IdleInterval() time.Duration { return time.Minute }

func (a *awakened) Save(ctx context.Context, p checkpoint.Position) error {
	a.count(&a.saves)
	a.write(bytesASave, 0)
	return a.Memory.Save(ctx, p)
}

func (a *awakened) Keep(ctx context.Context, e checkpoint.Entry) error {
	a.count(&a.kept)
	a.write(bytesAKeep, 0)
	return a.Memory.Keep(ctx, e)
}

func (a *awakened) count(n *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*n++
}

func (a *awakened) counts() (saves, kept int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.saves, a.kept
}

// write lets the log grow; the stream is told of it, and of rows in it.
func (a *awakened) write(bytes wal.LSN, rows int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end += bytes
	a.next++
	if rows > 0 {
		a.s.delivered.sent.add([]wal.Row{{Commit: a.end - 0x30, XID: uint32(a.next - 1)}})
	}
	ticket := a.s.tracker.Begin(a.end, rows, nil)
	for range rows {
		ticket.Ack(nil)
	}
}

// look is what the watch does every two seconds.
func (a *awakened) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.s.offer(wal.Sample{System: "7", Timeline: 1, Snapshot: fmt.Sprintf("%d:%[1]d:", a.next), At: a.end, Time: time.Now()})
}

// TestAnIdleStreamSleepsThroughTheNight simulates eight hours of a stream that saves to
// the database: what it writes itself never calls for a save, and what neighbours write
// for one a minute at the most.
func TestAnIdleStreamSleepsThroughTheNight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const start, hour = wal.LSN(0x1000), time.Hour
		a := &awakened{Memory: *checkpoint.NewMemory("orders"), end: start, next: 1000}
		a.s = newSaver(a, checkpoint.Position{Slot: "orders", System: "7", Timeline: 1, Database: "shop", LSN: start, Time: time.Now()}, DefaultSaveInterval)
		a.s.tracker, a.s.seen, a.s.confirm = checkpoint.NewTracker(start), new(counters), func(wal.LSN) {}
		ctx, cancel := context.WithTimeout(t.Context(), 9*hour)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- a.s.run(ctx) }()
		pass := func(d time.Duration, each func(second int)) (saves, kept int) {
			saves, kept = a.counts()
			for second := range int(d / time.Second) {
				time.Sleep(time.Second)
				synctest.Wait()
				if second%2 == 0 {
					a.look()
				}
				if each != nil {
					each(second)
				}
			}
			savesNow, keptNow := a.counts()
			return savesNow - saves, keptNow - kept
		}
		pass(time.Minute, nil) // the session's first snapshot is saved
		a.write(200, 3)        // a burst
		if saves, _ := pass(time.Minute, nil); saves != 1 {
			t.Errorf("a burst was saved %d times, want once", saves)
		}
		if saves, kept := pass(4*hour, nil); saves+kept > 1 {
			t.Errorf("four idle hours brought %d saves and %d entries, want one for what the burst's own save wrote, or none", saves, kept)
		}
		saves, kept := pass(hour, func(int) { a.write(4<<10, 0) })
		if saves > 61 || saves < 55 || kept > 61 {
			t.Errorf("an hour of other tables' log brought %d saves and %d entries, want one a minute", saves, kept)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
