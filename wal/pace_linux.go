package wal

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// awaitRead waits with SO_RCVLOWAT, which Linux' poll respects for TCP (tcp.c,
// tcp_stream_is_readable) and ignores for Unix sockets (af_unix.c, unix_poll). It is
// taken back before it returns. Go's poller sees edges only, so what is there already
// is asked for first.
func awaitRead(raw syscall.RawConn) func(bytes int) error {
	var (
		want   int
		asked  bool
		failed error
	)
	// Made once: a wait allocates nothing.
	ready := func(fd uintptr) bool {
		if asked {
			return true
		}
		asked = true
		here, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err == nil && here < want {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, want)
		}
		failed = err
		return here >= want || err != nil
	}
	takeBack := func(fd uintptr) {
		failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1))
	}
	return func(bytes int) error {
		want, asked, failed = bytes, false, nil
		err := raw.Read(ready)
		if controlled := raw.Control(takeBack); err == nil {
			err = controlled
		}
		if failed != nil {
			return failed
		}
		return err
	}
}

// shortNapTime was as good as half of it and better than twice as much.
const shortNapTime = 200 * time.Microsecond

// shortNap is nap by the kernel's clock. Where nothing else is to be done Go sleeps in its
// poller, which counts in milliseconds, and by then a Unix socket has long been full and
// the walsender asleep over it.
func shortNap(int) error {
	rest := unix.NsecToTimespec(int64(shortNapTime))
	unix.Nanosleep(&rest, nil) //nolint:errcheck // a signal ends it early, which does no harm
	return nil
}
