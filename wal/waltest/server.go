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
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

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
	coalesced int // low-water marks that were set by connections that are gone
	down      bool
	stopping  bool
	muted     bool
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
	now := time.Now()
	all := append([][]byte{Begin(commit, now, xid)}, messages...)
	all = append(all, Commit(commit, end, now))
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

// Coalesced is how often a client has waited for a large piece of the log.
func (s *Server) Coalesced() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	waits := s.coalesced
	for c := range s.conns {
		waits += c.waits()
	}
	return waits
}

// Mute makes every connection go on taking what it is sent and answer nothing, as
// a link that drops packets does.
func (s *Server) Mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.muted = true
}

// SetDown makes Dial fail, or work again.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// conn is one client's connection.
type conn struct {
	s              *Server
	pid            int32
	client, server *Conn
	backend        *pgproto3.Backend
	chance         func() bool
	timeout        time.Duration // wal_sender_timeout; 0 is none
	bound          savedRow      // parameters of the extended protocol's portal
	sql            string        // of its statement

	write turn    // a unit is written whole
	sent  wal.LSN // end of what was written; the turn is had

	// The relations that the client knows, by oid; the turn is had. A table is
	// described before its first change and when its shape is another one.
	described map[string]string

	// s.mu is held for what follows.
	lost    bool
	flushed wal.LSN   // the latest flush that the client told
	heard   time.Time // when it last told anything
	pinged  bool      // it was asked to, and has not yet
}

// turn is a lock that a bubble's clock passes while somebody waits for it: who writes
// may have to wait for a client that does not read.
type turn chan struct{}

func (t turn) take()  { t <- struct{}{} }
func (t turn) leave() { <-t }

func (t turn) try() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// Dial is a pgconn.DialFunc.
func (s *Server) Dial(context.Context, string, string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, syscall.ECONNREFUSED
	}
	var shape Shape
	if s.Shape != nil {
		shape = s.Shape()
	}
	client, server := Pipe(shape)
	// Of the moment: two clients that come at one moment may come in either order.
	pid := 1 + int32(time.Now().UnixMilli()%1_000_000)
	c := &conn{s: s, pid: pid, client: client, server: server, backend: pgproto3.NewBackend(server, server), chance: s.roll, write: make(turn, 1), described: map[string]string{}}
	if s.ChanceOf != nil {
		c.chance = s.ChanceOf(c.pid)
	}
	s.conns[c] = struct{}{}
	go c.serve()
	return client, nil
}

func (c *conn) serve() {
	defer c.leave()
	if c.greet() != nil {
		return
	}
	for {
		message, err := c.backend.Receive()
		if err != nil {
			return
		}
		if c.take(message) != nil {
			return
		}
	}
}

var errGone = errors.New("the client is gone")

// take answers one message of a client that does not stream yet.
func (c *conn) take(message pgproto3.FrontendMessage) error {
	query, ok := message.(*pgproto3.Query)
	if !ok {
		return c.extended(message)
	}
	if m := startReplication.FindStringSubmatch(query.String); m != nil {
		return c.start(m[1])
	}
	return c.answer(query.String)
}

var startReplication = regexp.MustCompile(`^START_REPLICATION SLOT \S+ LOGICAL (\S+)`)

// start streams unless the slot is somebody else's; then the client may go on with
// other commands.
func (c *conn) start(at string) error {
	from, err := wal.ParseLSN(at)
	if err != nil {
		return err
	}
	c.s.mu.Lock()
	holder := c.s.slot.holder
	if holder == nil {
		c.s.slot.holder = c
	}
	c.s.mu.Unlock()
	if holder != nil {
		return c.refuse("55006", fmt.Sprintf("replication slot is active for PID %d", holder.pid))
	}
	c.stream(from)
	return errGone
}

// refuse answers with an error and waits for the next command.
func (c *conn) refuse(code, message string) error {
	c.backend.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: message})
	c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return c.backend.Flush()
}

// waits is how often the client of one connection has waited.
func (c *conn) waits() int {
	c.client.in.mu.Lock()
	defer c.client.in.mu.Unlock()
	return c.client.in.waits
}

func (c *conn) leave() {
	c.server.Close() //nolint:errcheck // memory
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.release()
	c.s.coalesced += c.waits()
	delete(c.s.conns, c)
	c.s.change()
}

// release lets go of the slot. s.mu is held.
func (c *conn) release() {
	if c.s.slot.holder == c {
		c.s.slot.holder = nil
	}
}

func (c *conn) greet() error {
	hello, err := c.backend.ReceiveStartupMessage()
	if err != nil {
		return err
	}
	if startup, ok := hello.(*pgproto3.StartupMessage); ok {
		c.timeout = senderTimeout(startup.Parameters["wal_sender_timeout"])
	}
	c.s.mu.Lock()
	stopping := c.s.stopping
	c.s.mu.Unlock()
	if stopping {
		c.backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P03", Message: "the database system is shutting down"})
		c.backend.Flush() //nolint:errcheck // the client may be gone
		return errGone
	}
	c.backend.Send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{
		{"server_version", "17.0"},
		{"server_encoding", "UTF8"},
		{"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"},
		{"integer_datetimes", "on"},
		{"in_hot_standby", "off"},
		{"default_transaction_read_only", "off"},
	} {
		c.backend.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	c.backend.Send(&pgproto3.BackendKeyData{ProcessID: uint32(c.pid), SecretKey: []byte{0, 0, 0, 1}})
	c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return c.backend.Flush()
}

func (c *conn) answer(sql string) error {
	columns, rows, ok := c.s.catalog(sql)
	if !ok && c.s.Answer != nil {
		columns, rows, ok = c.s.Answer(sql)
	}
	switch {
	case strings.HasPrefix(sql, "SET "):
		return c.acknowledgeSets(sql)
	case !ok:
		return c.refuse("42601", "waltest does not know this query")
	}
	c.describe(columns)
	for _, row := range rows {
		values := make([][]byte, len(row))
		for i, v := range row {
			values[i] = []byte(v)
		}
		c.backend.Send(&pgproto3.DataRow{Values: values})
	}
	c.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte(strings.ToUpper(strings.Fields(sql)[0]))})
	c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return c.backend.Flush()
}

// describe announces columns of text.
func (c *conn) describe(columns []string) {
	var description pgproto3.RowDescription
	for _, name := range columns {
		description.Fields = append(description.Fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1})
	}
	c.backend.Send(&description)
}

// acknowledgeSets answers a string of SET statements, of which the last may be
// another one without rows.
func (c *conn) acknowledgeSets(sql string) error {
	for range strings.Count(strings.TrimSuffix(sql, ";"), ";") + 1 {
		c.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SET")})
	}
	c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return c.backend.Flush()
}
