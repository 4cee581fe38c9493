package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a client and a server and is the network that fails. Its
// methods may be called from any goroutine. Each holds for connections that come
// later too, except Cut.
//
// For each connection there are four goroutines, a reader and a writer for either
// direction; they end with the connection, and Close waits for them all.
type Proxy struct {
	place *place
	links sync.WaitGroup // goroutines of connections and of the listener

	mu       sync.Mutex
	target   string
	listener net.Listener // nil while refusing
	open     map[*link]struct{}
	through  chan struct{} // closed while bytes go through
	latency  time.Duration
	rate     int // bytes a second in each direction of each connection; 0: no limit
	done     bool
}

const (
	// chunkBytes is how much is read at once, and queueChunks how many of these may
	// be on their way while they wait for their latency: 4 MiB in each direction.
	chunkBytes  = 16 << 10
	queueChunks = 256

	// readBufferBytes is what the kernel takes for a connection that is not read.
	readBufferBytes = 128 << 10
)

// NewProxy listens on the loopback and connects whoever comes with target, a host
// and port. It ends with the test.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	place, err := newPlace(ctx, 1)
	must(tb, err)
	p := &Proxy{place: place, target: target, open: map[*link]struct{}{}, through: make(chan struct{})}
	close(p.through)
	tb.Cleanup(func() {
		if err := p.close(); err != nil {
			tb.Errorf("close the proxy: %v", err)
		}
	})
	p.Accept(tb)
	return p
}

// Addr is where clients connect: a host and port that stay the same.
func (p *Proxy) Addr() string { return loopback(p.place.ports[0]) }

// SetTarget sends connections that come from now on to another server.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Accept takes new connections again after Refuse.
func (p *Proxy) Accept(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return
	}
	l, err := net.Listen("tcp", p.Addr())
	if err != nil {
		tb.Fatalf("listen for the proxy's clients: %v", err)
	}
	p.listener = l
	p.links.Go(func() { p.accept(l) })
}

// Refuse lets new connections be refused, as by a host on which nobody listens.
// Those that are open stay.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// Cut resets all connections that are open now, towards both sides.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.open {
		l.cut()
	}
}

// Blackhole lets connections hang: what either side sends after it returns does
// not arrive until Resume, and neither does the end of a connection. New ones are
// taken and hang as well.
func (p *Proxy) Blackhole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if closed(p.through) {
		p.through = make(chan struct{})
	}
}

// Resume ends Blackhole. What was held back arrives, in order and complete.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !closed(p.through) {
		close(p.through)
	}
}

// SetLatency delays all bytes in each direction by d, without slowing the flow.
func (p *Proxy) SetLatency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// SetBandwidth limits each direction of each connection to that many bytes a
// second; 0 lifts the limit.
func (p *Proxy) SetBandwidth(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = bytes
}

// Connections is how many connections are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// close cuts everything and waits until nothing of the proxy runs.
func (p *Proxy) close() error {
	p.mu.Lock()
	p.done = true
	p.mu.Unlock()
	p.Refuse()
	p.Cut()
	p.links.Wait()
	return p.place.remove()
}

// accept serves one listener until it is closed.
func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.links.Go(func() { p.connect(client) })
	}
}

// connect joins a client with the target and returns when both are closed.
func (p *Proxy) connect(client net.Conn) {
	l := &link{proxy: p, client: client, gone: make(chan struct{})}
	if !p.enter(l) {
		l.cut()
		return
	}
	defer p.leave(l)
	if !l.dial() {
		return
	}
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			// What hangs or crawls shall not vanish in megabytes of the kernel's.
			_ = tcp.SetReadBuffer(readBufferBytes)
		}
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { l.pump(l.client, l.server) })
	pumps.Go(func() { l.pump(l.server, l.client) })
	pumps.Wait()
}

// enter makes the link one that Cut finds, unless the proxy is closed.
func (p *Proxy) enter(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.done {
		p.open[l] = struct{}{}
	}
	return !p.done
}

// leave forgets the link and closes what is left of it.
func (p *Proxy) leave(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, l)
	l.close()
}

// weather is how the network is right now.
func (p *Proxy) weather() (through <-chan struct{}, latency time.Duration, rate int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.through, p.latency, p.rate
}

// link is one connection of a client with the target.
type link struct {
	proxy *Proxy
	gone  chan struct{} // closed when the link is cut or closed
	once  sync.Once

	mu             sync.Mutex
	client, server net.Conn // server is nil until it is dialled
}

// dial connects with the target. A target that refuses is a reset for the client,
// as it is behind a load balancer.
func (l *link) dial() bool {
	if !l.pass() {
		return false
	}
	l.proxy.mu.Lock()
	target := l.proxy.target
	l.proxy.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		l.cut()
		return false
	}
	l.mu.Lock()
	l.server = server
	l.mu.Unlock()
	if closed(l.gone) { // cut in the meantime, when only the client was known
		reset(server)
		return false
	}
	return true
}

// cut resets both sides.
func (l *link) cut() { l.end(reset) }

// close closes both sides in order.
func (l *link) close() { l.end(func(c net.Conn) { _ = c.Close() }) }

// end ends the link, in the first of the ways that are asked for.
func (l *link) end(how func(net.Conn)) {
	l.once.Do(func() {
		close(l.gone)
		l.mu.Lock()
		defer l.mu.Unlock()
		how(l.client)
		if l.server != nil {
			how(l.server)
		}
	})
}

// reset closes a connection so that its other end gets a reset: what is unsent is
// dropped.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// chunk is what was read at once. Its end is nil, or why nothing follows.
type chunk struct {
	bytes []byte
	at    time.Time
	end   error
}

// pump carries one direction until its end, or until the link is gone.
func (l *link) pump(from, to net.Conn) {
	queue := make(chan chunk, queueChunks)
	var reader sync.WaitGroup
	reader.Go(func() { l.read(from, queue) })
	for c := range queue {
		if !l.deliver(to, c) {
			break
		}
	}
	// Either the direction has ended, and so has its reader, or the link is gone,
	// and the reader sees that.
	reader.Wait()
}

// read fills the queue with what comes from one side, and closes it at the end. It
// reads no faster than the bandwidth, so that a sender soon feels it: what the
// queue holds is only what the latency keeps on its way.
func (l *link) read(from net.Conn, queue chan<- chunk) {
	defer close(queue)
	for l.pass() {
		_, _, rate := l.proxy.weather()
		buf := make([]byte, quantum(rate))
		n, err := from.Read(buf)
		select {
		case queue <- chunk{bytes: buf[:n], at: time.Now(), end: err}:
		case <-l.gone:
			return
		}
		if err != nil || rate > 0 && !l.sleep(time.Duration(n)*time.Second/time.Duration(rate)) {
			return
		}
	}
}

// quantum is how many bytes are read at once: at least twenty times a second some,
// when there is a limit.
func quantum(rate int) int {
	if rate <= 0 {
		return chunkBytes
	}
	return min(chunkBytes, max(1, rate/20))
}

// deliver writes a chunk when its time has come, and passes the end on: an orderly
// one closes that direction alone, any other resets the link. It says whether the
// direction goes on.
func (l *link) deliver(to net.Conn, c chunk) bool {
	_, latency, _ := l.proxy.weather()
	if !l.sleep(time.Until(c.at.Add(latency))) || !l.pass() {
		return false
	}
	if _, err := to.Write(c.bytes); err != nil {
		l.cut()
		return false
	}
	switch {
	case c.end == nil:
		return true
	case errors.Is(c.end, io.EOF):
		if tcp, ok := to.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	default:
		l.cut()
	}
	return false
}

// pass waits until bytes go through, and says whether the link is still there.
func (l *link) pass() bool {
	through, _, _ := l.proxy.weather()
	select {
	case <-l.gone:
		return false
	case <-through:
		return true
	}
}

// sleep waits, and says whether the link is still there.
func (l *link) sleep(d time.Duration) bool {
	if d <= 0 {
		return !closed(l.gone)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.gone:
		return false
	case <-timer.C:
		return true
	}
}

// String names both ends, for the log of a test.
func (p *Proxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s -> %s", p.Addr(), p.target)
}
