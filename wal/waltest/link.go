package waltest

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Shape is what a connection is like. The zero value delivers at once and holds as
// much as a socket's buffers do.
type Shape struct {
	// Latency is what one write takes to arrive at the most, a tenth of it at the
	// least; Seed decides. Where it is not zero, what arrives at one moment was
	// written at an earlier one, so that a simulation does not depend on which
	// goroutine runs first.
	Latency time.Duration
	Seed    uint64

	BytesPerSecond int // 0 is unlimited
	Buffer         int // bytes under way in one direction; 0 means 256 KiB

	Narrow bool // the client's end is a NarrowConn
}

const (
	defaultLinkBuffer = 256 << 10
	packetBytes       = 1400
)

// Conn is one end of a connection in memory that behaves like one of TCP: writes are
// buffered, a close is seen behind the data, a reset at once, and a link that has
// lost its way delivers nothing and tells nobody. It works inside a synctest bubble.
type Conn struct {
	in, out *link
}

// NarrowConn is a Conn that is read as one with a small receive window is. How much it
// holds is Shape.Buffer's to say.
type NarrowConn struct {
	*Conn

	want int
}

// SetLowWater is what Ready waits for.
func (c *NarrowConn) SetLowWater(bytes int) error {
	c.want = bytes
	if bytes > 1 {
		c.in.count(func(p *Paces) { p.Pulls++ })
	}
	return nil
}

// Ready waits until so much can be read or nothing more will come, no longer than patience.
func (c *NarrowConn) Ready(patience time.Duration) bool {
	return c.in.await(c.want, time.Now().Add(patience)) == nil
}

// Pipe makes a connection and gives both ends.
func Pipe(shape Shape) (client, server *Conn) {
	there, back := newLink(shape, 1), newLink(shape, 2)
	return &Conn{in: back, out: there}, &Conn{in: there, out: back}
}

// Read is net.Conn's.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write is net.Conn's.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close lets the other end read what is under way and then nothing more.
func (c *Conn) Close() error {
	c.in.abandon()
	c.out.finish()
	return nil
}

// Reset breaks the connection for both ends; what is under way is lost.
func (c *Conn) Reset() {
	c.in.breakUp()
	c.out.breakUp()
}

// Lose makes both directions deliver nothing more, without a word to either end: a
// cable that is cut, or a machine that is gone.
func (c *Conn) Lose() {
	c.in.lose()
	c.out.lose()
}

// AwaitRead waits until so many bytes can be read, nothing more will come, or the
// read deadline passes, as a socket does by its low-water mark.
func (c *Conn) AwaitRead(bytes int) error {
	c.in.count(func(p *Paces) { p.Waits++ })
	return c.in.await(bytes, time.Time{})
}

// LocalAddr is net.Conn's.
func (c *Conn) LocalAddr() net.Addr { return address{} }

// RemoteAddr is net.Conn's.
func (c *Conn) RemoteAddr() net.Addr { return address{} }

// SetDeadline is net.Conn's.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.set(func(l *link) { l.readDeadline = t })
	c.out.set(func(l *link) { l.writeDeadline = t })
	return nil
}

// SetReadDeadline is net.Conn's.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.set(func(l *link) { l.readDeadline = t })
	return nil
}

// SetWriteDeadline is net.Conn's.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.set(func(l *link) { l.writeDeadline = t })
	return nil
}

type address struct{}

func (address) Network() string { return "memory" }
func (address) String() string  { return "memory" }

// link is one direction.
type link struct {
	shape Shape
	seed  uint64

	mu            sync.Mutex
	changed       chan struct{} // closed and replaced whenever something changes
	data          []byte        // written and not yet read
	pieces        []piece       // of data, by the time of their arrival
	last          time.Time     // when the latest piece arrives
	paces         Paces
	awaited       bool // since the latest read that gave something
	awaits        bool // before that read
	readDeadline  time.Time
	writeDeadline time.Time
	finished      bool // by the writer
	abandoned     bool // by the reader
	broken        bool
	brokenAt      time.Time // when the reader sees it
	lost          bool
}

type piece struct {
	bytes int
	at    time.Time
}

func newLink(shape Shape, direction uint64) *link {
	if shape.Buffer == 0 {
		shape.Buffer = defaultLinkBuffer
	}
	return &link{shape: shape, seed: shape.Seed + direction, changed: make(chan struct{})}
}

func (l *link) set(change func(l *link)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
	close(l.changed)
	l.changed = make(chan struct{})
}

// count counts a read that does not come at once.
func (l *link) count(one func(p *Paces)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one(&l.paces)
	l.awaited = true
}

func (l *link) finish()  { l.set(func(l *link) { l.finished = true }) }
func (l *link) abandon() { l.set(func(l *link) { l.abandoned = true }) }

// breakUp is seen by the reader as late as data would be, and by the writer at once.
func (l *link) breakUp() {
	l.set(func(l *link) {
		if !l.broken {
			l.broken, l.brokenAt = true, l.latency(time.Now())
		}
	})
}

func (l *link) lose() { l.set(func(l *link) { l.lost = true }) }

// read waits for bytes and gives what is there.
func (l *link) read(p []byte) (int, error) {
	for {
		l.mu.Lock()
		n, err := l.take(p)
		changed, wake := l.changed, l.nextEvent(time.Now())
		l.mu.Unlock()
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		await(changed, wake)
	}
}

// await waits for bytes and takes none. Whatever else ends a read ends it too; only
// the deadline is told, and a moment that is not zero, which is one more.
func (l *link) await(bytes int, until time.Time) error {
	for {
		l.mu.Lock()
		now := time.Now()
		here, late := l.arrived(now), passed(l.readDeadline, now)
		ready := here >= bytes || l.ends(here) || l.abandoned || l.broken && !l.lost && !l.brokenAt.After(now)
		changed, wake := l.changed, l.nextEvent(now)
		if wake.IsZero() || !until.IsZero() && until.Before(wake) {
			wake = until
		}
		l.mu.Unlock()
		switch {
		case late:
			return os.ErrDeadlineExceeded
		case ready:
			return nil
		case passed(until, now):
			return os.ErrDeadlineExceeded
		}
		await(changed, wake)
	}
}

// take needs l.mu. It gives n 0 without an error when the read must wait.
func (l *link) take(p []byte) (int, error) {
	now := time.Now()
	here := l.arrived(now)
	switch {
	case l.abandoned:
		return 0, net.ErrClosed
	case passed(l.readDeadline, now):
		return 0, os.ErrDeadlineExceeded
	case l.broken && !l.lost && !l.brokenAt.After(now):
		return 0, syscall.ECONNRESET
	case l.broken:
		return 0, nil // what is under way is lost
	case here > 0:
		n := copy(p, l.data[:here])
		l.drop(n)
		if l.awaits && !l.awaited {
			l.paces.Ends++
		}
		l.awaits, l.awaited = l.awaited, false
		return n, nil
	case here == 0 && l.ends(0):
		return 0, io.EOF
	default:
		return 0, nil
	}
}

// ends says whether nothing will come behind what is here. l.mu is held.
func (l *link) ends(here int) bool { return l.finished && !l.lost && here == len(l.data) }

// arrived needs l.mu.
func (l *link) arrived(now time.Time) (n int) {
	if l.lost {
		return 0
	}
	for _, p := range l.pieces {
		if p.at.After(now) {
			break
		}
		n += p.bytes
	}
	return n
}

// drop needs l.mu. It tells the writer of the room.
func (l *link) drop(n int) {
	l.data = l.data[n:]
	for n > 0 {
		first := min(n, l.pieces[0].bytes)
		l.pieces[0].bytes -= first
		n -= first
		if l.pieces[0].bytes == 0 {
			l.pieces = l.pieces[1:]
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// nextEvent is when the reader should look again; zero is never. l.mu is held.
func (l *link) nextEvent(now time.Time) time.Time {
	next := l.readDeadline
	if l.lost {
		return next
	}
	if l.broken {
		if next.IsZero() || l.brokenAt.Before(next) {
			next = l.brokenAt
		}
		return next
	}
	for _, p := range l.pieces {
		if p.at.After(now) {
			if next.IsZero() || p.at.Before(next) {
				next = p.at
			}
			break
		}
	}
	return next
}

func passed(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// await waits for a change or a moment; the zero moment never comes.
func await(changed <-chan struct{}, moment time.Time) {
	if moment.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(moment))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

func (l *link) write(p []byte) (written int, err error) {
	for {
		l.mu.Lock()
		n, err := l.put(p[written:])
		written += n
		changed, wake := l.changed, l.writeDeadline
		l.mu.Unlock()
		if err != nil || written == len(p) {
			return written, err
		}
		if n == 0 {
			await(changed, wake)
		}
	}
}

// put needs l.mu. It gives n 0 without an error when the write must wait.
func (l *link) put(p []byte) (int, error) {
	now := time.Now()
	switch {
	case l.finished:
		return 0, net.ErrClosed
	case passed(l.writeDeadline, now):
		return 0, os.ErrDeadlineExceeded
	case l.broken && !l.lost:
		return 0, syscall.ECONNRESET
	case l.abandoned && !l.lost:
		return 0, syscall.EPIPE
	}
	n := min(len(p), l.shape.Buffer-len(l.data))
	if n <= 0 {
		return 0, nil
	}
	l.data = append(l.data, p[:n]...)
	for rest := n; rest > 0; rest -= packetBytes {
		size := min(rest, packetBytes)
		if l.shape.BytesPerSecond == 0 {
			size = rest // all of it comes at one moment
			rest = 0
		}
		l.pieces = append(l.pieces, piece{size, l.arrival(size, now)})
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return n, nil
}

// arrival is when n bytes that are written now have come. l.mu is held.
func (l *link) arrival(n int, now time.Time) time.Time {
	at := l.latency(now)
	if at.Before(l.last) {
		at = l.last
	}
	if l.shape.BytesPerSecond > 0 {
		at = at.Add(time.Duration(n) * time.Second / time.Duration(l.shape.BytesPerSecond))
	}
	l.last = at
	return at
}

// latency is when something that happens now is noticed. l.mu is held.
func (l *link) latency(now time.Time) time.Time {
	most := l.shape.Latency
	if most <= 0 {
		return now
	}
	// Of the moment, not of how many writes came before: a write is cut in pieces
	// where the buffer is full, and where that is may depend on who ran first.
	chosen := rand.New(rand.NewPCG(l.seed, uint64(now.UnixNano()))).Int64N(int64(most-most/10) + 1)
	return now.Add(most/10 + time.Duration(chosen))
}
