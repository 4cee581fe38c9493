package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 30 * time.Second
	standbyPause = time.Second

	longestSilence = 6 * time.Hour

	// deniedTries is how often in a row a stream that was let in before may be refused,
	// which takes some ten seconds: as long as a password that is changed in two places,
	// or a restart of what the server asks for passwords.
	deniedTries = 6
)

// Runner keeps a stream going: one session after the other. Make it with New; Run
// it once.
type Runner struct {
	config Config
	plan   *outbox.Plan
	logger *slog.Logger
	store  checkpoint.Store // opened by the first session that reaches it

	streamed bool // a session was opened
	denied   int  // openings in a row that ended with wal.ErrDenied

	refusals refusals // of messages, by the broker, where the stream does not halt at them

	warned bool       // preflight warnings were logged
	memory wal.Memory // of the watches of all sessions
	kept   time.Time  // of the last entry of the history

	seen  counters
	board board
}

// New checks the configuration, every problem at once, and touches nothing else.
func New(config Config) (*Runner, error) {
	plan, err := config.validate()
	if err != nil {
		return nil, err
	}
	r := &Runner{config: config, plan: plan, logger: config.Logger}
	r.board.set(Starting, "")
	return r, nil
}

// Config is the configuration with what follows from it: defaults, the columns of the
// tables, and the topics that are known beforehand.
func (r *Runner) Config() Config { return r.config }

// Run streams until stop is closed or something breaks that time does not mend.
// After a stop it returns nil once everything that was sent is acked, saved and
// confirmed, or fault.ErrDrainTimeout. Sessions that break for passing reasons are
// followed by others, with back-off, for as long as it takes. When ctx ends, Run
// returns as fast as it can; some events are then sent twice after the next start.
//
// After a bug it returns at once with the five positions in the error, and leaves
// everything as it stands; the caller is to end the process.
func (r *Runner) Run(ctx context.Context, stop <-chan struct{}) (err error) {
	defer func() {
		if fault.Classify(err) == fault.Bug {
			err = r.autopsy(err)
			return
		}
		r.closeStore()
	}()
	defer fault.Catch(func(bug error) { err = bug })
	return r.run(ctx, stop)
}

// run is Run for a stream without bugs.
func (r *Runner) run(ctx context.Context, stop <-chan struct{}) error {
	pause := firstPause
	for {
		before, began := r.seen.saved.Load(), time.Now()
		err := r.attempt(ctx, stop)
		if over(stop) || ctx.Err() != nil {
			return r.stopped(err)
		}
		if err == nil {
			err = errors.New("the session ended without a reason")
		}
		if !r.passes(err) {
			r.board.set(Failed, err.Error())
			r.board.broke(err)
			return err
		}
		r.listenLonger(err)
		if r.seen.saved.Load() != before || time.Since(began) > longestPause || errors.Is(err, wal.ErrSlotBusy) || errors.Is(err, errRefused) {
			pause = firstPause // it worked, or others did, or we know more: this is a new disturbance
		}
		if !wait(ctx, stop, r.retry(err, pause)) {
			return r.stopped(nil)
		}
		pause = min(2*pause, longestPause)
	}
}

// passes says whether time may mend err.
func (r *Runner) passes(err error) bool {
	if errors.Is(err, wal.ErrDenied) && r.streamed {
		r.denied++
		return r.denied <= deniedTries
	}
	class := fault.Classify(err)
	return class == fault.Transient || class == fault.Stopped
}

// listenLonger doubles the silence that the next session bears: this one may have
// given up on a server that was at work on a large transaction of other tables, and
// no constant is enough for all of them.
func (r *Runner) listenLonger(err error) {
	if !errors.Is(err, wal.ErrLinkDead) {
		return
	}
	if r.config.Wal.Silence == 0 {
		r.config.Wal.Silence = wal.DefaultSilence
	}
	r.config.Wal.Silence = min(2*r.config.Wal.Silence, longestSilence)
}

// stopped is what Run ends with when it was asked to.
func (r *Runner) stopped(err error) error {
	class := fault.Classify(err)
	switch {
	case errors.Is(err, fault.ErrDrainTimeout): // first: what ended the drain is a cancelled context
		r.board.set(Failed, err.Error())
		return err
	case class == fault.Stopped:
		r.board.set(Stopped, "")
		return nil
	case class != fault.Transient:
		r.board.set(Failed, err.Error())
		return err
	}
	// The stop came while a session was being opened or was breaking anyway: what
	// was not confirmed is sent again after the next start.
	r.logger.Warn("stopped while not streaming", slog.String("error", err.Error()))
	r.board.set(Stopped, err.Error())
	return nil
}

// retry says why the next session must wait and for how long.
func (r *Runner) retry(err error, pause time.Duration) time.Duration {
	if errors.Is(err, wal.ErrSlotBusy) {
		r.standby(err)
		return standbyPause
	}
	jittered := pause/2 + r.config.Jitter(pause/2)
	r.board.set(Retrying, err.Error())
	r.board.broke(err)
	r.logger.Warn("session ended, another follows",
		slog.String("error", err.Error()), slog.Duration("pause", jittered))
	return jittered
}

// standby tells of a busy slot once for each holder, not once a second.
func (r *Runner) standby(err error) {
	if r.board.setStandby(err.Error()) {
		r.logger.Info("standby: another instance holds the slot, waiting to take over",
			slog.String("holder", err.Error()))
	}
}

// attempt opens a session and runs it to its end.
func (r *Runner) attempt(ctx context.Context, stop <-chan struct{}) error {
	opening, opened := untilStop(ctx, stop)
	s, err := r.open(opening)
	opened()
	if err != nil {
		return err
	}
	r.streamed, r.denied = true, 0
	r.board.begin(s)
	r.logger.Info("streaming", slog.String("slot", r.config.Wal.Slot),
		slog.String("from", s.saver.position.LSN.String()))
	if err = s.run(ctx, stop); fault.Classify(err) != fault.Bug {
		s.close(r.logger)
	}
	if s.aside != nil {
		err = s.aside.learn(err)
	}
	return err
}

// untilStop is a context that also ends when stop is closed; the function ends the
// goroutine that waits for it.
func untilStop(ctx context.Context, stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (r *Runner) closeStore() {
	if r.store == nil {
		return
	}
	if err := r.store.Close(); err != nil {
		r.logger.Warn("close the checkpoint store", slog.String("error", err.Error()))
	}
}
