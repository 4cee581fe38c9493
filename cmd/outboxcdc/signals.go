package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// untilSignal is a context that the first signal ends. The goroutine ends with the
// context.
func (p *program) untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

var errInterrupted = errors.New("interrupted before the end")

// interrupted makes an error of the end that a signal brought about: only a stream
// that is stopped has done what was asked for.
func interrupted(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) {
		return &fault.Error{Class: fault.Transient, Err: errInterrupted, Advice: "run it again, it goes on where it was"}
	}
	return err
}

// runner is a pipeline.Runner.
type runner interface {
	Run(ctx context.Context, stop <-chan struct{}) error
}

// lastBreath is how long a runner may take that was told to exit at once.
const lastBreath = time.Second

// runToTheEnd runs r; the first signal drains it, the second ends it.
//
// The goroutine ends with Run. It is left behind only when Run takes longer than
// lastBreath, and then the process ends.
func (p *program) runToTheEnd(ctx context.Context, r runner, logger *slog.Logger) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	stop := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- fault.Guard(func() error { return r.Run(ctx, stop) }) }()

	select {
	case err := <-ended:
		return err
	case signal := <-p.signals:
		logger.Info("draining; a second signal exits at once", slog.String("signal", signal.String()))
		close(stop)
	}
	select {
	case err := <-ended:
		return err
	case <-p.signals:
		quit()
	}
	last := time.NewTimer(lastBreath)
	defer last.Stop()
	select {
	case <-ended: //nolint:errcheck // what it says, the second signal has overruled
	case <-last.C:
	}
	return cutShortError{}
}

// cutShortError ends a drain that a second signal did not let finish.
type cutShortError struct{}

// Error says what that means.
func (cutShortError) Error() string {
	return "a second signal ended the drain: what was sent and not confirmed is sent again after the next start"
}

// Is makes its exit code that of a drain that ran out of time.
func (cutShortError) Is(target error) bool { return target == fault.ErrDrainTimeout }
