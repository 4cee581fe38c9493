package wal

import (
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacked gives up on bytes that the peer has not acknowledged within the
// time after which keepalive would: once something is in flight the kernel sends
// no keepalive probes, but retransmits for a quarter of an hour.
func limitUnacked(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	limit := keepAliveIdle + keepAliveInterval*keepAliveCount
	// A kernel without the option costs us the early notice and nothing else.
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit/time.Millisecond))
	})
}
