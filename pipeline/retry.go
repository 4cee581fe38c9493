package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

const (
	// askInterval is how often a stream with parked rows looks what is asked of them.
	askInterval = time.Second

	// A retry sends pieces, so that a stop need not wait for all of it.
	retryRows  = 200
	retryBytes = 1 << 20
)

// clock says when to look what is asked of parked rows; never where none are parked.
func (a *aside) clock() (stop func(), ticks <-chan time.Time) {
	if a == nil || a.parked == nil {
		return func() {}, nil
	}
	ticker := time.NewTicker(askInterval)
	return ticker.Stop, ticker.C
}

// carryOut does what is asked of parked rows. The publisher calls it between two
// batches, so nothing else of an aggregate is sent while its rows are: not what comes
// later, which is parked as long as they are, and what came before is acked first.
//
// A row is noted as sent once the broker holds it. Who dies between the two sends it
// again at the next start, since what was asked for stands until it is done: it comes
// twice with the same position, and what follows it comes behind it.
func (a *aside) carryOut(ctx context.Context, stop <-chan struct{}) error {
	if a.parked == nil || len(a.parked.lines) == 0 {
		return nil
	}
	requests, err := a.parked.lot.Asked(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.logger.Warn("what is asked of parked rows is not known for now", slog.String("error", err.Error()))
		return nil
	}
	for _, r := range requests {
		if over(stop) {
			return nil
		}
		if err := a.grant(ctx, stop, r); err != nil {
			return err
		}
	}
	return nil
}

// errUnknownParked ends a session that does not know of rows in the lot. What an earlier
// one asked of the database may be carried out after this one has looked: its process was
// frozen, or the server went on with a statement whose client had gone. The next session
// knows them.
var errUnknownParked = errors.New("rows are parked that this session does not know of, by an earlier one or another instance")

// grant does what is asked of one aggregate.
func (a *aside) grant(ctx context.Context, stop <-chan struct{}, r wal.Request) error {
	p := a.parked
	if p.lines[string(r.Aggregate)] == nil {
		return errUnknownParked
	}
	dropped, err := p.lot.Drop(ctx, r.Aggregate)
	if err != nil {
		return err
	}
	for i := range dropped {
		p.remove(&dropped[i])
		a.told("parked row dropped", &dropped[i])
	}
	if len(dropped) > 0 {
		failpoint.Pass(failpoint.DropDone)
	}
	if r.Retry && a.caughtUp(r.Aggregate) {
		if err := a.retry(ctx, stop, r.Aggregate); err != nil {
			return err
		}
	}
	return a.unpark(ctx, r.Aggregate)
}

// caughtUp says whether all of an aggregate that comes before its first parked row was
// sent. A session begins before what was not acked, and reads it again first: parked
// rows that were sent now would come ahead of it. The request stands until then.
func (a *aside) caughtUp(aggregate []byte) bool {
	line, known := a.parked.lines[string(aggregate)]
	return known && line.since.Commit < a.read
}

// unpark lets an aggregate flow of which nothing is parked any more.
func (a *aside) unpark(ctx context.Context, aggregate []byte) error {
	p := a.parked
	left, err := p.lot.Rows(ctx, aggregate, wal.Place{Index: -1}, 1, 1)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		p.lines[string(aggregate)].since = left[0].Place
	} else {
		delete(p.lines, string(aggregate))
	}
	p.show(a.seen)
	return nil
}

// retry sends the parked rows of an aggregate in their order, up to one that cannot be
// sent still.
func (a *aside) retry(ctx context.Context, stop <-chan struct{}, aggregate []byte) error {
	if err := a.flush(ctx); err != nil {
		return err
	}
	if judge, ok := a.sink.(sink.Judge); ok {
		judge.Reconsider()
	}
	limit := 1 // the first is the one that could not be sent
	for after := (wal.Place{Index: -1}); !over(stop); limit = retryRows {
		if a.refusals.retryAlone {
			limit = 1
		}
		rows, err := a.parked.lot.Rows(ctx, aggregate, after, limit, retryBytes)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			a.refusals.retryAlone = false
			return nil
		}
		sent, err := a.sendParked(ctx, rows)
		if err != nil {
			return err
		}
		if sent < len(rows) {
			return nil
		}
		after = rows[len(rows)-1].Place
	}
	return nil
}

// sendParked sends parked rows until one cannot be, notes those that the broker holds and
// says how many they are.
func (a *aside) sendParked(ctx context.Context, rows []wal.ParkedRow) (sent int, err error) {
	messages, bad := a.again(ctx, rows)
	if bad != nil && !ofTheRow(bad) {
		return 0, bad
	}
	if sent = len(messages); sent > 0 {
		if err := a.deliver(ctx, messages, rows); err != nil {
			return 0, err
		}
	}
	if bad != nil {
		return sent, a.refuse(ctx, &rows[sent], bad)
	}
	return sent, nil
}

// deliver sends messages and notes their rows as sent once the broker holds them.
func (a *aside) deliver(ctx context.Context, messages []sink.Message, rows []wal.ParkedRow) error {
	err := a.sink.Send(ctx, messages, func(err error) {
		defer fault.Catch(a.halt)
		if err != nil {
			a.tracker.Fail(err)
		}
	})
	if err == nil {
		err = a.flush(ctx)
	}
	if err != nil {
		return a.explainRetry(ctx, rows[:len(messages)], err)
	}
	failpoint.Pass(failpoint.RetryAcked)
	last := &rows[len(messages)-1]
	if err := a.parked.lot.Settle(ctx, last.Aggregate, last.Place); err != nil {
		return err
	}
	for i := range messages {
		a.parked.remove(&rows[i])
		a.told("parked row sent", &rows[i])
	}
	failpoint.Pass(failpoint.RetrySettled)
	return nil
}

// explainRetry notes what a refusal after sending says of parked rows. One that was sent
// alone is refused still, and the session that ends now is not followed by another try.
// Of several it may be any: the next session, which finds the same request, sends them
// one at a time.
func (a *aside) explainRetry(ctx context.Context, rows []wal.ParkedRow, err error) error {
	why, refused := errors.AsType[*sink.RefusalError](err)
	if !refused {
		return err
	}
	a.refusals.retried = why
	if len(rows) > 1 {
		a.refusals.retryAlone = true
		return err
	}
	// The session is ending, and with it ctx.
	return errors.Join(err, a.refuse(context.WithoutCancel(ctx), &rows[0], why))
}

// refuse notes that a row cannot be sent still. Its aggregate stays parked from it on.
func (a *aside) refuse(ctx context.Context, row *wal.ParkedRow, why error) error {
	row.Cause, row.Reason = causeOf(why), oneLine(why)
	if err := a.parked.lot.Refuse(ctx, row, row.Cause, row.Reason); err != nil {
		return err
	}
	a.told("parked row cannot be sent still", row)
	failpoint.Pass(failpoint.RetryRefused)
	return nil
}

// again makes the messages of parked rows, up to one that cannot be sent.
func (a *aside) again(ctx context.Context, rows []wal.ParkedRow) (messages []sink.Message, bad error) {
	var shape *wal.Shape
	for i := range rows {
		row, err := a.rowOf(&rows[i])
		if err != nil {
			return messages, err
		}
		// A mapper prepares for each shape anew, and knows them apart by where they are.
		if sameShape(shape, row.Shape) {
			row.Shape = shape
		}
		shape = row.Shape
		if messages, bad = a.mapper.Map([]wal.Row{row}, messages); bad != nil {
			return messages, bad
		}
		if judge, ok := a.sink.(sink.Judge); ok {
			if _, bad = judge.Judge(ctx, messages[i:]); bad != nil {
				return messages[:i], bad
			}
		}
	}
	return messages, nil
}

func sameShape(a, b *wal.Shape) bool {
	if a == nil || b == nil {
		return a == b
	}
	textA, errA := json.Marshal(a)
	textB, errB := json.Marshal(b)
	return errors.Join(errA, errB) == nil && bytes.Equal(textA, textB)
}

// rowOf is a parked row as the stream would read it now. A column that was not read when
// it was parked is NULL.
func (a *aside) rowOf(r *wal.ParkedRow) (wal.Row, error) {
	if r.Schema == "" && r.Table == "" {
		return a.messageOf(r)
	}
	at := slices.IndexFunc(a.tables, func(t wal.Table) bool { return t.Schema == r.Schema && t.Name == r.Table })
	if at < 0 {
		return wal.Row{}, fault.NewData(fmt.Errorf("table %s.%s is not streamed", r.Schema, r.Table), "name it with --table")
	}
	columns := a.tables[at].Columns
	row := wal.Row{
		Commit: r.Commit, Index: r.Index, XID: r.XID, Time: r.Time, Table: at, Shape: r.Shape.Reading(columns), Columns: make([][]byte, len(columns)),
	}
	for i, c := range columns {
		if from := slices.Index(r.Names, c.Name); from >= 0 {
			row.Columns[i] = r.Columns[from]
		}
	}
	return row, nil
}

// messageOf is rowOf for a logical message.
func (a *aside) messageOf(r *wal.ParkedRow) (wal.Row, error) {
	at := len(a.tables)
	if !a.plan.Messages() {
		return wal.Row{}, fault.NewData(errors.New("logical messages are not streamed"), "start the stream with --message-prefix")
	}
	return wal.Row{Commit: r.Commit, Index: r.Index, XID: r.XID, Time: r.Time, Table: at, Columns: r.Columns}, nil
}
