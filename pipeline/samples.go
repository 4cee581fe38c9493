package pipeline

import (
	"sync"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
)

// waitingSamples bounds how many snapshots wait for the mark. While the broker is
// away for hours they become sparser instead of more.
const waitingSamples = 64

// samples holds snapshots of the database from when they are taken until the mark
// has passed them; then they are delivered. They live and die with their session: a
// server that crashed may give the numbers of transactions out again whose commits
// it had shown and not yet written.
//
// The watcher offers, the saver takes.
type samples struct {
	mu      sync.Mutex
	waiting []checkpoint.Snapshot // their places in the log do not fall
}

// offer adds a snapshot that is newer than those before. One without text or too
// long to be saved is left out.
func (s *samples) offer(next checkpoint.Snapshot) {
	if !next.Known() || len(next.Text) > checkpoint.MaxSnapshotBytes {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.waiting); n > 0 && next.At < s.waiting[n-1].At {
		return
	}
	if len(s.waiting) == waitingSamples {
		s.thin()
	}
	s.waiting = append(s.waiting, next)
}

// thin drops the snapshot whose neighbours lie closest together in the log. s.mu is
// held.
func (s *samples) thin() {
	least := 1
	for i := 2; i < len(s.waiting)-1; i++ {
		if s.waiting[i+1].At-s.waiting[i-1].At < s.waiting[least+1].At-s.waiting[least-1].At {
			least = i
		}
	}
	s.waiting = append(s.waiting[:least], s.waiting[least+1:]...)
}

// passed gives the newest snapshot that the mark has passed, and forgets the ones
// before it.
func (s *samples) passed(mark wal.LSN) (newest checkpoint.Snapshot, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.waiting) && s.waiting[n].At <= mark {
		n++
	}
	if n == 0 {
		return newest, false
	}
	newest = s.waiting[n-1]
	s.waiting = append(s.waiting[:0], s.waiting[n-1:]...)
	return newest, true
}

// offer takes a snapshot of the log that the session streams: the watcher's
// connection may lead to another server than the stream's while one replaces the
// other.
func (s *saver) offer(sample wal.Sample) {
	if sample.System != s.system || sample.Timeline != s.timeline {
		return
	}
	s.delivered.samples.offer(checkpoint.Snapshot{Text: sample.Snapshot, At: sample.At, Time: sample.Time})
}
