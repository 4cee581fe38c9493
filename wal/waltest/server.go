// Package waltest is a Postgres for tests, without a Postgres: a log of transactions,
// a slot with its walsender, the catalogs that are looked at before and while a slot
// is streamed, and the table that keeps a checkpoint. Its connections are in memory,
// and all of it runs inside a synctest bubble.
//
// It behaves as real servers were measured to: a start below the confirmed
// position is moved forward without a word, a flush position is believed
// unchecked, an early keepalive may lie behind what is confirmed, a client that is
// silent for wal_sender_timeout is hung up on without a word, and a server that shuts
// down waits for its walsenders. The contract tests in test/ run the same scripts
// against it and against real servers.
package waltest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// Server is one database with one slot. Its methods may be called from any
// goroutine. The exported fields are set before the first Dial.
type Server struct {
	// Answer gives the rows of a query that the server does not know itself: column
	// names, then rows of text. nil answers ok false.
	Answer func(sql string) (columns []string, rows [][]string, ok bool)

	// OnStatus is called with each status update after the slot has believed it.
	OnStatus func(Status)

	// OnTimeout is called when a walsender gives up on a client whose link works.
	OnTimeout func(pid int32)

	// OnSave is called when a position was stored in the checkpoint table.
	OnSave func(wal.LSN)

	// Chance says whether to do what a server may do at this place: send a
	// keepalive, inside a transaction at its commit position and between
	// transactions at an older one, or log a commit right where the last one ends.
	// nil is never.
	Chance func() bool

	// ChanceOf gives each connection a Chance of its own, so that the choices of one
	// do not depend on another's. nil is Chance for all.
	ChanceOf func(pid int32) func() bool

	// Shape gives what the next connection is like; nil is the zero Shape. It must not
	// call the server.
	Shape func() Shape

	// Table is what the catalogs show.
	Table Table

	// Major is the version of Postgres that is played; 0 means 17.
	Major int

	mu        sync.Mutex
	log       []unit
	end       wal.LSN
	slot      slot
	saved     map[string]savedRow
	published bool // the publication exists
	statuses  []Status
	changed   chan struct{} // closed and replaced whenever something changes
	conns     map[*conn]struct{}
	paces     Paces // of connections that are gone
	behind    time.Duration
	down      bool
	stopping  bool
	muted     bool
	asleep    bool
}

// slot is the server's one.
type slot struct {
	missing   bool
	confirmed wal.LSN
	durable   wal.LSN // what a crash would take confirmed back to
	holder    *conn   // who streams from it
}

// unit is what the log holds: a transaction, or an idle stretch of it.
type unit struct {
	commit, end wal.LSN
	messages    [][]byte // nil for an idle stretch
	raw         []byte   // sent as it is, at this place of the stream
}

// NewServer gives a server whose log and slot begin at a position.
func NewServer(at wal.LSN) *Server {
	return &Server{
		Table: defaultTable(), published: true,
		end: at, slot: slot{confirmed: at, durable: at}, saved: map[string]savedRow{},
		changed: make(chan struct{}), conns: map[*conn]struct{}{},
	}
}

// Behind lets the transactions to come be so old already, as they are for a walsender
// that has a backlog.
func (s *Server) Behind(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = by
}

// Transaction appends a committed transaction of these pgoutput messages and
// gives its end.
func (s *Server) Transaction(xid uint32, messages ...[]byte) (commit, end wal.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	for _, m := range messages {
		size += len(m) + 32
	}
	commit = s.end + wal.LSN(size)
	if s.roll() {
		commit = s.end // its rows were logged earlier, among those of others
	}
	end = commit + 48
	at := time.Now().Add(-s.behind)
	all := append([][]byte{Begin(commit, at, xid)}, messages...)
	all = append(all, Commit(commit, end, at))
	s.append(unit{commit: commit, end: end, messages: all})
	return commit, end
}

// Message logs a message outside of any transaction, and gives where its record ends.
// It is sent unless a client starts behind the record's beginning (decode.c,
// logicalmsg_decode).
func (s *Server) Message(prefix string, content []byte) (end wal.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	begin := s.end
	end = begin + wal.LSN(len(content)/8*8+64)
	s.append(unit{commit: begin, end: end, messages: [][]byte{Message(false, end, prefix, content)}})
	return end
}

// Crash breaks every connection and takes the slot back to a position that was
// durable earlier, as an immediate stop of the server does.
func (s *Server) Crash(durable wal.LSN) {
	s.Cut()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slot.confirmed = min(s.slot.confirmed, durable)
	s.stopping = false
	s.change()
}

// Checkpoint makes what the slot has confirmed durable, as the server does every few
// minutes, and gives what was durable before.
func (s *Server) Checkpoint() (before wal.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, s.slot.durable = s.slot.durable, s.slot.confirmed
	return before
}

// Durable is what a crash takes the slot back to at the most.
func (s *Server) Durable() wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slot.durable
}

// Forget makes the server one without slot and publication, as before the first start.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slot.missing, s.published = true, false
}

// Slotted says whether there is a slot.
func (s *Server) Slotted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.slot.missing
}

// Idle appends log that the slot's publication does not send.
func (s *Server) Idle(bytes int) wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(unit{commit: s.end, end: s.end + wal.LSN(bytes)})
	return s.end
}

// Raw puts frames into the stream at this place as they are. Every connection that
// streams from here on sends them once.
func (s *Server) Raw(frames []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(unit{commit: s.end, end: s.end, raw: frames})
}

// append needs s.mu.
func (s *Server) append(u unit) {
	s.log = append(s.log, u)
	s.end = u.end
	s.change()
}

// change needs s.mu.
func (s *Server) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// End is the end of the log.
func (s *Server) End() wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// Confirmed is the slot's confirmed_flush_lsn.
func (s *Server) Confirmed() wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slot.confirmed
}

// SetConfirmed moves the slot, as another client or a crash of the server would.
func (s *Server) SetConfirmed(lsn wal.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slot.confirmed = lsn
	s.change()
}

// Statuses are all status updates so far.
func (s *Server) Statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Status(nil), s.statuses...)
}

// WaitConfirmed returns when the slot is confirmed up to lsn, or ctx ends.
func (s *Server) WaitConfirmed(ctx context.Context, lsn wal.LSN) error {
	for {
		s.mu.Lock()
		confirmed, changed := s.slot.confirmed, s.changed
		s.mu.Unlock()
		if confirmed >= lsn {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("confirmed %v, want %v: %w", confirmed, lsn, ctx.Err())
		}
	}
}

// Cut breaks every connection.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.client.Reset()
	}
	s.slot.holder = nil
	s.change()
}

// Lose makes every connection a dead one: nothing arrives any more, and neither side
// is told. A walsender on it holds the slot until its timeout.
func (s *Server) Lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.lost = true
		c.client.Lose()
	}
}

// Close ends every connection, the dead ones too, and refuses new ones.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	for c := range s.conns {
		c.server.Close() //nolint:errcheck // memory
	}
}

// Paces is how clients have read the log.
type Paces struct {
	Waits int // for a large piece of it
	Pulls int // of what came together meanwhile
	Ends  int // of waiting: reads at once, each right behind one that had waited
}

// Add adds q.
func (p *Paces) Add(q Paces) {
	p.Waits += q.Waits
	p.Pulls += q.Pulls
	p.Ends += q.Ends
}

// Paces is how all clients have read so far.
func (s *Server) Paces() Paces {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.paces
	for c := range s.conns {
		all.Add(c.paces())
	}
	return all
}

// Mute makes every connection go on taking what it is sent and answer nothing, as
// a link that drops packets does.
func (s *Server) Mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.muted = true
}

// Doze makes walsenders sleep through whatever is written until the next status, as
// those of version 16 and later may.
func (s *Server) Doze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asleep = true
}

// SetDown makes Dial fail, or work again.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}
