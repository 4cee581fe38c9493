package wal

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTheKernelWaitsAndForgets needs a socket, since the promise is the kernel's: a
// wait ends with a large piece, or with the deadline, and leaves no mark.
func TestTheKernelWaitsAndForgets(t *testing.T) {
	here, there := loopback(t)
	raw, err := here.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	await := awaitRead(raw)
	write := func(n int) {
		t.Helper()
		if _, err := there.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	deadline := func(d time.Duration) {
		t.Helper()
		if err := here.SetReadDeadline(time.Now().Add(d)); err != nil {
			t.Fatal(err)
		}
	}

	write(100)
	deadline(time.Millisecond)
	err = await(1000)
	if err == nil { // the poller may tell late, and once, that something came
		deadline(time.Millisecond)
		err = await(1000)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a wait for 1000 bytes where 100 are gives %v, want the deadline", err)
	}
	wantNoMark(t, raw)
	deadline(time.Minute)
	if n, err := here.Read(make([]byte, 2000)); n != 100 || err != nil {
		t.Errorf("the read after it gives %d bytes and %v, want what is there", n, err)
	}

	write(100)
	waited := make(chan error, 1)
	go func() { waited <- await(1000) }()
	write(900)
	if err := <-waited; err != nil {
		t.Errorf("a wait for what came gives %v", err)
	}
	if err := await(1000); err != nil {
		t.Errorf("a wait for what is there gives %v", err)
	}
	wantNoMark(t, raw)
	if n, err := here.Read(make([]byte, 2000)); n != 1000 || err != nil {
		t.Errorf("the read after it gives %d bytes and %v, want 1000", n, err)
	}
}

func TestWhatIsNoSocketIsReadAtOnce(t *testing.T) {
	here, _ := loopback(t)
	under := &readAhead{Conn: here}
	for name, c := range map[string]struct {
		conn  net.Conn
		under *readAhead
		waits bool
	}{
		"TCP":                   {here, nil, true},
		"Unix":                  {&net.UnixConn{}, nil, true},
		"TLS":                   {tls.Client(under, &tls.Config{MinVersion: tls.VersionTLS13}), under, true},
		"TLS of another socket": {tls.Client(here, &tls.Config{MinVersion: tls.VersionTLS13}), nil, false},
		"none":                  {nil, nil, false},
	} {
		if p := newPace(c.conn, c.under); (p.await != nil) != c.waits {
			t.Errorf("%s: is waited on: %v, want %v", name, p.await != nil, c.waits)
		}
	}
}

func wantNoMark(t *testing.T, raw syscall.RawConn) {
	t.Helper()
	var mark int
	var failed error
	err := raw.Control(func(fd uintptr) { mark, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT) })
	if err != nil || failed != nil || mark != 1 {
		t.Errorf("the mark is %d (%v, %v), want 1: a row would wait for company", mark, err, failed)
	}
}

func loopback(t *testing.T) (here *net.TCPConn, there net.Conn) {
	t.Helper()
	return connected(t, "127.0.0.1", nil)
}

// connected is a TCP connection to an address of this machine, made with prepare.
func connected(t *testing.T, host string, prepare control) (here *net.TCPConn, there net.Conn) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // it is used no more
	conn, err := (&net.Dialer{Control: prepare}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatalf("a TCP connection is a %T", conn)
	}
	t.Cleanup(func() { here.Close() }) //nolint:errcheck // as above
	there, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	return here, there
}
