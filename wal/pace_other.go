//go:build !linux

package wal

import "syscall"

// awaitRead is nil: elsewhere a poll does not respect a low-water mark, or is not
// known to.
func awaitRead(syscall.RawConn) func(bytes int) error { return nap }

// shortNap is nap: how finely the clock counts is not known.
func shortNap(bytes int) error { return nap(bytes) }
