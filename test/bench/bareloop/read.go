package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	bufferBytes   = 256 << 10
	coalesceBytes = 128 << 10
	coalesceTime  = 2 * time.Millisecond
	statusPause   = 10 * time.Second
)

// reader is a started stream.
type reader struct {
	conn       net.Conn
	water      func(bytes int) error // sets SO_RCVLOWAT
	buf        []byte
	start, end int // of what is read and not taken
}

// open starts the slot where it stands.
func open(ctx context.Context, url, slot, publication string) (*reader, error) {
	settings, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, errors.New("BARELOOP_DATABASE_URL is not a database's URL")
	}
	settings.RuntimeParams["replication"] = "database"
	settings.RuntimeParams["application_name"] = "bareloop"
	settings.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&sparing{r: r}, w)
	}
	pg, err := pgconn.ConnectConfig(ctx, settings)
	if err != nil {
		return nil, err
	}
	err = pglogrepl.StartReplication(ctx, pg, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + publication + "'"},
	})
	if err != nil {
		return nil, fmt.Errorf("start the slot: %w", err)
	}
	taken, err := pg.Hijack()
	if err != nil {
		return nil, err
	}
	r := &reader{conn: taken.Conn, buf: make([]byte, bufferBytes)}
	r.water, err = lowWater(taken.Conn)
	return r, err
}

// sparing gives pgconn one message at a time, so that none is left in its buffer when
// the connection is taken over.
type sparing struct {
	r    io.Reader
	head []byte // of the message, not given out yet
	rest int    // bytes of the message behind head
}

// Read gives out at most the rest of the current message.
func (s *sparing) Read(p []byte) (int, error) {
	if len(s.head) == 0 && s.rest == 0 {
		s.head = make([]byte, 5)
		if _, err := io.ReadFull(s.r, s.head); err != nil {
			return 0, err
		}
		s.rest = int(binary.BigEndian.Uint32(s.head[1:])) - 4
	}
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n, err := s.r.Read(p[:min(len(p), s.rest)])
	s.rest -= n
	return n, err
}

// next gives the body of the next whole message of a row's stream; ok is false when
// more must be read.
func (r *reader) next() (kind byte, body []byte, ok bool) {
	if r.end-r.start < 5 {
		return 0, nil, false
	}
	size := 1 + int(binary.BigEndian.Uint32(r.buf[r.start+1:]))
	if r.end-r.start < size {
		return 0, nil, false
	}
	message := r.buf[r.start : r.start+size]
	r.start += size
	return message[0], message[5:], true
}

// fill reads once.
func (r *reader) fill() error {
	switch {
	case r.start > 0:
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	case r.end == len(r.buf):
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	n, err := r.conn.Read(r.buf[r.end:])
	r.end += n
	return err
}

// fillCoalesced waits for a large piece, and after coalesceTime for any.
func (r *reader) fillCoalesced() error {
	err := errors.Join(r.water(coalesceBytes), r.conn.SetReadDeadline(time.Now().Add(coalesceTime)))
	if err != nil {
		return err
	}
	if err := r.fill(); !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	err = errors.Join(r.water(1), r.conn.SetReadDeadline(time.Now().Add(time.Second)))
	if err != nil {
		return err
	}
	return r.fill()
}

// status tells the server that we live, and that it may forget nothing.
func (r *reader) status() error {
	frame := make([]byte, 0, 39)
	frame = append(frame, 'd', 0, 0, 0, 38, 'r')
	frame = append(frame, make([]byte, 3*8+8+1)...)
	_, err := r.conn.Write(frame)
	return err
}

// lowWater gives what sets SO_RCVLOWAT of a TCP connection.
func lowWater(conn net.Conn) (func(bytes int) error, error) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.New("the connection is no plain socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	return func(bytes int) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes)
		})
		return errors.Join(err, failed)
	}, nil
}
