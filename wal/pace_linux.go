package wal

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// lowWater sets SO_RCVLOWAT, which Linux' poll respects for TCP (tcp.c,
// tcp_stream_is_readable) and ignores for Unix sockets.
func lowWater(raw syscall.RawConn) func(bytes int) error {
	return func(bytes int) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
		})
		return errors.Join(err, failed)
	}
}
