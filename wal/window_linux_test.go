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

// onThisMachine is a TCP connection made with prepare.
func onThisMachine(t *testing.T, host string, prepare control) (here *net.TCPConn, there net.Conn) {
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

// TestAStreamOnOneMachineHoldsLittleThatIsNotRead: the promise is the kernel's. What is
// written piece by piece fills the window, and then comes in large segments.
func TestAStreamOnOneMachineHoldsLittleThatIsNotRead(t *testing.T) {
	here, there := onThisMachine(t, "127.0.0.1", forStream)
	window := windowOf(here, nil)
	if window == nil {
		t.Fatal("a connection to this machine has no small window")
	}
	if under := (&readAhead{Conn: here}); windowOf(tls.Client(under, &tls.Config{MinVersion: tls.VersionTLS13}), under) == nil {
		t.Error("with TLS it has none")
	}
	if err := window.SetLowWater(pullBytes); err != nil {
		t.Fatal(err)
	}
	written := 0
	if err := there.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for written < 400_000 { // or until the writer's own queue is full
		n, err := there.Write(make([]byte, 100))
		written += n
		if err != nil {
			break
		}
	}
	raw, err := here.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if held := unread(t, raw); held > 2*windowBytes {
		t.Errorf("the kernel holds %d bytes for us, want %d at the most", held, 2*windowBytes)
	}
	buffer := make([]byte, 256<<10)
	for got := 0; got < written; {
		if written-got > pullBytes && !window.Ready(time.Minute) {
			t.Fatalf("%d of %d bytes came", got, written)
		}
		n, err := here.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	if err := window.SetLowWater(1); err != nil {
		t.Fatal(err)
	}
	wantNoMark(t, raw)
}

func unread(t *testing.T, raw syscall.RawConn) (bytes int) {
	t.Helper()
	var failed error
	err := raw.Control(func(fd uintptr) { bytes, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return bytes
}

func TestReadyIsWhatTheMarkSays(t *testing.T) {
	here, there := onThisMachine(t, "127.0.0.1", forStream)
	window := windowOf(here, nil)
	write := func(n int) {
		t.Helper()
		if _, err := there.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := window.SetLowWater(1000); err != nil {
		t.Fatal(err)
	}
	write(100)
	if window.Ready(time.Millisecond) {
		t.Error("100 bytes are enough where 1000 are wanted")
	}
	write(900)
	if !window.Ready(time.Minute) {
		t.Error("1000 bytes are not enough where 1000 are wanted")
	}
	if n, err := here.Read(make([]byte, 2000)); n != 1000 || err != nil {
		t.Errorf("the read after it gives %d bytes and %v, want 1000", n, err)
	}
	there.Close()
	if !window.Ready(time.Minute) {
		t.Error("the end is not ready to be read")
	}
	here.Close() //nolint:errcheck // as above
	if window.Ready(time.Millisecond) || !errors.Is(window.SetLowWater(1), net.ErrClosed) {
		t.Error("a closed connection is ready, or takes a mark")
	}
}

func TestOtherConnectionsAreReadAsTheyCome(t *testing.T) {
	if here, _ := onThisMachine(t, "127.0.0.1", limitUnacked); windowOf(here, nil) != nil {
		t.Error("a connection for statements has a small window")
	}
	if windowOf(&net.UnixConn{}, nil) != nil || windowOf(nil, nil) != nil {
		t.Error("what is no TCP has a small window")
	}
	cases := map[string]bool{"127.0.0.1": true}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		cases["::1"] = true
	}
	if own := ownAddress(t); own != "" {
		cases[own] = false
	}
	for host, small := range cases {
		if here, _ := onThisMachine(t, host, forStream); (windowOf(here, nil) != nil) != small {
			t.Errorf("%s: a small window is %v, want %v", host, !small, small)
		}
	}
}

// ownAddress is one of this machine that is not the loopback's; empty where it has none.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}
