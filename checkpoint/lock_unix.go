//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

const (
	lockTimeout = 10 * time.Second // a save holds the lock for milliseconds
	lockPause   = 10 * time.Millisecond
)

// fileLock is a lock between processes: flock on a file of its own, which stays,
// because the file that it guards is replaced at each save. The system lets go of
// it when a process dies.
type fileLock struct{ f *os.File }

func openLock(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600) //nolint:gosec // whoever starts us names the file
	if err != nil {
		return nil, err
	}
	return &fileLock{f}, nil
}

// take waits for the lock until ctx ends, or too long for anything but a process
// that hangs.
func (l *fileLock) take(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockTimeout, &fault.Error{
		Class: fault.Transient, Err: fmt.Errorf("another process has held %s for %v", l.f.Name(), lockTimeout),
		Advice: "find it with fuser: one that is frozen lets go when it goes on or ends",
	})
	defer cancel()
	ticker := time.NewTicker(lockPause)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(l.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return l.release, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, &os.PathError{Op: "lock", Path: l.f.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// release cannot fail on a file that is open and locked.
func (l *fileLock) release() { syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN) } //nolint:errcheck // see above

func (l *fileLock) close() error { return l.f.Close() }
