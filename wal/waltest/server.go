// Package waltest is a Postgres walsender for tests, without a Postgres: a log of
// transactions, a slot, and connections over net.Pipe that speak the protocol up
// to START_REPLICATION and stream from there. It runs inside a synctest bubble.
//
// It behaves as real servers were measured to: a start below the confirmed
// position is moved forward without a word, a flush position is believed
// unchecked, an early keepalive may lie behind what is confirmed.
package waltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/wal"
)

// Server is one database with one slot. Its methods may be called from any
// goroutine.
type Server struct {
	// Answer gives the rows of a query other than START_REPLICATION: column names,
	// then rows of text. Set it before the first Dial; nil answers ok false.
	Answer func(sql string) (columns []string, rows [][]string, ok bool)

	// OnStatus is called with each status update after the slot has believed it.
	// Set it before the first Dial.
	OnStatus func(Status)

	// Chance says whether to do what a server may do at this place: send a
	// keepalive, inside a transaction at its commit position and between
	// transactions at an older one, or log a commit right where the last one ends.
	// Set it before the first Dial; nil is never.
	Chance func() bool

	mu        sync.Mutex
	log       []unit
	end       wal.LSN
	confirmed wal.LSN
	statuses  []Status
	changed   chan struct{} // closed and replaced whenever something changes
	conns     map[*conn]struct{}
	down      bool
	muted     bool
}

// unit is what the log holds: a transaction, or an idle stretch of it.
type unit struct {
	commit, end wal.LSN
	messages    [][]byte // nil for an idle stretch
	raw         []byte   // sent as it is, at this place of the stream
}

// NewServer gives a server whose log and slot begin at a position.
func NewServer(at wal.LSN) *Server {
	return &Server{end: at, confirmed: at, changed: make(chan struct{}), conns: map[*conn]struct{}{}}
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
	if s.chance() {
		commit = s.end // its rows were logged earlier, among those of others
	}
	end = commit + 48
	now := time.Now()
	all := append([][]byte{Begin(commit, now, xid)}, messages...)
	all = append(all, Commit(commit, end, now))
	s.append(unit{commit: commit, end: end, messages: all})
	return commit, end
}

// Crash breaks every connection and takes the slot back to a position that was
// durable earlier, as an immediate stop of the server does.
func (s *Server) Crash(durable wal.LSN) {
	s.Cut()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = min(s.confirmed, durable)
	s.change()
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
	return s.confirmed
}

// SetConfirmed moves the slot, as another client or a crash of the server would.
func (s *Server) SetConfirmed(lsn wal.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = lsn
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
		confirmed, changed := s.confirmed, s.changed
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
		c.client.Close()
		c.server.Close()
	}
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
	client, server net.Conn
	backend        *pgproto3.Backend

	write sync.Mutex // a unit is written whole
	sent  wal.LSN    // end of what was written; write is held
}

// Dial is a pgconn.DialFunc.
func (s *Server) Dial(context.Context, string, string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	c := &conn{s: s, client: client, server: server, backend: pgproto3.NewBackend(server, server)}
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
		query, ok := message.(*pgproto3.Query)
		if !ok {
			return
		}
		if m := startReplication.FindStringSubmatch(query.String); m != nil {
			from, err := wal.ParseLSN(m[1])
			if err == nil {
				c.stream(from)
			}
			return
		}
		if c.answer(query.String) != nil {
			return
		}
	}
}

var startReplication = regexp.MustCompile(`^START_REPLICATION SLOT \S+ LOGICAL (\S+)`)

func (c *conn) leave() {
	c.server.Close()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	delete(c.s.conns, c)
	c.s.change()
}

func (c *conn) greet() error {
	if _, err := c.backend.ReceiveStartupMessage(); err != nil {
		return err
	}
	c.backend.Send(&pgproto3.AuthenticationOk{})
	for name, value := range map[string]string{
		"server_version": "17.0", "server_encoding": "UTF8", "client_encoding": "UTF8",
		"standard_conforming_strings": "on", "integer_datetimes": "on", "in_hot_standby": "off",
		"default_transaction_read_only": "off",
	} {
		c.backend.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	c.backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return c.backend.Flush()
}

func (c *conn) answer(sql string) error {
	columns, rows, ok := []string(nil), [][]string(nil), false
	switch {
	case strings.HasPrefix(sql, "SET "):
		return c.acknowledgeSets(sql)
	case sql == "show transaction_read_only":
		columns, rows, ok = []string{"transaction_read_only"}, [][]string{{"off"}}, true
	case c.s.Answer != nil:
		columns, rows, ok = c.s.Answer(sql)
	}
	if !ok {
		c.backend.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42601", Message: "waltest does not know this query"})
		c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		return c.backend.Flush()
	}
	var description pgproto3.RowDescription
	for _, name := range columns {
		description.Fields = append(description.Fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1})
	}
	c.backend.Send(&description)
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

// acknowledgeSets answers a string of SET statements.
func (c *conn) acknowledgeSets(sql string) error {
	for range strings.Count(strings.TrimSuffix(sql, ";"), ";") + 1 {
		c.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SET")})
	}
	c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return c.backend.Flush()
}
