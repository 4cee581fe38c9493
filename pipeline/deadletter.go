package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Headers of a dead letter, beside the position and what of the row they can hold. All
// are ours: no row can set them.
const (
	letterCause   = outbox.HeaderPrefix + "cause"   // mapping, refused or behind
	letterReason  = outbox.HeaderPrefix + "reason"  // a sentence without values
	letterTable   = outbox.HeaderPrefix + "table"   // of the row
	letterSlot    = outbox.HeaderPrefix + "slot"    // of the stream
	letterHeaders = outbox.HeaderPrefix + "headers" // the headers column
	letterOmitted = outbox.HeaderPrefix + "omitted" // what was left out, since the topic does not take it
)

// letterOf is the dead letter of a row: its payload under the aggregate's id, as the row
// has them, and in headers what the row is and why it is parked. It is a copy for people
// and programs that want to know at once; the row itself is in the lot. So what the
// topic does not take is left out. What the broker refused once may be refused again, so
// that goes without its value.
func (a *aside) letterOf(ctx context.Context, row *wal.Row, r *wal.ParkedRow) (sink.Message, error) {
	m := sink.Message{Topic: a.parked.letter, Key: r.ID, Value: a.plan.Value(row, outbox.RolePayload), Time: row.Time}
	if len(m.Key) == 0 {
		m.Key = []byte(r.String())
	}
	m.Headers = a.letterHeaders(row, r)
	if headers := a.plan.Value(row, outbox.RoleHeaders); headers != nil {
		m.Headers = append(m.Headers, sink.Header{Key: letterHeaders, Value: headers})
	}
	if r.Cause == causeRefused && m.Value != nil {
		m = a.without(m, row, r)
	}
	judge, ok := a.sink.(sink.Judge)
	if !ok {
		return m, nil
	}
	_, err := judge.Judge(ctx, []sink.Message{m})
	if tooMuch(err) {
		m = a.without(m, row, r)
		m.Key = []byte(r.String())
		_, err = judge.Judge(ctx, []sink.Message{m})
	}
	if _, refused := errors.AsType[*sink.RefusalError](err); refused {
		err = fault.NewOperator(fmt.Errorf("the topic of dead letters does not take one: %s", oneLine(err)),
			"mend the topic, or name another with --dead-letter-topic; the stream stands before the row")
	}
	return m, err
}

// tooMuch says whether a message was refused for what it holds.
func tooMuch(err error) bool {
	_, refused := errors.AsType[*sink.RefusalError](err)
	return refused && fault.Classify(err) == fault.Data
}

// without leaves out what a message may be too large with.
func (a *aside) without(m sink.Message, row *wal.Row, r *wal.ParkedRow) sink.Message {
	m.Value = nil
	m.Headers = append(a.letterHeaders(row, r), sink.Header{Key: letterOmitted, Value: fmt.Appendf(nil, "%d bytes; outboxcdc dlq show --position %v", r.Bytes(), r.Place)})
	return m
}

func (a *aside) letterHeaders(row *wal.Row, r *wal.ParkedRow) []sink.Header {
	headers := []sink.Header{
		{Key: outbox.PositionHeader, Value: []byte(r.String())},
		{Key: letterCause, Value: []byte(r.Cause)},
		{Key: letterReason, Value: []byte(r.Reason)},
		{Key: letterTable, Value: []byte(a.plan.Name(row.Table))},
		{Key: letterSlot, Value: []byte(a.parked.slot)},
	}
	for _, role := range []outbox.Role{outbox.RoleID, outbox.RoleAggregateType, outbox.RoleEventType} {
		const most = 1024 // a name; what is longer makes no header of a letter too large
		if value := a.plan.Value(row, role); value != nil && len(value) <= most {
			headers = append(headers, sink.Header{Key: string(role), Value: value})
		}
	}
	return headers
}

// told logs what became of a row in the lot: one line each, for whoever must account for
// it. Nothing of what it holds is shown but its id.
func (a *aside) told(what string, r *wal.ParkedRow) {
	a.logger.Warn(what, //nolint:sloglint // the callers' texts are constants
		slog.String("position", r.String()), slog.String("table", r.Source()), slog.String("id", string(r.Event)),
		slog.String("cause", r.Cause), slog.String("reason", r.Reason))
}
