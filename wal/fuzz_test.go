package wal

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"testing"
	"time"
)

// FuzzStream feeds bytes to a stream as the server's. Whatever they are, the stream
// ends without a panic, takes memory for what came and not for what was claimed,
// confirms nothing, and gives the same rows however the bytes were cut.
func FuzzStream(f *testing.F) {
	for _, frames := range [][]byte{
		nil,
		{'d', 0, 0, 0, 4},
		{'d', 0x40, 0, 0, 0, 'w'},
		{'Z', 0, 0, 0, 5, 'I'},
		{'d', 0, 0, 0, 3},
		{'d', 0, 0, 0, 22, 'k', 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1},
		{'N', 0, 0, 0, 20, 'S', 'W', 0, 'C', '5', '5', '0', '0', '0', 0, 'M', 'x', 0, 0},
	} {
		f.Add(frames, uint16(3))
	}
	f.Fuzz(func(t *testing.T, frames []byte, cut uint16) {
		whole := streamBytes(t, frames, len(frames)+1)
		if pieces := streamBytes(t, frames, int(cut)+1); pieces != whole {
			t.Errorf("in pieces of %d bytes it came to\n%s\nand as a whole to\n%s", int(cut)+1, pieces, whole)
		}
	})
}

// streamBytes runs a stream over frames in pieces and says what it gave.
func streamBytes(t *testing.T, frames []byte, piece int) string {
	t.Helper()
	const from = LSN(0x100)
	conn := &scriptedConn{rest: bytes.NewReader(frames), piece: piece}
	s := newStream(conn, newFrameReader(conn), Config{
		Slot: "s", Tables: []Table{{Schema: "public", Name: "outbox", Columns: []Column{{Name: "id"}}}},
	}, from)
	out, done := make(chan Batch), make(chan error, 1)
	go func() { done <- s.Run(context.Background(), nil, out) }()
	var got bytes.Buffer
	end := from
	for b := range out {
		for _, r := range b.Rows {
			fmt.Fprintf(&got, "%v %d %d %q\n", r.Commit, r.Index, r.XID, r.Columns)
		}
		if b.End != 0 && b.End <= end {
			t.Errorf("a batch ends at %v, not after %v", b.End, end)
		}
		end = max(end, b.End)
	}
	fmt.Fprintf(&got, "to %v: %v\n", end, <-done)
	if s.Confirmed() != from {
		t.Errorf("confirmed %v by itself", s.Confirmed())
	}
	if most := readBufferBytes + 4*len(frames); len(s.frames.buf) > most {
		t.Errorf("a buffer of %d bytes for %d that came", len(s.frames.buf), len(frames))
	}
	return got.String()
}

// scriptedConn gives bytes in pieces, then the end.
type scriptedConn struct {
	net.Conn
	rest  io.Reader
	piece int
}

func (c *scriptedConn) Read(p []byte) (int, error)     { return c.rest.Read(p[:min(len(p), c.piece)]) }
func (*scriptedConn) Write(p []byte) (int, error)      { return len(p), nil }
func (*scriptedConn) Close() error                     { return nil }
func (*scriptedConn) SetDeadline(time.Time) error      { return nil }
func (*scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (*scriptedConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzLSN: the text form is two groups of digits and nothing else, it survives being
// written and read, and the order of the fixed form is that of the positions.
func FuzzLSN(f *testing.F) {
	for _, text := range []string{"0/16B3748", "FFFFFFFF/FFFFFFFF", "1/2zzz", " 1/2", "100000000/0", "0/", "/", "1/2/3", "0/FFFFFFFFFF", "+1/2", "0x1/2"} {
		f.Add(text, uint64(1)<<33)
	}
	form := regexp.MustCompile(`^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$`)
	f.Fuzz(func(t *testing.T, text string, other uint64) {
		lsn, err := ParseLSN(text)
		if (err == nil) != (form.MatchString(text) && text[len(text)-1] != '\n') {
			t.Errorf("%q: %v", text, err)
		}
		again, err := ParseLSN(lsn.String())
		if err != nil || again != lsn {
			t.Errorf("%q is %v, read again %v, %v", text, lsn, again, err)
		}
		if want := cmp.Compare(lsn, LSN(other)); bytes.Compare(lsn.AppendHex(nil), LSN(other).AppendHex(nil)) != want {
			t.Errorf("the fixed forms of %v and %v are in another order", lsn, LSN(other))
		}
	})
}
