package servers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo is a server that sends back what it gets.
func echo(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// dial connects and gives up reading and writing when a server would not answer
// any more.
func dial(tb testing.TB, p *Proxy) *net.TCPConn {
	tb.Helper()
	c, err := net.Dial("tcp", p.Addr())
	must(tb, err)
	must(tb, c.SetDeadline(time.Now().Add(startTimeout)))
	tb.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// say sends text and expects it back.
func say(tb testing.TB, c net.Conn, text string) {
	tb.Helper()
	_, err := c.Write([]byte(text))
	must(tb, err)
	hear(tb, c, text)
}

// hear expects text.
func hear(tb testing.TB, c net.Conn, text string) {
	tb.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		tb.Fatalf("heard %q (%v), want %q", got, err, text)
	}
}

// silent expects nothing for a while.
func silent(tb testing.TB, c net.Conn) {
	tb.Helper()
	must(tb, c.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	n, err := c.Read(make([]byte, 1))
	var timeout net.Error
	if n != 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		tb.Fatalf("heard %d bytes (%v), want silence", n, err)
	}
	must(tb, c.SetReadDeadline(time.Now().Add(startTimeout)))
}

func TestProxyCarriesAllBytesAndTheEnd(t *testing.T) {
	c := dial(t, NewProxy(t, echo(t)))
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	go func() {
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back (%v), want %d, the same", len(got), err, len(want))
	}
}

func TestCutResetsWhatIsOpenAndOnlyThat(t *testing.T) {
	p := NewProxy(t, echo(t))
	one, two := dial(t, p), dial(t, p)
	say(t, one, "a")
	say(t, two, "b")
	p.Cut()
	for _, c := range []net.Conn{one, two} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after the cut: %v, want a reset", err)
		}
	}
	say(t, dial(t, p), "c")
	eventually(t, "the cut connections are forgotten", func() bool { return p.Connections() == 1 })
}

func TestCutReachesTheServerToo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer shut(l)
	p := NewProxy(t, l.Addr().String())
	client := dial(t, p)
	_, err = client.Write([]byte("a"))
	must(t, err)
	server, err := l.Accept()
	must(t, err)
	defer server.Close()
	hear(t, server, "a")
	p.Cut()
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after the cut: %v, want a reset", err)
	}
}

func TestRefuseTurnsAwayNewcomersOnly(t *testing.T) {
	p := NewProxy(t, echo(t))
	old := dial(t, p)
	say(t, old, "a")
	p.Refuse()
	p.Refuse()
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial while refusing: %v", err)
	}
	say(t, old, "b")
	p.Accept(t)
	p.Accept(t)
	say(t, dial(t, p), "c")
}

func TestBlackholeHoldsAllBackAndResumeLosesNothing(t *testing.T) {
	p := NewProxy(t, echo(t))
	old := dial(t, p)
	say(t, old, "a")
	p.Blackhole()
	_, err := old.Write([]byte("held"))
	must(t, err)
	must(t, old.CloseWrite())
	fresh := dial(t, p)
	_, err = fresh.Write([]byte("back"))
	must(t, err)
	silent(t, old)
	silent(t, fresh)
	p.Resume()
	hear(t, old, "held")
	hear(t, fresh, "back")
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the end of the held connection: %v", err)
	}
}

func TestCutReachesWhatHangs(t *testing.T) {
	p := NewProxy(t, echo(t))
	old := dial(t, p)
	say(t, old, "a")
	p.Blackhole()
	_, err := old.Write([]byte("lost"))
	must(t, err)
	fresh := dial(t, p)
	eventually(t, "the new connection is taken", func() bool { return p.Connections() == 2 })
	p.Cut()
	for _, c := range []net.Conn{old, fresh} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after the cut: %v, want a reset", err)
		}
	}
}

func TestATargetThatRefusesResetsTheClient(t *testing.T) {
	place, err := newPlace(context.Background(), 1)
	must(t, err)
	defer vacate(t, place)
	p := NewProxy(t, loopback(place.ports[0]))
	c, err := net.Dial("tcp", p.Addr()) // may learn of the reset already
	if err == nil {
		defer shut(c)
		must(t, c.SetDeadline(time.Now().Add(startTimeout)))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connect and read: %v, want a reset", err)
	}
	p.SetTarget(echo(t))
	say(t, dial(t, p), "now")
}

func TestLatencyDelaysWithoutSlowingTheFlow(t *testing.T) {
	p := NewProxy(t, echo(t))
	p.SetLatency(150 * time.Millisecond)
	c := dial(t, p)
	began := time.Now()
	say(t, c, "a")
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("there and back took %v, want at least twice 150ms", took)
	}
	began = time.Now()
	go func() { _, _ = c.Write(make([]byte, 2<<20)) }()
	_, err := io.ReadFull(c, make([]byte, 2<<20))
	must(t, err)
	// Were each chunk to wait for the one before it, it would be 128 × 150 ms.
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("2 MiB took %v", took)
	}
}

func TestBandwidthIsALimitThatTheSenderFeels(t *testing.T) {
	p := NewProxy(t, echo(t))
	p.SetBandwidth(100_000)
	c := dial(t, p)
	began := time.Now()
	go func() { _, _ = c.Write(make([]byte, 50_000)) }()
	_, err := io.ReadFull(c, make([]byte, 50_000))
	must(t, err)
	// The last piece is not waited for, on either way.
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("50 kB at 100 kB/s took %v", took)
	}
	must(t, c.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
	if n, err := c.Write(make([]byte, 64<<20)); err == nil {
		t.Errorf("%d bytes were taken at once", n)
	}
}
