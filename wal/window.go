package wal

import (
	"net"
	"time"
)

const (
	restTime     = 3 * time.Millisecond  // before a pull; 1 and 2 ms were slower, 4 ms no faster
	pullBytes    = 16 << 10              // what there must be for a pull to go on
	pullPatience = 50 * time.Microsecond // and how soon
	pullRoom     = 64 << 10              // in our buffer
)

// windowed is a connection on one machine with a receive window that is small. Simulations
// have such that are no sockets.
//
// On one machine the walsender carries each segment that it sends all the way into our
// receive queue, which costs it more than to decode a row. What it writes while TCP may send
// nothing is joined in its own queue, and goes in a few large segments as soon as there
// is room again; to carry those is the reader's work. So in a backlog the reader rests, with
// the window closed most of the time, and then pulls until little more is there: see
// Stream.pull.
//
// While the window is open and nothing is queued, each message goes by itself: the smaller
// a window the better. But it must hold some segments. Those of a loopback connection are
// of 64 KiB unless it is made otherwise, and into a window that is smaller than one the
// sender sends by its timer alone; a socket with such a window is readable all the
// time, whatever the low-water mark says (tcp.c, tcp_epollin_ready).
//
// It is the receive buffer that is small, from the beginning. What was received and not read
// takes of the buffer, and nothing of a clamp (tcp_output.c, __tcp_select_window). And a
// window that was given is not taken back: what is sent into one that is larger than the
// buffer by now is dropped, and sent again after a fifth of a second.
type windowed interface {
	// SetLowWater is how much a sleeping reader is woken for, and Ready waits for.
	SetLowWater(bytes int) error
	// Ready says whether so much is there, or comes in time.
	Ready(patience time.Duration) bool
}

// windowOf gives nil for a connection that is read as it comes.
func windowOf(conn net.Conn, under *readAhead) windowed {
	if under != nil {
		conn = under.Conn
	}
	switch c := conn.(type) {
	case windowed:
		return c
	case *net.TCPConn:
		return socketWindowOf(c)
	default:
		return nil
	}
}

// pull rests, reads for as long as there is much and then what is left, and says whether
// it has read anything: that must not wait for more. What is wrong with the connection the
// next fill finds. Like a wait it leaves no low-water mark behind.
func (s *Stream) pull() (some bool) {
	if s.window.SetLowWater(pullBytes) != nil {
		return false
	}
	if !s.full {
		time.Sleep(restTime)
	}
	s.full = false
	for s.frames.spare() >= pullRoom && s.fillReady(pullPatience) {
		some, s.full = true, s.frames.spare() < pullRoom
	}
	s.window.SetLowWater(1) //nolint:errcheck // it was set a moment ago
	return !s.full && s.frames.room() && s.fillReady(0) || some
}

// fillReady reads once when something is ready, and says whether it came.
func (s *Stream) fillReady(patience time.Duration) bool {
	if !s.ahead.holds() && !s.window.Ready(patience) {
		return false
	}
	before := s.frames.buffered()
	return s.fill() == nil && s.frames.buffered() > before
}
