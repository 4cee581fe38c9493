package wal

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"
)

const (
	coalesceBytes  = 128 << 10            // what a read waits for; 64 KiB and 512 KiB were slower
	coalesceTime   = 2 * time.Millisecond // and for how long at the most
	busyReads      = 24                   // so many reads in coalesceTime are a backlog, or may be one
	busyBytes      = 8 << 10              // and fewer bytes than that are none
	coalescePause  = 100 * time.Millisecond
	immediateBytes = 1
)

// pace lets packets pile up in the kernel while there is a backlog.
//
// A walsender writes each message by itself: at one row a transaction, three
// packets of some dozens of bytes. Each of them wakes a reader that sleeps, which
// costs us a system call and the walsender, the bottleneck, the wake-up. So while
// the log comes fast, the socket is told to call a read ready only when a large
// piece is there (SO_RCVLOWAT). That alone doubles what a walsender gives.
//
// It must not make a row wait for company. A read that waits has a deadline of
// coalesceTime; when it passes, the mark is taken back and what is there is read.
// When that was much, the next read waits again. When it was little there was no
// backlog, and the next wait comes no sooner than coalescePause later. On an idle
// or a slow log there are too few reads to try.
type pace struct {
	water   func(bytes int) error // sets the mark; nil where the system has none
	armed   bool                  // the mark is set
	relaxed bool                  // it was taken back, and the read that takes the rest is due
	since   time.Time             // beginning of the window
	reads   int                   // in the window
	bytes   int                   // in the window, or since the mark was set
	resumes time.Time             // when the next wait may come
}

// lowWaterer is a connection that has the mark without being a socket; simulations
// have such.
type lowWaterer interface {
	SetReadLowWater(bytes int) error
}

// newPace finds the socket below a connection; a connection without one, such as a
// pipe, is read at once always.
func newPace(conn net.Conn) pace {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if w, ok := conn.(lowWaterer); ok {
		return pace{water: w.SetReadLowWater}
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return pace{}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return pace{}
	}
	return pace{water: lowWater(raw)}
}

// got counts a read.
func (p *pace) got(n int, now time.Time) {
	if !p.armed && !p.relaxed && now.Sub(p.since) > coalesceTime {
		p.since, p.reads, p.bytes = now, 0, 0
	}
	p.reads++
	p.bytes += n
	if p.relaxed {
		p.judge(now)
	}
}

// judge looks back on a wait: what came since the mark was set.
func (p *pace) judge(now time.Time) {
	p.relaxed, p.since = false, now
	if p.bytes >= busyBytes {
		p.reads = busyReads // the next read waits again
		return
	}
	p.reads, p.bytes, p.resumes = 0, 0, now.Add(coalescePause)
}

// wait says whether the next read is to wait for a large piece.
func (p *pace) wait(now time.Time) bool {
	if p.armed || p.relaxed || p.water == nil {
		return p.armed
	}
	busy := now.Sub(p.since) <= coalesceTime && (p.reads >= busyReads || p.bytes >= busyBytes)
	if !busy || now.Before(p.resumes) {
		return false
	}
	if p.water(coalesceBytes) != nil {
		p.water = nil
		return false
	}
	p.armed, p.bytes = true, 0
	return true
}

// relax ends the waiting: the next read takes whatever is there.
func (p *pace) relax() error {
	p.armed, p.relaxed = false, true
	return p.water(immediateBytes)
}
