package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Kinds of messages inside copy-both (protocol documentation, "Streaming
// Replication Protocol") and inside XLogData ("Logical Replication Message
// Formats", protocol version 1).
const (
	kindXLogData  = 'w'
	kindKeepalive = 'k'

	kindBegin    = 'B'
	kindCommit   = 'C'
	kindOrigin   = 'O'
	kindRelation = 'R'
	kindType     = 'Y'
	kindInsert   = 'I'
	kindUpdate   = 'U'
	kindDelete   = 'D'
	kindTruncate = 'T'
	kindMessage  = 'M'
)

// errTruncated means that a message ends before its fields do.
var errTruncated = errors.New("message is truncated")

// postgresEpoch is the zero of the protocol's timestamps, 2000-01-01, in Unix
// microseconds.
const postgresEpoch = 946_684_800_000_000

// pgTime reads a timestamp, which is signed.
func pgTime(micros uint64) time.Time {
	return time.UnixMicro(postgresEpoch + int64(micros)).UTC()
}

// cursor reads fields from a message without ever passing its end. The first
// field that does not fit makes it short; every later one reads as zero.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > len(c.rest) {
		c.rest, c.short = nil, true
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) uint8() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() int {
	if b := c.bytes(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) text() string {
	for i, b := range c.rest {
		if b == 0 {
			return string(c.bytes(i + 1)[:i])
		}
	}
	c.rest, c.short = nil, true
	return ""
}

// end checks that the message held its fields and nothing more.
func (c *cursor) end() error {
	switch {
	case c.short:
		return errTruncated
	case len(c.rest) > 0:
		return fmt.Errorf("%d bytes follow the last field", len(c.rest))
	default:
		return nil
	}
}

// parseXLogData takes the frame off one pgoutput message, but for the server's clock,
// in microseconds. Its positions are not read: for relation and origin messages they
// are 0, and for the others they name a row's place in the log, which is no resume
// point.
func parseXLogData(body []byte) (message []byte, clock uint64, err error) {
	c := cursor{rest: body}
	c.bytes(8 + 8)
	clock = c.uint64()
	if c.short || len(c.rest) == 0 {
		return nil, 0, errTruncated
	}
	return c.rest, clock, nil
}

// logicalMessage is what pg_logical_emit_message wrote.
type logicalMessage struct {
	transactional bool
	end           LSN // of its record
	prefix        string
	content       []byte // borrowed
}

func parseMessage(body []byte) (logicalMessage, error) {
	c := cursor{rest: body}
	m := logicalMessage{transactional: c.uint8()&1 == 1, end: LSN(c.uint64()), prefix: c.text()}
	m.content = c.bytes(int(c.uint32()))
	return m, c.end()
}

type keepalive struct {
	end         LSN // all that commits before it was sent on this connection
	replyWanted bool
}

func parseKeepalive(body []byte) (keepalive, error) {
	c := cursor{rest: body}
	k := keepalive{end: LSN(c.uint64())}
	c.uint64()
	k.replyWanted = c.uint8() == 1
	return k, c.end()
}

type begin struct {
	commit LSN
	time   time.Time
	xid    uint32
}

func parseBegin(body []byte) (begin, error) {
	c := cursor{rest: body}
	b := begin{commit: LSN(c.uint64()), time: pgTime(c.uint64()), xid: c.uint32()}
	return b, c.end()
}

type commit struct {
	commit LSN
	end    LSN
}

func parseCommit(body []byte) (commit, error) {
	c := cursor{rest: body}
	c.uint8() // flags, unused
	m := commit{commit: LSN(c.uint64()), end: LSN(c.uint64())}
	c.uint64() // commit time, known since Begin
	return m, c.end()
}

// relationMessage describes a table as it was at this point of the log.
type relationMessage struct {
	oid     uint32
	schema  string
	name    string
	columns []ColumnShape
}

func parseRelation(body []byte) (relationMessage, error) {
	c := cursor{rest: body}
	r := relationMessage{oid: c.uint32(), schema: c.text(), name: c.text()}
	if r.schema == "" {
		r.schema = "pg_catalog" // proto.c, logicalrep_write_namespace
	}
	c.uint8() // replica identity
	n := c.uint16()
	for range n {
		c.uint8() // flags: part of the key
		column := ColumnShape{Name: c.text(), Type: c.uint32(), Modifier: int32(c.uint32())}
		if c.short {
			break
		}
		r.columns = append(r.columns, column)
	}
	return r, c.end()
}

// parseType reads what a type is that is not Postgres' own. It comes before the first
// Relation that has it; the name is that of the type below a domain (proto.c,
// logicalrep_write_typ).
func parseType(body []byte) (oid uint32, name string, err error) {
	c := cursor{rest: body}
	oid = c.uint32()
	schema := c.text()
	name = c.text()
	if schema != "" { // which stands for pg_catalog (proto.c, logicalrep_write_namespace)
		name = schema + "." + name
	}
	return oid, name, c.end()
}

// parseInsertHead reads up to the tuple; parseTuple of the caller goes on.
func parseInsertHead(c *cursor) (oid uint32, columns int, err error) {
	oid = c.uint32()
	kind := c.uint8()
	columns = c.uint16()
	switch {
	case c.short:
		return 0, 0, errTruncated
	case kind != 'N':
		return 0, 0, fmt.Errorf("insert carries tuple kind %q, want 'N'", kind)
	default:
		return oid, columns, nil
	}
}

// parseColumn reads one column of a tuple: its text, borrowed from the message,
// or null.
func parseColumn(c *cursor) (text []byte, null bool, err error) {
	switch kind := c.uint8(); {
	case c.short:
		return nil, false, errTruncated
	case kind == 'n':
		return nil, true, nil
	case kind == 't':
		length := c.uint32()
		text = c.bytes(int(length))
		if c.short {
			return nil, false, errTruncated
		}
		return text, false, nil
	case kind == 'u':
		// An insert carries every value in full; only updates leave out what is
		// stored out of line and did not change.
		return nil, false, errors.New("insert carries an unchanged column")
	default:
		return nil, false, fmt.Errorf("column kind %q is unknown", kind)
	}
}
