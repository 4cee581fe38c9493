package wal

import (
	"net"
	"time"
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
