package wal

import (
	"crypto/tls"
	"net"
)

// aheadBytes is how much a readAhead reads at once, and holds.
const aheadBytes = coalesceBytes

// readAhead is the socket under TLS. A walsender flushes each message, and so makes a record
// of it; crypto/tls gives out one record a call, and asks the socket for little more.
// This one reads large pieces instead, once it is told to, and knows how to
// give what it has without waiting for more, so that the reader can take all the
// records that came with one system call and pass them on as one batch.
type readAhead struct {
	net.Conn

	ahead      bool
	dry        bool // give what is here, wait for nothing
	buf        []byte
	start, end int // of what was read and not given
}

// dryError is what a readAhead gives instead of waiting. To crypto/tls it is a timeout: what
// it has of a record it keeps, and goes on from there at the next call (conn.go,
// readRecordOrCCS).
type dryError struct{}

// Error is never shown.
func (dryError) Error() string { return "nothing more is here" }

// Timeout makes it a net.Error.
func (dryError) Timeout() bool { return true }

// Temporary is what crypto/tls asks for.
func (dryError) Temporary() bool { return true }

// Read is net.Conn's.
func (f *readAhead) Read(p []byte) (int, error) {
	switch {
	case f.start < f.end:
	case f.dry:
		return 0, dryError{}
	case !f.ahead:
		return f.Conn.Read(p)
	default:
		if err := f.refill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.buf[f.start:f.end])
	f.start += n
	return n, nil
}

// refill reads from the socket where nothing is held.
func (f *readAhead) refill() error {
	if f.holds() {
		return nil
	}
	if f.buf == nil {
		f.buf = make([]byte, aheadBytes)
	}
	n, err := f.Conn.Read(f.buf)
	f.start, f.end = 0, n
	if n == 0 {
		return err
	}
	return nil
}

// holds says whether something was read and not given.
func (f *readAhead) holds() bool { return f != nil && f.start < f.end }

// aheadOf gives the socket under an encrypted connection, which reads ahead from now on;
// nil where there is none.
func aheadOf(conn net.Conn) *readAhead {
	encrypted, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	under := encrypted.NetConn()
	if d, ok := under.(*doorman); ok {
		under = d.Conn
	}
	f, ok := under.(*readAhead)
	if ok {
		f.ahead = true
	}
	return f
}
