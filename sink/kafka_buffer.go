package sink

import (
	"context"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
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

// sizeOf is what a record takes: at least what it needs in a batch of its own,
// uncompressed, which is what the client measures.
func sizeOf(r *kgo.Record) int64 {
	size := recordOverhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		size += headerOverhead + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(size)
}

// parcel is what one call of Send hands to the client: records and headers in two
// pieces of memory, and one promise for all of them. It goes back to the pool when
// the last of its messages is acked; the client does not look at a record after its
// promise.
type parcel struct {
	sink    *kafka
	ack     Ack
	records []kgo.Record
	headers []kgo.RecordHeader
	left    atomic.Int64                 // messages that are not acked, and one for Send
	promise func(r *kgo.Record, e error) // settle, bound once
}

// parcel fills one with msgs.
func (k *kafka) parcel(msgs []Message, ack Ack) *parcel {
	p, ok := k.parcels.Get().(*parcel)
	if !ok {
		p = &parcel{sink: k}
		p.promise = p.settle
	}
	p.ack = ack
	p.fill(msgs)
	p.left.Store(int64(len(msgs)) + 1)
	k.open.Add(1)
	return p
}

func (p *parcel) fill(msgs []Message) {
	headers := 0
	for i := range msgs {
		headers += len(msgs[i].Headers)
	}
	p.records = grow(p.records, len(msgs))
	p.headers = grow(p.headers, headers)[:0]
	for i := range msgs {
		m := &msgs[i]
		first := len(p.headers)
		for _, h := range m.Headers {
			p.headers = append(p.headers, kgo.RecordHeader(h))
		}
		p.records[i] = kgo.Record{
			Key: m.Key, Value: m.Value, Topic: m.Topic, Timestamp: m.Time, Partition: partitionOf(m),
			Headers: p.headers[first:len(p.headers):len(p.headers)],
		}
	}
}

// byKey stands for the partition that the key decides.
const byKey = -1

func partitionOf(m *Message) int32 {
	if m.Placed {
		return m.Partition
	}
	return byKey
}

// grow is s with n elements, in new memory where it is too short.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// settle is the promise: the client calls it once a record, one after the other.
func (p *parcel) settle(r *kgo.Record, err error) {
	defer fault.Catch(p.sink.caught)
	k, size := p.sink, sizeOf(r) // of slices that we own; after the ack theirs are gone
	if err != nil {
		err = k.line.fail(func() error { return ackError(r.Topic, err) })
	}
	p.ack(err)
	k.buffer.give(size)
	p.release(1)
}

// release says that n of the messages are done with, acked or not taken.
func (p *parcel) release(n int) {
	if p.left.Add(-int64(n)) > 0 {
		return
	}
	k := p.sink
	clear(p.records)
	clear(p.headers[:cap(p.headers)])
	p.ack = nil
	k.parcels.Put(p)
	k.open.Done()
}
