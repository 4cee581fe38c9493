package pipeline

import (
	"fmt"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// A bug of ours ends the process, whichever goroutine finds it: one that went on would
// confirm what a broken ledger says. What follows is how the news of it travels. A
// part of the session that panics is caught by guard; a sink that finds a bug fails its
// messages with it; both come to halt, and from there by Run to the exit code.

// guard runs a part of the session and tells of a bug that it panics with or returns.
func (s *session) guard(part func() error) (err error) {
	defer fault.Catch(func(bug error) {
		err = bug
		s.halt(bug)
	})
	err = part()
	if fault.Classify(err) == fault.Bug {
		s.halt(err)
	}
	return err
}

// halt ends the session because of a bug.
func (s *session) halt(bug error) {
	s.saver.halted.Store(true)
	select {
	case s.bugs <- bug:
	default:
	}
}

// positionsTimeout is how long the five positions are waited for after a bug, which
// may have left a lock behind.
const positionsTimeout = time.Second

// autopsy adds to a bug where the stream stood.
func (r *Runner) autopsy(bug error) error {
	told := make(chan Stats, 1)
	go func() {
		told <- r.Stats()
		r.board.set(Failed, bug.Error())
	}()
	patience := time.NewTimer(positionsTimeout)
	defer patience.Stop()
	select {
	case s := <-told:
		return fmt.Errorf("%w; read %v, sent %v, acked %v, saved %v, confirmed %v", bug, s.Read, s.Sent, s.Acked, s.Saved, s.Confirmed)
	case <-patience.C:
		return fmt.Errorf("%w; the positions are not known", bug)
	}
}
