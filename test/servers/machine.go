package servers

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// machine is what a server runs on: a child process, a container, or somebody
// else's computer. Its methods are called by one goroutine at a time.
type machine interface {
	// start brings the server up on its address and its data. It returns before
	// the server answers.
	start(ctx context.Context) error

	// signal sends a signal to the server's first process.
	signal(ctx context.Context, sig syscall.Signal) error

	// wait returns when nothing of the server runs any more.
	wait(ctx context.Context) error

	// ended says that a server which was started is not running now.
	ended(ctx context.Context) bool

	// pid is the server's first process, as this host numbers it; 0 when unknown.
	pid(ctx context.Context) int

	// log is the end of what the server wrote.
	log() string

	// remove ends the server at once and deletes its data.
	remove() error
}

// errDown is a server that does not run when it should answer.
var errDown = errors.New("it does not run")

// retried calls run up to three times, for as long as its server ends by itself:
// whoever is not a test of this user may take a port between our look at it and
// the server's, and on another port all is well.
func retried[S any](run func() (S, error)) (S, error) {
	for tries := 1; ; tries++ {
		server, err := run()
		if tries == 3 || !errors.Is(err, errDown) {
			return server, err
		}
	}
}

// up starts m and waits until probe gives nil.
func up(ctx context.Context, m machine, probe func(context.Context) error) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	return answers(ctx, m, probe)
}

// answers waits until probe gives nil. It gives up early when the server ends, and
// then or after startTimeout the error carries the end of the server's log.
func answers(ctx context.Context, m machine, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var ended bool
	err := poll(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		// Asked before the probe: another server might answer on the port of ours
		// that has ended.
		if ended = m.ended(ctx); ended {
			return nil
		}
		return probe(ctx)
	})
	if ended {
		err = errDown
	}
	if err != nil {
		return fmt.Errorf("wait until the server answers: %w; its log ends with:\n%s", err, m.log())
	}
	return nil
}

// down sends sig and waits until the server has ended.
func down(ctx context.Context, m machine, sig syscall.Signal) error {
	if err := m.signal(ctx, sig); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := m.wait(ctx); err != nil {
		return fmt.Errorf("wait until the server has ended after %v: %w; its log ends with:\n%s", sig, err, m.log())
	}
	return nil
}

// given is a server that somebody else runs.
type given struct {
	variable string // where its address comes from
}

// errGiven refuses what would disturb a server that is not ours.
func (g given) errGiven(what string) error {
	return fmt.Errorf("%s the server that %s names: it is not ours to touch; unset the variable to let this test run a server of its own", what, g.variable)
}

func (g given) start(context.Context) error                  { return g.errGiven("start") }
func (g given) signal(context.Context, syscall.Signal) error { return g.errGiven("stop") }
func (g given) wait(context.Context) error                   { return g.errGiven("wait for the end of") }
func (given) ended(context.Context) bool                     { return false }
func (given) pid(context.Context) int                        { return 0 }
func (given) log() string                                    { return "(not ours to read)" }
func (given) remove() error                                  { return nil }
