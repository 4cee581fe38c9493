package wal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// halves is a connection that keeps back the second half of what is written next.
type halves struct {
	net.Conn

	split bool
	rest  []byte
}

func (h *halves) Write(b []byte) (int, error) {
	if !h.split {
		return h.Conn.Write(b)
	}
	h.split = false
	h.rest = bytes.Clone(b[len(b)/2:])
	_, err := h.Conn.Write(b[:len(b)/2])
	return len(b), err
}

// encrypted is a stream over TLS and its server's side.
func encrypted(t *testing.T, prepare control) (s *Stream, server *tls.Conn, wire *halves) {
	t.Helper()
	here, there := connected(t, "127.0.0.1", prepare)
	wire = &halves{Conn: there}
	server = tls.Server(wire, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true})
	client := tls.Client(&doorman{Conn: &readAhead{Conn: here}}, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return newStream(client, newFrameReader(client), Config{}, 0), server, wire
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// write writes messages as a walsender does: a record each.
func writeRecords(t *testing.T, to io.Writer, n int) {
	t.Helper()
	for range n {
		if _, err := to.Write([]byte{'d', 0, 0, 0, 9, 1, 2, 3, 4, 5}); err != nil {
			t.Fatal(err)
		}
	}
}

// taken takes the messages that are in the buffer.
func taken(s *Stream) (n int) {
	for {
		if _, _, ok := s.frames.next(); !ok {
			return n
		}
		n++
	}
}

// filled fills within a time and gives how many whole messages are there then.
func filled(t *testing.T, s *Stream, within time.Duration) int {
	t.Helper()
	if err := errors.Join(s.setDeadline(time.Now().Add(within)), s.fill()); err != nil {
		t.Fatal(err)
	}
	return taken(s)
}

func TestRecordsThatCameTogetherAreReadTogether(t *testing.T) {
	s, server, _ := encrypted(t, nil)
	writeRecords(t, server, 1000)
	const all = 1000 * (5 + 10 + 1 + 16) // header, message, type and tag (RFC 8446, 5.2)
	if err := errors.Join(s.setDeadline(time.Now().Add(time.Minute)), s.pace.await(all), s.fill()); err != nil {
		t.Fatal(err)
	}
	if n := taken(s); n != 1000 {
		t.Errorf("one fill brought %d messages, want the 1000 that are here: each would be a batch", n)
	}
}

func TestARecordThatCameInHalfIsWaitedForByTheNextRead(t *testing.T) {
	s, server, wire := encrypted(t, nil)
	writeRecords(t, server, 10)
	wire.split = true
	writeRecords(t, server, 1)
	if n := filled(t, s, time.Minute); n != 10 {
		t.Fatalf("%d messages, want the 10 that are whole", n)
	}
	if n := filled(t, s, time.Millisecond); n != 0 {
		t.Fatalf("half a record gives %d messages, want that nothing came", n)
	}
	if _, err := wire.Conn.Write(wire.rest); err != nil {
		t.Fatal(err)
	}
	writeRecords(t, server, 5)
	if n := filled(t, s, time.Minute); n != 6 {
		t.Errorf("%d messages after the other half came, want it and the 5 behind it", n)
	}
}

func TestTheEndOfAnEncryptedStreamIsFoundBehindItsLastRecord(t *testing.T) {
	s, server, _ := encrypted(t, nil)
	writeRecords(t, server, 3)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if n := filled(t, s, time.Minute); n != 3 {
		t.Errorf("%d messages before the end, want 3", n)
	}
	if err := s.fill(); err == nil {
		t.Error("the end is not noticed")
	}
}

func TestWhatWasReadAheadIsNotWaitedFor(t *testing.T) {
	waits := 0
	under := &readAhead{buf: make([]byte, 8), end: 3}
	await := unlessHeld(under, func(int) error { waits++; return nil })
	if err := await(1); err != nil || waits != 0 {
		t.Errorf("%d waits (%v) while something is held", waits, err)
	}
	under.start = 3
	if err := await(1); err != nil || waits != 1 {
		t.Errorf("%d waits (%v) while nothing is held, want 1", waits, err)
	}
}
