package wal

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAStreamOnOneMachineHoldsLittleThatIsNotRead: the promise is the kernel's. What is
// written in small pieces fills the window, and then comes in large ones.
func TestAStreamOnOneMachineHoldsLittleThatIsNotRead(t *testing.T) {
	here, there := connected(t, "127.0.0.1", forStream)
	s := inBacklog(here)
	if s.window == nil {
		t.Fatal("a connection to this machine has no small window")
	}
	if under := (&readAhead{Conn: here}); windowOf(tls.Client(under, &tls.Config{MinVersion: tls.VersionTLS13}), under) == nil {
		t.Error("with TLS it has none")
	}
	if err := there.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	const most = 5000
	wrote, message := 0, append([]byte{'d', 0, 0, 0, 99}, make([]byte, 95)...)
	for wrote < most { // or until the writer's own queue is full
		n, err := there.Write(message)
		if err != nil {
			break
		}
		wrote += n / len(message)
	}
	raw, err := here.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if held := unread(t, raw); held > 2*windowBytes {
		t.Errorf("the kernel holds %d bytes for us, want %d at the most", held, 2*windowBytes)
	}
	if err := s.setDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got, pulls := 0, 0
	for ; got < wrote && s.pull(); pulls++ {
		got += taken(s)
	}
	if bytes := wrote * len(message); got != wrote || pulls > 2+bytes/pullBytes {
		t.Errorf("%d of %d messages came in %d pulls, want all in %d at the most", got, wrote, pulls, 2+bytes/pullBytes)
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

func TestAPullDoesNotWaitForTheRestOfARecord(t *testing.T) {
	s, server, wire := encrypted(t, forStream)
	const record = 5 + 10 + 1 + 16 // see TestRecordsThatCameTogetherAreReadTogether
	arrived := func(bytes int) {
		t.Helper()
		if err := errors.Join(s.window.SetLowWater(bytes), s.setDeadline(time.Now().Add(time.Hour))); err != nil {
			t.Fatal(err)
		}
		if !s.window.Ready(time.Minute) {
			t.Fatal("what was written has not come")
		}
	}
	pulled := func() (some bool) {
		t.Helper()
		done, late := make(chan bool, 1), time.NewTimer(20*time.Second)
		defer late.Stop()
		go func() { done <- s.pull() }()
		select {
		case some = <-done:
		case <-late.C:
			t.Fatal("a pull waits for the rest of a record while others are in the buffer")
		}
		return some
	}
	writeRecords(t, server, 10)
	arrived(10 * record)
	if !pulled() {
		t.Error("ten records are nothing")
	}
	wire.split = true
	writeRecords(t, server, 1)
	arrived(record / 2)
	if pulled() {
		t.Error("half a record is something to take")
	}
	if n := taken(s); n != 10 {
		t.Errorf("%d messages, want the 10 that are whole", n)
	}
	if _, err := wire.Conn.Write(wire.rest); err != nil {
		t.Fatal(err)
	}
	if n := filled(t, s, time.Minute); n != 1 {
		t.Errorf("%d messages after the other half came, want it", n)
	}
}

func TestReadyIsWhatTheMarkSays(t *testing.T) {
	here, there := connected(t, "127.0.0.1", forStream)
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
	here.Close() //nolint:errcheck // it is closed that is asked for
	if window.Ready(time.Millisecond) || !errors.Is(window.SetLowWater(1), net.ErrClosed) {
		t.Error("a closed connection is ready, or takes a mark")
	}
}

func TestOtherConnectionsAreReadAsTheyCome(t *testing.T) {
	if here, _ := connected(t, "127.0.0.1", limitUnacked); windowOf(here, nil) != nil {
		t.Error("a connection for statements has a small window")
	}
	if windowOf(&net.UnixConn{}, nil) != nil || windowOf(nil, nil) != nil {
		t.Error("what is no TCP has a small window")
	}
	for host, small := range map[string]bool{"127.0.0.1": true, "::1": true, ownAddress(): false} {
		if !listens(t, host) {
			continue // the machine has no such address
		}
		if here, _ := connected(t, host, forStream); (windowOf(here, nil) != nil) != small {
			t.Errorf("%s: a small window is %v, want %v", host, !small, small)
		}
	}
}

func listens(t *testing.T, host string) bool {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	return err == nil && listener.Close() == nil && host != ""
}

// ownAddress is one of this machine that is not the loopback's; empty where it has none.
func ownAddress() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}
