package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// running is a runner that does as its function says.
type running func(ctx context.Context, stop <-chan struct{}) error

func (r running) Run(ctx context.Context, stop <-chan struct{}) error { return r(ctx, stop) }

// signalled runs r in a bubble with a signal at each of the given times, and gives
// when it ended and how.
func signalled(t *testing.T, r running, at ...time.Duration) (after time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		signals := make(chan os.Signal, 2)
		for _, d := range at {
			time.AfterFunc(d, func() { signals <- syscall.SIGTERM })
		}
		p := &program{signals: signals}
		begun, ended := time.Now(), make(chan struct{})
		err = p.runToTheEnd(ctx, running(func(ctx context.Context, stop <-chan struct{}) error {
			defer close(ended)
			return r(ctx, stop)
		}), slog.New(slog.DiscardHandler))
		after = time.Since(begun)
		<-ended
	})
	return after, err
}

func TestTheFirstSignalDrains(t *testing.T) {
	after, err := signalled(t, func(ctx context.Context, stop <-chan struct{}) error {
		<-stop
		<-time.NewTimer(20 * time.Second).C // the broker is slow
		return context.Cause(ctx)
	}, 5*time.Second)
	if err != nil || after != 25*time.Second {
		t.Errorf("ended with %v after %v, want nil after 25s", err, after)
	}
}

func TestTheSecondSignalExitsAtOnce(t *testing.T) {
	for name, r := range map[string]running{
		"a runner that listens": func(ctx context.Context, _ <-chan struct{}) error {
			<-ctx.Done()
			return nil
		},
		"a runner that hangs": func(context.Context, <-chan struct{}) error {
			<-time.NewTimer(10 * time.Minute).C
			return nil
		},
	} {
		after, err := signalled(t, r, 5*time.Second, 6*time.Second)
		if got := fault.ExitCode(err); got != fault.ExitDrainTimeout {
			t.Errorf("%s: exit %d (%v), want %d", name, got, err, fault.ExitDrainTimeout)
		}
		if after > 8*time.Second {
			t.Errorf("%s: ended after %v, a second signal came after 6s", name, after)
		}
	}
}

func TestARunnerThatEndsByItselfSaysWhy(t *testing.T) {
	want := fault.NewOperator(errors.New("slot orders is gone"), "make it")
	_, err := signalled(t, func(context.Context, <-chan struct{}) error { return want })
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestAnInterruptedCommandHasNotDoneItsWork(t *testing.T) {
	signals := make(chan os.Signal, 1)
	p := &program{signals: signals}
	ctx, done := p.untilSignal(t.Context())
	defer done()
	signals <- os.Interrupt
	<-ctx.Done()
	if err := interrupted(ctx, ctx.Err()); fault.ExitCode(err) != fault.ExitTransient {
		t.Errorf("exit %d (%v), want %d", fault.ExitCode(err), err, fault.ExitTransient)
	}
	if err := interrupted(ctx, nil); err != nil {
		t.Errorf("what was done before the signal gave %v", err)
	}
}
