//go:build !linux

package wal

import "syscall"

// lowWater is nil: elsewhere a poll does not respect the mark, or is not known to.
func lowWater(syscall.RawConn) func(bytes int) error { return nil }
