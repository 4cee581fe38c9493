//go:build !linux

package wal

import (
	"net"
	"syscall"
)

// forStream prepares a connection that a stream may take over, here as any other: what a
// small window gives is known of Linux only.
func forStream(network, address string, raw syscall.RawConn) error {
	return limitUnacked(network, address, raw)
}

func socketWindowOf(*net.TCPConn) windowed { return nil }
