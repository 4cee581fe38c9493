package waltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/wal"
)

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
	if shape.Narrow {
		return &NarrowConn{Conn: client}, nil
	}
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

// paces is how the client of one connection has read.
func (c *conn) paces() Paces {
	c.client.in.mu.Lock()
	defer c.client.in.mu.Unlock()
	return c.client.in.paces
}

func (c *conn) leave() {
	c.server.Close() //nolint:errcheck // memory
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.release()
	c.s.paces.Add(c.paces())
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
