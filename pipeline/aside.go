package pipeline

import (
	"context"
	"errors"
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
	seen     *counters
	logger   *slog.Logger

	// Of the batch at hand.
	messages []sink.Message
	origins  []int // of each message, the row that it was made of

	reached wal.LSN // commit of the last row that was sent
}

// sort makes the messages of a batch, without the rows that cannot be sent. Like
// session.translate it gives where the batch ends for the ledger and, behind an error
// that ends the session, only what stands before the bad row's transaction.
func (a *aside) sort(ctx context.Context, batch wal.Batch, begun wal.LSN) (messages []sink.Message, end wal.LSN, err error) {
	a.messages, a.origins = a.messages[:0], a.origins[:0]
	for at := 0; at < len(batch.Rows); at++ {
		n, bad, err := a.take(ctx, batch.Rows, at)
		at += n
		switch {
		case err != nil:
			good, end := before(batch, at, begun)
			a.keep(good)
			return a.messages, end, err
		case bad != nil:
			a.pass(&batch.Rows[at], bad)
		}
	}
	return a.messages, batch.End, nil
}

// take makes the messages of rows from the one at at, and says of how many: up to the
// end, or to one that cannot be sent and is told with the reason. The error is one that
// ends the session.
func (a *aside) take(ctx context.Context, rows []wal.Row, at int) (n int, bad, err error) {
	run := a.unblamed(rows[at:])
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
	if bad == nil && at+n < len(rows) {
		bad = a.refusals.blamed[spotOf(&rows[at+n])]
	}
	if bad != nil && !ofTheRow(bad) {
		return n, nil, bad
	}
	return n, bad, nil
}

// unblamed is how many rows come before one that the broker refused in an earlier
// session.
func (a *aside) unblamed(rows []wal.Row) int {
	if len(a.refusals.blamed) == 0 {
		return len(rows)
	}
	for i := range rows {
		if _, known := a.refusals.blamed[spotOf(&rows[i])]; known {
			return i
		}
	}
	return len(rows)
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
		slog.String("position", spotOf(row).String()), slog.String("table", a.plan.Name(row.Table)),
		slog.String("id", string(a.plan.Value(row, outbox.RoleID))), slog.String("reason", oneLine(why)))
}

// keep leaves the messages of the first rows.
func (a *aside) keep(rows int) {
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
		a.refusals.blame(spotOf(row), why)
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
