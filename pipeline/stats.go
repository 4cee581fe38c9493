package pipeline

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// State is what a Runner is doing.
type State string

// The states. A runner is ready in Streaming and in Standby.
const (
	Starting  State = "starting"  // connecting and comparing positions
	Standby   State = "standby"   // another instance holds the slot
	Streaming State = "streaming" // rows flow
	Retrying  State = "retrying"  // waiting to begin a new session
	Draining  State = "draining"  // stopping
	Stopped   State = "stopped"   // ended in order
	Failed    State = "failed"    // ended with an error that time does not mend
)

// Stats is what a Runner knows about itself. The five positions are taken so that
// Confirmed ≤ Saved ≤ Acked ≤ Sent ≤ Read holds; they are 0 until known.
type Stats struct {
	State  State
	Reason string // why it is in this state, one sentence; may be empty

	Read      wal.LSN // decoded
	Sent      wal.LSN // handed to the sink
	Acked     wal.LSN // the broker holds everything up to here
	Saved     wal.LSN // durable in the checkpoint store
	Confirmed wal.LSN // the slot may forget

	// Waiting is for how long the oldest message that was sent is not acked; 0 when
	// all are.
	Waiting time.Duration

	// Stalled is why the broker takes nothing at this moment, one sentence; empty when
	// it does, or does not say.
	Stalled string

	// Unreached is what went wrong last on the way to the broker, one sentence; empty
	// when the latest try went well, or the sink does not say. It may be behind it by now.
	Unreached string

	Rows     uint64       // sent since the process began, redeliveries included
	Bytes    uint64       // of those rows' columns
	Topics   []TopicCount // what of them went where
	Sessions uint64       // begun
	Skipped  uint64       // rows that could not be sent and were passed, redeliveries included

	ParkedRows       int // that wait aside
	ParkedAggregates int // whose rows they are

	InFlightBytes int                    // of rows that are sent and not acked
	InFlightRows  uint64                 // sent and not acked with everything before them
	CommitToAck   Latency                // of rows, by the server's clock and ours; of the oldest row of each batch
	AckToConfirm  Latency                // of saves, from the first ack that a save is for
	Broken        map[fault.Class]uint64 // sessions that ended with an error, by its class

	LastCommit    time.Time // commit time of the latest row sent; zero before the first
	Slot          wal.Slot  // as last looked at; zero before
	LogEnd        wal.LSN   // of the server's log, as last looked at; 0 before
	SlotLookedAt  time.Time
	LastError     string // of the last session that broke
	LastErrorTime time.Time
}

// Lag is how far the stream is behind, while it streams; ok is false when that is not
// known. Log is what the server has written and the slot has not confirmed, as last
// looked at. Age is that of the oldest event on its way: since its commit by the
// server's clock, or since it was sent when that is longer; 0 when everything that was
// read is acked.
func (s *Stats) Lag() (log uint64, age time.Duration, ok bool) {
	if s.State != Streaming && s.State != Draining || s.LogEnd == 0 {
		return 0, 0, false
	}
	if s.LogEnd > s.Confirmed {
		log = uint64(s.LogEnd - s.Confirmed)
	}
	if s.InFlightRows > 0 {
		age = max(s.Waiting, time.Since(s.LastCommit), 0)
	}
	return log, age, true
}

// counters are written by one session after the other and read at any time. They
// feed Stats and decide nothing.
type counters struct {
	saved, confirmed atomic.Uint64
	rows, bytes      atomic.Uint64
	topics           topicCounts
	skipped          atomic.Uint64
	parkedRows       atomic.Int64
	parkedAggregates atomic.Int64
	lastCommit       atomic.Int64 // Unix microseconds

	commitToAck  histogram
	ackToConfirm histogram
	firstAck     atomic.Int64 // Unix nanoseconds of the first ack since the last save; 0 for none
}

// acked counts n rows, of which the oldest was committed at committed.
func (c *counters) acked(n int, committed time.Time) {
	if n == 0 {
		return
	}
	now := time.Now()
	c.commitToAck.observe(now.Sub(committed), n)
	c.firstAck.CompareAndSwap(0, now.UnixNano())
}

// confirmedAcks counts a save that was confirmed.
func (c *counters) confirmedAcks() {
	if first := c.firstAck.Swap(0); first != 0 {
		c.ackToConfirm.observe(time.Since(time.Unix(0, first)), 1)
	}
}

// sent counts a batch and its messages on their way to the sink. It comes before Send:
// the batch belongs to nobody any more once the last ack is in.
func (c *counters) sent(batch wal.Batch, messages []sink.Message) {
	c.topics.sent(messages)
	n := len(batch.Rows)
	if n == 0 {
		return
	}
	c.rows.Add(uint64(len(messages)))
	c.bytes.Add(uint64(batch.TextBytes()))
	c.lastCommit.Store(batch.Rows[n-1].Time.UnixMicro())
}

// board holds the parts of Stats that change with a session.
type board struct {
	mu        sync.Mutex
	state     State
	reason    string
	sessions  uint64
	slot      wal.Slot
	logEnd    wal.LSN
	slotAt    time.Time
	err       string
	errAt     time.Time
	broken    map[fault.Class]uint64
	inFlight  func() int
	read      func() wal.LSN
	marks     func() (acked, sent checkpoint.Mark)
	oldest    func() (time.Time, bool)
	stalled   func() string // nil where the sink does not say
	unreached func() string // nil where the sink does not say
}

func (b *board) set(state State, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.reason = state, reason
}

// setStandby says whether the reason is a new one.
func (b *board) setStandby(reason string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	news := b.state != Standby || b.reason != reason
	b.state, b.reason = Standby, reason
	return news
}

// begin shows the positions of a new session.
func (b *board) begin(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.reason = Streaming, ""
	b.sessions++
	b.read = s.read
	b.oldest = s.tracker.Oldest
	b.inFlight = s.budget.used
	b.stalled, b.unreached = nil, nil
	if seeker, ok := s.sink.(sink.Seeker); ok {
		b.unreached = seeker.Unreached
	}
	if staller, ok := s.sink.(sink.Staller); ok {
		b.stalled = staller.Stalled
	}
	b.marks = func() (acked, sent checkpoint.Mark) { return s.tracker.Mark(), s.tracker.Begun() }
	from := uint64(s.saver.position.LSN)
	s.seen.saved.Store(from)
	s.seen.confirmed.Store(from)
}

func (b *board) broke(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err, b.errAt = err.Error(), time.Now()
	if b.broken == nil {
		b.broken = make(map[fault.Class]uint64)
	}
	b.broken[fault.Classify(err)]++
}

func (b *board) look(seen wal.WatchState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slot, b.logEnd, b.slotAt = seen.Slot, seen.End, time.Now()
}

// Stats may be called at any time from any goroutine. It takes each position
// before the one that bounds it, so that what it gives always forms a chain.
func (r *Runner) Stats() Stats {
	s := Stats{
		Confirmed: wal.LSN(r.seen.confirmed.Load()),
		Saved:     wal.LSN(r.seen.saved.Load()),
	}
	b := &r.board
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.marks != nil {
		acked, sent := b.marks()
		s.Acked, s.Sent, s.InFlightRows = acked.LSN, sent.LSN, sent.Rows-acked.Rows
		s.Read = b.read()
		if at, ok := b.oldest(); ok {
			s.Waiting = time.Since(at)
		}
	}
	if b.stalled != nil {
		s.Stalled = b.stalled()
	}
	if b.unreached != nil {
		s.Unreached = b.unreached()
	}
	s.State, s.Reason, s.Sessions = b.state, b.reason, b.sessions
	s.Slot, s.LogEnd, s.SlotLookedAt = b.slot, b.logEnd, b.slotAt
	s.LastError, s.LastErrorTime, s.Broken = b.err, b.errAt, maps.Clone(b.broken)
	if b.inFlight != nil {
		s.InFlightBytes = b.inFlight()
	}
	s.CommitToAck, s.AckToConfirm = r.seen.commitToAck.latency(), r.seen.ackToConfirm.latency()
	s.Rows, s.Bytes, s.Topics = r.seen.rows.Load(), r.seen.bytes.Load(), r.seen.topics.all()
	s.Skipped = r.seen.skipped.Load()
	s.ParkedRows, s.ParkedAggregates = int(r.seen.parkedRows.Load()), int(r.seen.parkedAggregates.Load())
	if micros := r.seen.lastCommit.Load(); micros != 0 {
		s.LastCommit = time.UnixMicro(micros).UTC()
	}
	return s
}
