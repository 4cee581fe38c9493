//go:build !linux

package wal

import "syscall"

// limitUnacked does nothing here: only Linux bounds how long sent bytes may stay
// unacknowledged.
func limitUnacked(_, _ string, _ syscall.RawConn) error { return nil }
