// Package outbox turns an outbox row into a message: its topic, key, headers and
// value. It is pure: it knows columns and messages, neither Postgres nor brokers.
//
// A Config says what the columns mean and in which Format events are written; NewPlan
// checks it against the tables, and a Mapper maps rows by the plan.
package outbox

import (
	"errors"
	"fmt"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// HeaderPrefix marks the headers that are ours. An entry of the headers column
// that begins with it, in any case, is left out: a row cannot forge a position,
// and a service that copies the headers of an event it received stays harmless.
const HeaderPrefix = "outboxcdc-"

// PositionHeader names the event for good: 16 hexadecimal digits of the commit
// LSN, a slash, and the row's index in its transaction. It is equal on every
// delivery, and its order within a topic and key is the order of the events.
const PositionHeader = HeaderPrefix + "position"

// ReplayHeader is on events that were sent by a replay or a recovery and not by a
// stream. Its value names the run.
const ReplayHeader = HeaderPrefix + "replay"

// Mapper maps the rows of a plan's tables. It is used by one goroutine.
type Mapper struct {
	plan   *Plan
	tables []mappedTable
	draft  Draft
}

// mappedTable is a table with what is known of it so far.
type mappedTable struct {
	*tablePlan
	topics topicNames
	bound  *binding // to the shape of its latest rows; nil before the first
}

// NewMapper makes a mapper for rows of the tables that plan gives.
func NewMapper(plan *Plan) *Mapper {
	m := &Mapper{plan: plan, tables: make([]mappedTable, len(plan.tables))}
	for i := range plan.tables {
		m.tables[i].tablePlan = &plan.tables[i]
	}
	return m
}

// Map appends a message for each row to dst. Key, value and header values are the
// rows' own bytes and live as long as they do, unless the format writes them anew; the
// rest is allocated once a call. At a row that cannot be mapped it stops, with the
// messages of the rows before it and a data error that names the row and never shows
// its values, or an operator error when its table is at fault.
func (m *Mapper) Map(rows []wal.Row, dst []sink.Message) ([]sink.Message, error) {
	m.draft.begin(len(rows))
	for i := range rows {
		message, err := m.message(&rows[i])
		if err != nil {
			return dst, m.explain(&rows[i], err)
		}
		dst = append(dst, message)
	}
	return dst, nil
}

// errNoAggregate is a row without a key: it would have no partition of its own,
// and so no order.
var errNoAggregate = errors.New("it is null or empty")

func (m *Mapper) message(row *wal.Row) (sink.Message, error) {
	t := &m.tables[row.Table]
	if err := m.bind(t, row); err != nil {
		return sink.Message{}, err
	}
	d := &m.draft
	if t.whole {
		return m.whole(t, row)
	}
	columns, err := t.bound.decode(d, row)
	if err != nil {
		return sink.Message{}, err
	}
	if err := t.start(d, row, columns); err != nil {
		return sink.Message{}, err
	}
	if d.message.Topic, err = t.topics.of(t.tablePlan, columns); err != nil {
		return sink.Message{}, err
	}
	if err := t.bound.encoder.Encode(d); err != nil {
		return sink.Message{}, err
	}
	if m.plan.position && row.Commit != 0 { // a row that was read from the table has no place in the log
		d.AddHeader(PositionHeader, d.position())
	}
	return d.finish(), nil
}

// whole lets a Whole format make the message.
func (m *Mapper) whole(t *mappedTable, row *wal.Row) (sink.Message, error) {
	d := &m.draft
	d.Row, d.Columns, d.plan, d.topics, d.at = row, row.Columns, t.tablePlan, &t.topics, len(d.headers)
	d.message = sink.Message{Time: row.Time, Keyless: true}
	if err := t.bound.encoder.Encode(d); err != nil {
		return sink.Message{}, err
	}
	if m.plan.position {
		d.AddHeader(PositionHeader, d.position())
	}
	return d.finish(), nil
}

// bind prepares for the shape of row's table, once a shape.
func (m *Mapper) bind(t *mappedTable, row *wal.Row) error {
	if t.bound != nil && t.bound.shape == row.Shape {
		return nil
	}
	b, err := t.newBinding(row.Shape, m.plan.format)
	if err != nil {
		return err
	}
	t.bound = b
	return nil
}

// explain adds the row's name, and the class unless the error has one.
func (m *Mapper) explain(row *wal.Row, err error) error {
	where := func(err error) error {
		return fmt.Errorf("map row %d of transaction %d at %v in %s: %w", row.Index, row.XID, row.Commit, m.tables[row.Table].name, err)
	}
	if known, ok := errors.AsType[*fault.Error](err); ok {
		return &fault.Error{Class: known.Class, Err: where(known.Err), Advice: known.Advice}
	}
	return fault.NewData(where(err),
		"the stream stands before this row's transaction and nothing of it is lost; docs/runbook.md, \"A row cannot be sent\", says how to pass it")
}
