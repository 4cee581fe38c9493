package wal

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	segmentBytes = 4 << 10  // at the most; 1,448 and 8,192 were as good
	windowBytes  = 24 << 10 // of the receive buffer; the kernel takes twice as much
)

// forStream prepares a connection that a stream may take over: one to this machine
// gets a small window.
func forStream(network, address string, raw syscall.RawConn) error {
	if host, _, err := net.SplitHostPort(address); err == nil && isLocal(host) {
		err = raw.Control(func(fd uintptr) {
			// Without small segments no small window.
			if unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, segmentBytes) == nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, windowBytes)
			}
		})
		if err != nil {
			return err
		}
	}
	return limitUnacked(network, address, raw)
}

// socketWindow is the window of a socket.
type socketWindow struct {
	raw      syscall.RawConn
	ask      func(fd uintptr) // made once: to ask allocates nothing
	asked    [1]unix.PollFd
	patience unix.Timespec
	ready    bool
}

// socketWindowOf gives nil for a socket that forStream did not make small.
func socketWindowOf(conn *net.TCPConn) windowed {
	peer, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !peer.IP.IsLoopback() {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	small := false
	err = raw.Control(func(fd uintptr) {
		segment, unknown := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
		buffer, alsoUnknown := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		small = unknown == nil && alsoUnknown == nil && segment <= segmentBytes && buffer <= 2*windowBytes
	})
	if err != nil || !small {
		return nil
	}
	w := &socketWindow{raw: raw}
	w.ask = func(fd uintptr) {
		w.asked[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		n, err := unix.Ppoll(w.asked[:], &w.patience, nil)
		for err == unix.EINTR { // by Go's scheduler; the kernel has left in patience what remains
			n, err = unix.Ppoll(w.asked[:], &w.patience, nil)
		}
		w.ready = n > 0
	}
	return w
}

// SetLowWater sets SO_RCVLOWAT.
func (w *socketWindow) SetLowWater(bytes int) error {
	var failed error
	err := w.raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
	})
	if err != nil {
		return err
	}
	return failed
}

// Ready polls by the kernel's clock: Go's poller counts in milliseconds.
func (w *socketWindow) Ready(patience time.Duration) bool {
	w.patience, w.ready = unix.NsecToTimespec(int64(patience)), false
	return w.raw.Control(w.ask) == nil && w.ready
}
