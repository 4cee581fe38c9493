package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// aside is the publisher's way where a stream is not to halt at rows that cannot be
// sent: it finds them before they are sent where that can be, and lets all others pass.
// A session that halts at such rows has none, and pays nothing for this.
type aside struct {
	plan     *outbox.Plan
	mapper   *outbox.Mapper
	sink     sink.Sink
	tracker  *checkpoint.Tracker
	refusals *refusals
	tables   []wal.Table // logical messages come behind them
	seen     *counters
	logger   *slog.Logger
	halt     func(bug error)
	parked   *parked // nil where such rows are skipped

	// Of the batch at hand.
	messages []sink.Message
	origins  []int // of each message, the row that it was made of

	reached wal.LSN // commit of the last row that was sent
	read    wal.LSN // rows that were committed before it were sent, in this session or an earlier one
}

// sort makes the messages of a batch, without the rows that cannot be sent. Like
// session.translate it gives where the batch ends for the ledger and, behind an error
// that ends the session, only what stands before the bad row's transaction. What it
// parks is durable when it returns.
func (a *aside) sort(ctx context.Context, batch wal.Batch, begun wal.LSN) (messages []sink.Message, end wal.LSN, err error) {
	a.messages, a.origins = a.messages[:0], a.origins[:0]
	end = batch.End
	for at := 0; at < len(batch.Rows) && err == nil; at++ {
		var n int
		n, bad, failed := a.take(ctx, batch.Rows, at)
		if at += n; failed == nil && at < len(batch.Rows) {
			failed = a.divert(ctx, batch.Rows, at, bad)
		}
		if failed != nil {
			var good int
			good, end = before(batch, at, begun)
			a.keep(good)
			err = failed
		}
	}
	if kept := a.save(ctx); kept != nil {
		a.keep(0)
		return a.messages, 0, kept
	}
	a.parked.show(a.seen)
	if n := len(batch.Rows); n > 0 && err == nil {
		a.read = max(a.read, batch.Rows[n-1].Commit)
	}
	if err == nil {
		a.read = max(a.read, batch.End)
	}
	return a.messages, end, err
}

// take makes the messages of rows from the one at at, and says of how many: up to the
// end, or to one that is not to be sent. When that is one that cannot be, bad says why.
// The error is one that ends the session.
func (a *aside) take(ctx context.Context, rows []wal.Row, at int) (n int, bad, err error) {
	run := a.ordinary(rows[at:])
	known := len(a.messages)
	a.messages, bad = a.mapper.Map(rows[at:at+run], a.messages)
	if judge, ok := a.sink.(sink.Judge); ok {
		fit, why := judge.Judge(ctx, a.messages[known:])
		if why != nil {
			a.messages, bad = a.messages[:known+fit], why
		}
	}
	for i := range a.messages[known:] {
		a.origins = append(a.origins, at+i)
	}
	n = len(a.messages) - known
	if bad != nil && !ofTheRow(bad) {
		return n, nil, bad
	}
	return n, bad, nil
}

// ordinary is how many rows come before one that is known not to be for sending: the
// broker refused it in an earlier session, or it is parked or to be.
func (a *aside) ordinary(rows []wal.Row) int {
	if len(a.refusals.blamed) == 0 && a.parked.empty() {
		return len(rows)
	}
	for i := range rows {
		at := rows[i].Place()
		if _, blamed := a.refusals.blamed[at]; blamed || a.parked.holds(at, a.mapper.Aggregate(&rows[i])) {
			return i
		}
	}
	return len(rows)
}

// divert does what is asked for with a row that is not sent; bad is why it cannot be,
// unless that was known before.
func (a *aside) divert(ctx context.Context, rows []wal.Row, at int, bad error) error {
	row := &rows[at]
	if refused, known := a.refusals.blamed[row.Place()]; known && bad == nil {
		bad = refused
	}
	if a.parked == nil {
		a.pass(row, bad)
		return nil
	}
	if a.parked.isSettled(row.Place()) {
		return nil
	}
	letter, err := a.park(ctx, rows, at, bad)
	if err == nil {
		a.messages, a.origins = append(a.messages, letter), append(a.origins, at)
	}
	return err
}

// ofTheRow says whether an error is of one row, so that others may be sent. A table that
// cannot be mapped at all is the operator's, and so is a broker that takes nothing.
func ofTheRow(err error) bool {
	_, refused := errors.AsType[*sink.RefusalError](err)
	return refused || fault.Classify(err) == fault.Data
}

// pass does what is asked for with a row that cannot be sent.
func (a *aside) pass(row *wal.Row, why error) {
	a.seen.skipped.Add(1)
	a.tell("row skipped", row, why)
}

// tell logs what became of a row, for whoever looks for it later. Nothing of what it
// holds is shown but its id.
func (a *aside) tell(what string, row *wal.Row, why error) {
	a.logger.Warn(what, //nolint:sloglint // the callers' texts are constants
		slog.String("position", row.Place().String()), slog.String("table", a.plan.Name(row.Table)),
		slog.String("id", string(a.plan.Value(row, outbox.RoleID))), slog.String("reason", oneLine(why)))
}

// keep leaves the messages of the first rows, and of the rows to park those among them.
func (a *aside) keep(rows int) {
	a.parked.keep(rows)
	for i, origin := range a.origins {
		if origin >= rows {
			a.messages, a.origins = a.messages[:i], a.origins[:i]
			return
		}
	}
}

// send hands what sort gave to the sink. What may be a message that the broker refused
// before goes alone.
func (a *aside) send(ctx context.Context, rows []wal.Row, ack sink.Ack) error {
	if n := len(a.origins); n > 0 {
		a.reached = rows[a.origins[n-1]].Commit
	}
	from := 0
	for i := range a.messages {
		row := &rows[a.origins[i]]
		if !a.refusals.suspicious(row, a.messages[i].Topic) {
			continue
		}
		if err := a.sink.Send(ctx, a.messages[from:i], ack); err != nil {
			return err
		}
		if err := a.sendAlone(ctx, a.messages[i:i+1], row, ack); err != nil {
			return err
		}
		from = i + 1
	}
	return a.sink.Send(ctx, a.messages[from:], ack)
}

// sendAlone sends one message while no other is on its way, so that a refusal is its own.
func (a *aside) sendAlone(ctx context.Context, message []sink.Message, row *wal.Row, ack sink.Ack) error {
	if err := a.flush(ctx); err != nil {
		return err
	}
	err := a.sink.Send(ctx, message, ack)
	if err == nil {
		err = a.flush(ctx)
	}
	if why, ok := errors.AsType[*sink.RefusalError](err); ok {
		a.refusals.blame(row.Place(), why)
	}
	return err
}

// flush waits until nothing is on its way.
func (a *aside) flush(ctx context.Context) error {
	err := a.sink.Flush(ctx)
	if failed := a.tracker.Err(); failed != nil { // what a flush that is cut short ends with
		return failed
	}
	return err
}

// learn takes from the end of the session what the next one must know of a message that
// the broker refused. A dead letter has no other place to go: its refusal is the
// operator's.
func (a *aside) learn(err error) error {
	why, refused := errors.AsType[*sink.RefusalError](err)
	if refused && a.parked != nil && why.Topic == a.parked.letter {
		return fault.NewOperator(fmt.Errorf("the topic of dead letters does not take one: %s", oneLine(why.Err)),
			"mend the topic, or name another with --dead-letter-topic; the stream stands before the row")
	}
	return a.refusals.learn(err, a.reached, a.logger)
}
