package sink

import (
	"sync/atomic"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// crateRecords is how many records a crate holds. Two crates take what one large
// piece of the log makes; memory for them is 60 KiB each.
const crateRecords = 256

// crate is memory for the records of successive parcels. Send fills it, and when it
// is full takes the next; the last of its parcels to be settled gives it back. So a
// message that is sent by itself costs one record, and a steady stream allocates none.
type crate struct {
	records []kgo.Record
	used    int          // by the goroutine that calls Send
	held    atomic.Int32 // parcels that are not settled, and one while Send fills it
}

func newCrate() any { return &crate{records: make([]kgo.Record, crateRecords)} }

// openCrate gives the crate that has room for the next message.
func (k *kafka) openCrate() *crate {
	if k.crate != nil && k.crate.used < crateRecords {
		return k.crate
	}
	if k.crate != nil {
		k.giveBack(k.crate)
	}
	k.crate = k.crates.Get().(*crate) //nolint:forcetypeassert // the pool holds nothing else
	k.crate.held.Store(1)
	return k.crate
}

// giveBack says that one of those who hold the crate is done with it.
func (k *kafka) giveBack(c *crate) {
	if c.held.Add(-1) > 0 {
		return
	}
	c.used = 0
	k.crates.Put(c)
}

// parcel is some messages of one call of Send, as the client takes them: records in a
// row, with one promise for all. What a parcel counts is touched by one goroutine at
// a time: Send's until the client has the first record, and then the client's, which
// calls promises one after the other. That makes an ack cheap: where messages are
// many, they share one settling of their ticket and of the buffer.
//
// The client does not look at a record after its promise.
type parcel struct {
	sink    *kafka
	ack     Ack
	crate   *crate
	records []kgo.Record
	size    int64 // of the messages, in the buffer
	stored  int
	left    int                          // messages whose promise is due
	promise func(r *kgo.Record, e error) // settle, bound once
}

// pack makes a parcel of msgs, for which the crate has room.
func (k *kafka) pack(c *crate, msgs []Message, size int64, ack Ack) *parcel {
	p, ok := k.parcels.Get().(*parcel)
	if !ok {
		p = &parcel{sink: k}
		p.promise = p.settle
	}
	p.ack, p.crate, p.size, p.stored, p.left = ack, c, size, 0, len(msgs)
	p.records = c.records[c.used : c.used+len(msgs)]
	for i := range msgs {
		m, r := &msgs[i], &p.records[i] // which is empty
		r.Topic, r.Partition, r.Timestamp = m.Topic, partitionOf(m), m.Time
		r.Key, r.Value, r.Headers = m.Key, m.Value, recordHeaders(m.Headers)
	}
	c.used += len(msgs)
	c.held.Add(1)
	k.open.Add(1)
	return p
}

// recordHeaders are a message's headers as the client's: the same memory, since both
// are a string and its bytes, which the conversion below makes the compiler check.
func recordHeaders(headers []Header) []kgo.RecordHeader {
	_ = kgo.RecordHeader(Header{})
	return unsafe.Slice((*kgo.RecordHeader)(unsafe.SliceData(headers)), len(headers)) //nolint:gosec // see above
}

// byKey stands for the partition that the key decides.
const byKey = -1

func partitionOf(m *Message) int32 {
	if m.Placed {
		return m.Partition
	}
	return byKey
}

// settle is the promise: the client calls it once a record, one after the other.
func (p *parcel) settle(r *kgo.Record, err error) {
	if err == nil && p.left > 1 {
		p.stored++
		p.left--
		return
	}
	p.conclude(r, err)
}

// conclude is settle where somebody is told: of the last message, and of a failure at
// once, since it cuts the line.
func (p *parcel) conclude(r *kgo.Record, err error) {
	defer fault.Catch(p.sink.caught)
	if err == nil {
		p.stored++
	} else {
		p.ack(p.sink.line.fail(func() error { return ackError(r.Topic, err) }))
	}
	p.left--
	if p.left == 0 {
		p.close()
	}
}

// close acks what is stored, and lets go of the memory.
func (p *parcel) close() {
	k := p.sink
	for range p.stored {
		p.ack(nil)
	}
	clear(p.records) // or the crate would hold on to what was acked, 256 messages of any size
	k.buffer.give(p.size)
	k.giveBack(p.crate)
	p.ack, p.crate, p.records = nil, nil, nil
	k.parcels.Put(p)
	k.open.Done()
}
