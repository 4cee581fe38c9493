package sink

import (
	"context"
	"sync/atomic"
)

// buffer bounds the bytes of messages that are sent and not yet acked. It has one
// waiter, the goroutine that calls Send.
type buffer struct {
	used    atomic.Int64
	total   int64
	waiting atomic.Bool
	freed   chan struct{} // holds a token after a release
}

func newBuffer(bytes int) *buffer {
	return &buffer{total: int64(bytes), freed: make(chan struct{}, 1)}
}

// take waits until there is room for n bytes. What is larger than the whole goes
// alone.
func (b *buffer) take(ctx context.Context, cut <-chan struct{}, n int64) error {
	if b.try(n) {
		return nil
	}
	// Announced before the next try: whoever gives bytes back after that try failed
	// sees it, and leaves a token.
	b.waiting.Store(true)
	defer b.waiting.Store(false)
	for !b.try(n) {
		select {
		case <-b.freed:
		case <-cut:
			return errCut
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (b *buffer) try(n int64) bool {
	for {
		used := b.used.Load()
		if used > 0 && used+n > b.total {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// give returns n bytes; it never blocks.
func (b *buffer) give(n int64) {
	b.used.Add(-n)
	if !b.waiting.Load() {
		return
	}
	select {
	case b.freed <- struct{}{}:
	default:
	}
}

// recordOverhead and headerOverhead are at least what surrounds a lone record and
// each of its headers in a batch: 65 bytes of batch header with its length, and for
// the record an attribute and five numbers, each of at most five or ten bytes.
const (
	recordOverhead = 128
	headerOverhead = 10
)

// sizeOf is what a message takes: at least what it needs in a batch of its own,
// uncompressed, which is what the client measures.
func sizeOf(m *Message) int64 {
	size := recordOverhead + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		size += headerOverhead + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return int64(size)
}
