package wal

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	coalesceBytes = 128 << 10            // what a read waits for; 64 KiB and 512 KiB were slower
	coalesceTime  = 2 * time.Millisecond // and for how long at the most
	busyMessages  = 48                   // so many messages of the server in coalesceTime are a busy log
	busyWindows   = 2                    // and so many busy windows in a row are a backlog
	poorWaits     = 25                   // so many waits in a row that bring less are its end
	lateTime      = 5 * time.Millisecond // a transaction that is sent so long after its commit is late
)

// pace lets packets pile up in the kernel while there is a backlog.
//
// A walsender writes each message by itself: at one row a transaction, three
// packets of some dozens of bytes. Each of them wakes a reader that sleeps, which
// costs us a system call and the walsender, the bottleneck, the wake-up. So while
// the log comes fast, a read is preceded by a wait until a large piece is there. That
// alone doubles what a walsender gives. On one machine it gives more in another way, see
// windowed; when there is a backlog is the same for both.
//
// It must not make a row wait for company. A wait ends after coalesceTime, and a pull after
// restTime and pullTime, whatever came, and there is a backlog from the moment something is sent late, by the server's
// own clock, until something comes in time again. What is late anyhow loses nothing by a
// wait. So a fast log is read at once as long as its walsender keeps up with it; and when
// that has paused for some milliseconds, as for another program's turn on its core, what
// it owes is fetched in large pieces. Woken with every message it would give no more than
// comes in, and every row would be as late as those behind the pause.
//
// The clock need not be that of the commits: a standby has its own, and a server that
// was promoted. Behind, it says that things are sent before they are committed; then a log
// counts as a backlog when it is busy for some windows in a row: 24,000 messages a second,
// which is 8,000 transactions of one row. A burst of a hundred rows is over before. Ahead,
// it says that all is late for ever. So some waits in a row that bring less than a busy
// window does end the waiting as well, and the next one needs a backlog again; a single
// one proves little, since a walsender that has to share its core pauses for tens of
// milliseconds.
//
// The socket's low-water mark is set within a wait or a pull and nowhere else, so there is
// nothing to take back: whatever happens, the next read takes what is there.
//
// Tried and left: to leave the mark set, and take it back when a deadline passes. A
// read of Go's tries before it waits, so every large piece was followed by a few
// small ones, each a batch of its own. Nor did it gain anything to leave it set while
// a piece is worked on and the next wait is sure to follow.
type pace struct {
	await    func(bytes int) error // waits until so much is there; nil where that cannot be done
	naps     bool                  // await waits for the clock alone
	since    time.Time             // beginning of the window
	messages int                   // in the window
	windows  int                   // that were busy, in a row
	waited   bool                  // before the latest read
	poor     int                   // waits in a row that brought little
	late     bool                  // what was sent last came late
	timely   bool                  // it came in time, by a clock that can be believed
}

// awaiter is a connection that can wait without being a socket; simulations have
// such. AwaitRead returns when so many bytes can be read, nothing more will come, or
// the read deadline passes, which is os.ErrDeadlineExceeded.
type awaiter interface {
	AwaitRead(bytes int) error
}

// newPace is for TCP, with or without TLS, which has a readAhead under it then, and for
// Unix sockets. Any other connection is read at once always.
func newPace(conn net.Conn, under *readAhead) pace {
	if a, ok := conn.(awaiter); ok {
		return pace{await: a.AwaitRead}
	}
	if under != nil {
		conn = under.Conn
	}
	switch socket := conn.(type) {
	case *net.UnixConn:
		return pace{await: shortNap, naps: true}
	case *net.TCPConn:
		raw, err := socket.SyscallConn()
		if err != nil {
			return pace{}
		}
		await := awaitRead(raw)
		if await == nil {
			return pace{await: nap, naps: true}
		}
		return pace{await: unlessHeld(under, await)}
	default:
		return pace{}
	}
}

// unlessHeld does not wait for the socket while something that was read ahead is left.
func unlessHeld(under *readAhead, await func(bytes int) error) func(bytes int) error {
	if under == nil {
		return await
	}
	return func(bytes int) error {
		if under.holds() {
			return nil
		}
		return await(bytes)
	}
}

// napTime lets some dozens of messages pile up. A Unix socket holds some hundreds of
// small ones, and the walsender should not fill it and fall asleep over it.
const napTime = 500 * time.Microsecond

// nap is a wait where the kernel has no mark, as for a Unix socket, or is not known to:
// who sleeps by the clock is not woken by each message. What one nap brings is little,
// so there are several of them, with reads in between.
func nap(int) error {
	time.Sleep(napTime)
	return nil
}

// got counts messages of the server that were taken.
func (p *pace) got(messages int) { p.messages += messages }

// wants says whether the next read is to wait for a large piece.
func (p *pace) wants(now time.Time) bool {
	open := now.Sub(p.since)
	if p.await == nil || !p.waited && open < coalesceTime {
		return false
	}
	p.judge(!p.timely && time.Duration(p.messages)*coalesceTime >= busyMessages*open)
	p.since, p.messages = now, 0
	return p.waited
}

// sent looks at what the server sent so long after its commit.
func (p *pace) sent(after time.Duration) {
	late := after >= lateTime
	p.timely = !late && after >= 0
	if late != p.late {
		p.late, p.waited, p.windows, p.poor = late, late, 0, 0
		if late {
			p.windows = busyWindows
		}
	}
}

// judge looks back on a window, which was a wait and what it brought, or not.
func (p *pace) judge(busy bool) {
	switch {
	case busy:
		p.windows, p.poor = p.windows+1, 0
	case p.waited && p.poor < poorWaits:
		p.poor++
	default:
		p.windows, p.poor = 0, 0
	}
	p.waited = p.windows >= busyWindows
}

// wait waits for a large piece or the read deadline. Other errors are the next read's
// to find.
func (p *pace) wait() {
	err := p.await(coalesceBytes)
	if errors.Is(err, syscall.ENOPROTOOPT) || errors.Is(err, syscall.EINVAL) || errors.Is(err, os.ErrInvalid) {
		p.await = nil
	}
}
