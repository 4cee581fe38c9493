package wal

import (
	"net"
	"time"
)

const (
	restTime     = 3 * time.Millisecond  // before a pull; 1 and 2 ms were slower, 4 ms no faster
	shortRest    = restTime / 8          // where much comes
	restBytes    = 256 << 10             // what should be joined in a rest at the most
	pullBytes    = 16 << 10              // what there must be for a pull to go on
	pullPatience = 50 * time.Microsecond // and how soon
	pullTime     = 2 * time.Millisecond  // what a pull takes at the most
	pullRoom     = 64 << 10              // in our buffer
)

// windowed is a connection by a loopback address whose receive window is small.
// Simulations have one that is no socket.
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
// of 64 KiB by themselves, and into a window that is smaller than one the sender sends by
// its timer alone; a socket with such a window is readable all the time, whatever the
// low-water mark says (tcp.c, tcp_epollin_ready). So segments are small as well.
//
// What is unread counts against the receive buffer, and not against a clamp of the window
// (tcp_output.c, __tcp_select_window): so it is the buffer that is small. It is so from the
// beginning, since a window that was given is not taken back: what comes into one that is
// larger than the buffer by now is dropped, and sent again after a fifth of a second.
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
// next fill finds. Like a wait it ends after some time, whatever comes, and leaves no
// low-water mark behind.
func (s *Stream) pull() (some bool) {
	if s.window.SetLowWater(pullBytes) != nil {
		return false
	}
	if !s.full {
		s.rest.again()
	}
	before, until := s.frames.buffered(), time.Now().Add(pullTime)
	s.full = false
	for s.frames.spare() >= pullRoom && time.Now().Before(until) && s.fillReady(pullPatience) {
		s.full = s.frames.spare() < pullRoom
	}
	s.window.SetLowWater(1) //nolint:errcheck // it was set a moment ago
	if !s.full && s.frames.room() {
		s.fillReady(0)
	}
	brought := s.frames.buffered() - before
	s.rest.bytes += brought
	return brought > 0
}

// rest is how long a reader rests before it pulls, and what its pulls have brought since.
// The walsender's queue holds some hundreds of KiB, and it should not fill it and fall
// asleep over it: of large rows, more comes in restTime than that.
type rest struct {
	time  time.Duration
	bytes int
}

// again rests.
func (r *rest) again() {
	if r.bytes > restBytes {
		r.time = max(shortRest, time.Duration(int64(r.time)*restBytes/int64(r.bytes)))
	} else {
		r.time = min(restTime, r.time+shortRest)
	}
	r.bytes = 0
	time.Sleep(r.time)
}

// fillReady takes what is ready, and says whether there was something. It does not wait
// for the rest of a record.
func (s *Stream) fillReady(patience time.Duration) bool {
	if !s.ahead.holds() && !s.window.Ready(patience) {
		return false
	}
	if s.ahead == nil {
		before := s.frames.buffered()
		return s.fill() == nil && s.frames.buffered() > before
	}
	if s.ahead.refill() != nil {
		return false
	}
	s.heard = time.Now()
	s.drain()
	return true
}
