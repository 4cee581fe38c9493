package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Source gives the log in order and forgets what is confirmed; wal.Stream is the
// one of a live slot.
type Source interface {
	// Run passes batches on until stop is closed, closes out, and keeps the source
	// alive until ctx ends.
	Run(ctx context.Context, stop <-chan struct{}, out chan<- wal.Batch) error
	// Confirm allows the source to forget what ends at or before lsn.
	Confirm(lsn wal.LSN)
}

// session is one connection's life: read, publish, confirm.
//
//	source.Run ──batches──▶ publish ──▶ sink ──ack──▶ tracker ──▶ save ──▶ source.Confirm
//
// A session ends by itself at the first error and on request at a stop, and both
// end in the same order: stop reading, let what was sent be acked, save, confirm,
// hang up. Only a failed message skips the wait, since nothing behind it may
// count.
type session struct {
	source  Source
	mapper  *outbox.Mapper
	sink    sink.Sink
	tracker *checkpoint.Tracker
	saver   *saver
	budget  *budget
	drain   time.Duration
	queue   int                             // batches between reader and publisher
	finite  bool                            // the source ends by itself, and the session then ends as by a stop
	watch   func(ctx context.Context) error // looks at the slot from outside; nil to not look
	trail   func(ctx context.Context) error // keeps the replay window; nil to keep none
	sweep   func(ctx context.Context) error // deals with rows that were sent; nil to leave them
	aside   *aside                          // deals with rows that cannot be sent; nil to halt at them
	seen    *counters

	read     func() wal.LSN // what the source has given
	draining func()         // called when a stop begins
	bugs     chan error     // the first bug that was found in the session; holds one
}

const (
	brokenPatience  = 5 * time.Second
	lastSaveTimeout = 5 * time.Second
)

// errStop is why a session ends that was asked to.
var errStop = errors.New("stop was asked for")

// run works until stop is closed, ctx ends or something fails. It returns nil
// after a stop that delivered everything that was sent, fault.ErrDrainTimeout
// after one that did not, and else the first error.
//
// After a bug it returns at once, and nothing is saved or confirmed any more. It does
// not wait for its goroutines then: one that panicked may have left a lock behind, and
// the process is about to end.
func (s *session) run(ctx context.Context, stop <-chan struct{}) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	ended := make(chan error, 1)
	go func() { ended <- s.guard(func() error { return s.work(ctx, stop) }) }()
	select {
	case err := <-ended:
		select {
		case err = <-s.bugs:
		default:
		}
		return err
	case bug := <-s.bugs:
		return bug
	}
}

// work is run for a session without bugs.
func (s *session) work(ctx context.Context, stop <-chan struct{}) error {
	connected, hangUp := context.WithCancel(ctx) // ends the connection, last of all
	defer hangUp()
	working, finish := context.WithCancelCause(connected) // ends reading and sending
	defer finish(nil)
	sending, abandon := context.WithCancel(connected) // ends a Send that blocks
	defer abandon()

	batches := make(chan wal.Batch, s.queue)
	published := make(chan struct{})
	var reader, others errgroup.Group
	watchOver := func(part func() error) error {
		err := s.guard(part)
		if err != nil { // a part that ends in order ends nobody else
			finish(err)
		}
		return err
	}
	reader.Go(func() error {
		return watchOver(func() error { return s.source.Run(connected, working.Done(), batches) })
	})
	others.Go(func() error {
		defer close(published)
		return watchOver(func() error { return s.publish(sending, working.Done(), batches) })
	})
	others.Go(func() error { return watchOver(func() error { return s.saver.run(working) }) })
	others.Go(func() error { return watchOver(func() error { return s.look(working) }) })
	if s.trail != nil {
		others.Go(func() error { return watchOver(func() error { return s.trail(working) }) })
	}
	if s.sweep != nil {
		others.Go(func() error { return watchOver(func() error { return s.sweep(working) }) })
	}

	var exhausted <-chan struct{}
	if s.finite {
		exhausted = published
	}
	select {
	case <-stop:
		s.draining()
		finish(errStop)
	case <-exhausted: // an error of the publisher came before, and remains the cause
		finish(errStop)
	case <-s.tracker.Failed():
		finish(s.guard(s.tracker.Err))
		abandon()
	case <-working.Done():
	}
	cause := context.Cause(working)

	cutOff := time.AfterFunc(s.patience(cause), abandon)
	defer cutOff.Stop()
	<-published
	flushed := s.guard(func() error { return s.flush(sending) })
	failpoint.Pass(failpoint.StopFlushed)
	others.Wait() //nolint:errcheck // the first error is the cause
	saved := s.lastSave(connected)
	failpoint.Pass(failpoint.StopSaved)
	hangUp()
	// A finite source that broke closes its batches before it can say so.
	if err := reader.Wait(); s.finite && err != nil && errors.Is(cause, errStop) {
		return err
	}
	return outcome(cause, flushed, saved)
}

// patience is how long a session waits for its last acks. One that broke does not
// keep the next one waiting: what is not acked in time is sent again.
func (s *session) patience(cause error) time.Duration {
	if errors.Is(cause, errStop) {
		return s.drain
	}
	return min(s.drain, brokenPatience)
}

// lastSave saves what the end of a session found acked. A stop that cannot is not one in
// order: the next start sends again what was sent. One of an instance that has been
// overtaken is: the other has sent it all.
func (s *session) lastSave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lastSaveTimeout)
	defer cancel()
	err := s.saver.save(ctx)
	if fault.Classify(err) == fault.Transient && !errors.Is(err, checkpoint.ErrBackwards) && s.saver.behind() {
		return errors.Join(fault.ErrDrainTimeout, err)
	}
	return err
}

// outcome is what a session ends with: its cause, unless it was asked to stop and
// could not do so cleanly.
func outcome(cause, flushed, saved error) error {
	switch {
	case !errors.Is(cause, errStop):
		return cause
	case flushed != nil:
		return errors.Join(fault.ErrDrainTimeout, flushed)
	default:
		return saved
	}
}

// publish maps and sends each batch. The ledger learns of it before the sink does.
func (s *session) publish(ctx context.Context, stop <-chan struct{}, batches <-chan wal.Batch) error {
	var messages []sink.Message
	clock, ask := s.aside.clock()
	defer clock()
	for {
		select {
		case batch, open := <-batches:
			// What is still queued was not sent, and the next session reads it again.
			if !open || over(stop) {
				return nil
			}
			if err := s.tracker.Err(); err != nil {
				return err
			}
			if err := s.budget.acquire(ctx, batch.Bytes()); err != nil {
				return err
			}
			var err error
			messages, err = s.publishBatch(ctx, batch, messages[:0])
			if err != nil {
				return err
			}
		case <-ask:
			if err := s.aside.carryOut(ctx, stop); err != nil {
				return err
			}
		}
	}
}

func (s *session) publishBatch(ctx context.Context, batch wal.Batch, messages []sink.Message) ([]sink.Message, error) {
	failpoint.Pass(failpoint.AfterReceive)
	messages, end, bad := s.translate(ctx, batch, messages)
	s.seen.sent(batch, messages)
	s.saver.delivered.sent.add(batch.Rows)
	batch.Hold()
	n, committed := len(messages), oldest(batch)
	if rows := len(batch.Rows); rows > 0 {
		s.saver.read.Store(uint64(batch.Rows[rows-1].Commit))
	}
	ticket := s.tracker.Begin(end, n, func() {
		s.seen.acked(n, committed)
		s.budget.release(batch.Release())
		failpoint.Pass(failpoint.AfterAck)
	})
	ack := func(err error) {
		defer fault.Catch(s.halt)
		ticket.Ack(err)
	}
	if err := s.send(ctx, batch, messages, ack); err != nil {
		return messages, fmt.Errorf("send: %w", err)
	}
	failpoint.Pass(failpoint.AfterSend)
	return messages, bad
}

// translate makes the messages of a batch and gives where it ends for the ledger. With
// an error, which ends the session, both are of the transactions before that of the
// first bad row, so that they are confirmed and not sent again at each start until
// somebody has mended the row.
func (s *session) translate(ctx context.Context, batch wal.Batch, messages []sink.Message) ([]sink.Message, wal.LSN, error) {
	if s.aside != nil {
		return s.aside.sort(ctx, batch, s.tracker.Begun().LSN)
	}
	messages, bad := s.mapper.Map(batch.Rows, messages)
	if bad == nil {
		return messages, batch.End, nil
	}
	good, end := before(batch, len(messages), s.tracker.Begun().LSN)
	return messages[:good], end, bad
}

func (s *session) send(ctx context.Context, batch wal.Batch, messages []sink.Message, ack sink.Ack) error {
	if s.aside != nil {
		return s.aside.send(ctx, batch.Rows, ack)
	}
	return s.sink.Send(ctx, messages, ack)
}

// oldest is when the first row of a batch was committed; zero when it has none.
func oldest(batch wal.Batch) time.Time {
	if len(batch.Rows) == 0 {
		return time.Time{}
	}
	return batch.Rows[0].Time
}

// before is how many rows of a batch come before the transaction of a bad one, and where
// they end: where the batch does or, when that is behind it, at the bad row's commit
// record, and a position there makes the server send that transaction again, whole. The
// end may have come in this batch and the rows in an earlier one; up to begun everything
// is in the ledger already. A bad message outside of a transaction begins nobody knows
// where, so what is before it is sent, and confirmed another time.
func before(batch wal.Batch, bad int, begun wal.LSN) (good int, end wal.LSN) {
	if batch.Rows[bad].Alone {
		return bad, 0
	}
	commit := batch.Rows[bad].Commit
	for good = bad; good > 0 && batch.Rows[good-1].Commit == commit; {
		good--
	}
	if end = min(batch.End, commit); end <= begun {
		return 0, 0
	}
	return good, end
}

// flush waits until what was sent is acked, unless something failed.
func (s *session) flush(ctx context.Context) error {
	if err := s.tracker.Err(); err != nil {
		return err
	}
	if err := s.sink.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return s.tracker.Err()
}

func (s *session) look(ctx context.Context) error {
	if s.watch == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.watch(ctx)
}

func over(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// close lets go of the broker. What is not acked by now fails, and is sent again by
// the next session.
func (s *session) close(logger *slog.Logger) {
	if err := s.sink.Close(); err != nil {
		logger.Warn("close the sink", slog.String("error", err.Error()))
	}
	if err := s.aside.close(); err != nil {
		logger.Debug("close the connection to the parked rows", slog.String("error", err.Error()))
	}
}
