package checkpoint

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// Tracker is the ledger of one session. Batches enter in stream order and are
// acked in any order; the mark is the end of the longest prefix in which every
// message is acked.
//
// The rule is small because nothing else is safe. Partitions ack out of order, so
// the latest ack proves nothing about the ones before it. A batch that ends inside
// a transaction has no end to offer, so a transaction counts only with the batch
// that holds its commit. An idle stretch of the log is a batch without messages:
// it is complete at once, but it waits in line like any other. And an error is
// never an ack: it stops the mark for good, and with it the session.
//
// One goroutine calls Begin. Acks come from any goroutine.
type Tracker struct {
	mu      sync.Mutex
	tickets []*Ticket // in stream order; those before head are settled and gone
	head    int
	mark    Mark
	open    uint64 // rows that are acked behind the mark, of a transaction whose end is not
	begun   Mark
	err     error

	failed chan struct{} // closed with the first error
}

// Mark is a place in the stream. LSN is the end of a transaction or of an idle
// stretch, Rows the number of messages up to it in this session.
type Mark struct {
	LSN  wal.LSN
	Rows uint64
}

// Ticket is one batch in the ledger.
type Ticket struct {
	tracker *Tracker
	end     wal.LSN
	rows    int
	at      time.Time // when it entered
	pending atomic.Int64
	done    func()
	settled bool // tracker.mu is held
}

// NewTracker begins a ledger at a position up to which everything is saved.
func NewTracker(from wal.LSN) *Tracker {
	return &Tracker{
		mark:   Mark{LSN: from},
		begun:  Mark{LSN: from},
		failed: make(chan struct{}),
	}
}

// Begin enters a batch of n messages with its End, which may be 0. It is called
// in stream order, and before the messages are sent, so that no ack can precede
// its ticket. done is called once, when every message of the batch is acked
// without an error; it must not block. With n 0 that is before Begin returns.
func (t *Tracker) Begin(end wal.LSN, n int, done func()) *Ticket {
	ticket := &Ticket{tracker: t, end: end, rows: n, at: time.Now(), done: done}
	ticket.pending.Store(int64(n))
	t.mu.Lock()
	if end != 0 && end <= t.begun.LSN {
		begun := t.begun.LSN
		t.mu.Unlock()
		panic(fmt.Sprintf("bug: a batch ends at %v, not after the one before at %v", end, begun))
	}
	t.tickets = append(t.tickets, ticket)
	if end != 0 {
		t.begun.LSN = end
	}
	t.begun.Rows += uint64(n)
	t.mu.Unlock()
	if n == 0 {
		t.settle(ticket)
	}
	return ticket
}

// Ack settles one message of the batch; it is a sink.Ack. It never blocks.
func (k *Ticket) Ack(err error) {
	if err != nil {
		k.tracker.Fail(err)
		return
	}
	switch left := k.pending.Add(-1); {
	case left == 0:
		k.tracker.settle(k)
	case left < 0:
		panic(fmt.Sprintf("bug: a message of the batch that ends at %v was acked twice", k.end))
	}
}

// settle moves the mark over every complete batch at the head of the line.
func (t *Tracker) settle(ticket *Ticket) {
	t.mu.Lock()
	ticket.settled = true
	for t.head < len(t.tickets) && t.tickets[t.head].settled {
		first := t.tickets[t.head]
		t.tickets[t.head] = nil
		t.head++
		t.open += uint64(first.rows)
		if first.end != 0 {
			t.mark.LSN = first.end
			t.mark.Rows += t.open
			t.open = 0
		}
	}
	t.compact()
	t.mu.Unlock()
	if ticket.done != nil {
		ticket.done()
	}
}

// compact drops the settled front once it is the larger part, so that the slice
// is reused and each ticket is moved at most once on average. t.mu is held.
func (t *Tracker) compact() {
	if t.head < len(t.tickets)-t.head {
		return
	}
	n := copy(t.tickets, t.tickets[t.head:])
	clear(t.tickets[n:])
	t.tickets, t.head = t.tickets[:n], 0
}

// Fail stops the ledger: the mark stays where it is, whatever is acked later in
// other partitions can only move it up to the failed message. The first error is
// kept.
func (t *Tracker) Fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
		close(t.failed)
	}
}

// Failed is closed when a message failed.
func (t *Tracker) Failed() <-chan struct{} { return t.failed }

// Err is the first failure, or nil.
func (t *Tracker) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Mark is the end of the longest fully acked prefix.
func (t *Tracker) Mark() Mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mark
}

// Oldest is when the batch entered that the mark waits for; ok is false when it
// waits for none.
func (t *Tracker) Oldest() (at time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.head == len(t.tickets) {
		return time.Time{}, false
	}
	return t.tickets[t.head].at, true
}

// Begun is the end of everything that entered the ledger.
func (t *Tracker) Begun() Mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.begun
}
