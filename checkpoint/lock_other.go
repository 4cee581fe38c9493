//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package checkpoint

import (
	"context"
	"errors"
	"fmt"
)

// fileLock does not exist here: without flock and a sync of directories the
// promises of a checkpoint file cannot be kept, so it is refused.
type fileLock struct{}

func openLock(string) (*fileLock, error) {
	return nil, fmt.Errorf("a checkpoint file on this system: %w", errors.ErrUnsupported)
}

func (l *fileLock) take(context.Context) (unlock func(), err error) {
	return nil, errors.ErrUnsupported
}

func (l *fileLock) close() error { return nil }
