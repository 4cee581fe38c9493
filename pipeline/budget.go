package pipeline

import (
	"context"
	"sync"
)

// budget bounds the bytes of rows that are sent and not yet acked. It has one
// waiter, the publisher: while it waits, the queue fills, the reader stops, and
// Postgres keeps the log.
type budget struct {
	mu    sync.Mutex
	free  int
	total int
	freed chan struct{} // holds a token after a release
}

func newBudget(bytes int) *budget {
	return &budget{free: bytes, total: bytes, freed: make(chan struct{}, 1)}
}

// acquire waits until n bytes are free. What is larger than the whole budget goes
// alone.
func (b *budget) acquire(ctx context.Context, n int) error {
	for !b.take(n) {
		select {
		case <-b.freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (b *budget) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.free && b.free < b.total {
		return false
	}
	b.free -= n
	return true
}

// release gives n bytes back; it never blocks.
func (b *budget) release(n int) {
	b.mu.Lock()
	b.free += n
	b.mu.Unlock()
	select {
	case b.freed <- struct{}{}:
	default:
	}
}

// used is how many bytes are taken. Any goroutine may ask.
func (b *budget) used() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total - b.free
}
