package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	readBufferBytes = 256 << 10
	frameHeader     = 5 // one byte of kind, four of length; the length counts itself
	maxFrameBytes   = 64 << 20
)

// ErrFrameTooLarge means that the server sent one message of more than 64 MiB, which
// for a stream is one row.
var ErrFrameTooLarge = errors.New("message larger than the frame limit")

// frameReader cuts the server's bytes into protocol messages in one buffer.
//
// pgconn reads through it while the connection is set up: then Read gives out
// one message at a time and never a byte of the next, so that pgproto3's own
// buffer is empty between messages. That is what allows the stream to take the
// connection over in the middle, with no byte left behind, and read it through
// next and fill: no copy, no allocation and one system call for as many messages
// as the kernel holds.
type frameReader struct {
	r     io.Reader
	buf   []byte
	start int // first byte not taken yet
	end   int // end of what was read
	rest  int // what Read still owes of the message that it began
	limit int // of one message, in bytes
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: r, buf: make([]byte, readBufferBytes), limit: maxFrameBytes}
}

// Read gives out at most the rest of the current message.
func (f *frameReader) Read(p []byte) (int, error) {
	for f.rest == 0 {
		if f.buffered() >= frameHeader {
			f.rest = 1 + max(4, int(binary.BigEndian.Uint32(f.buf[f.start+1:])))
			break
		}
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	for f.buffered() == 0 {
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.buf[f.start:min(f.end, f.start+f.rest)])
	f.start += n
	f.rest -= n
	return n, nil
}

func (f *frameReader) buffered() int { return f.end - f.start }

// next gives the next whole message, or ok false when more must be read. The
// body is valid until the next call of fill.
func (f *frameReader) next() (kind byte, body []byte, ok bool) {
	if f.buffered() < frameHeader {
		return 0, nil, false
	}
	size := 1 + int(binary.BigEndian.Uint32(f.buf[f.start+1:]))
	if size < frameHeader || f.buffered() < size {
		return 0, nil, false
	}
	frame := f.buf[f.start : f.start+size]
	f.start += size
	return frame[0], frame[frameHeader:], true
}

// fill reads once. The buffer grows with what has arrived, never with what a length
// field claims, and goes back to its usual size after a large message.
func (f *frameReader) fill() error {
	if err := f.makeRoom(); err != nil {
		return err
	}
	n, err := f.r.Read(f.buf[f.end:])
	f.end += n
	switch {
	case n > 0:
		return nil
	case err == nil:
		return io.ErrNoProgress
	default:
		return err
	}
}

// room says whether fill can read without a larger buffer.
func (f *frameReader) room() bool { return f.end < len(f.buf) }

// spare is how many bytes fills can read without a larger buffer.
func (f *frameReader) spare() int { return len(f.buf) - f.buffered() }

func (f *frameReader) makeRoom() error {
	if err := f.checkLength(); err != nil {
		return err
	}
	switch {
	case f.start == f.end && len(f.buf) > readBufferBytes:
		f.buf = make([]byte, readBufferBytes)
		f.start, f.end = 0, 0
	case f.start == f.end:
		f.start, f.end = 0, 0
	case f.start > 0:
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	case f.end == len(f.buf):
		grown := make([]byte, 2*len(f.buf))
		copy(grown, f.buf)
		f.buf = grown
	}
	return nil
}

func (f *frameReader) checkLength() error {
	if f.rest > 0 || f.buffered() < frameHeader {
		return nil
	}
	length := int64(binary.BigEndian.Uint32(f.buf[f.start+1:]))
	if length < 4 {
		return fmt.Errorf("message %q claims %d bytes, want at least 4", f.buf[f.start], length)
	}
	if length > int64(f.limit) {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrFrameTooLarge, length, f.limit)
	}
	return nil
}
