// Package outbox turns an outbox row into a message: its topic, key, headers and
// value. It is pure: it knows columns and messages, neither Postgres nor brokers.
package outbox

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

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

// maxHeaders bounds the entries of one headers column.
const maxHeaders = 1000

// Where a row's columns stand; the order of Columns.
const (
	columnID = iota
	columnAggregateType
	columnAggregateID
	columnEventType
	columnPayload
	columnHeaders
)

// Columns are the columns that a Mapper needs, by name. A table may have others.
func Columns() []wal.Column {
	return []wal.Column{
		columnID:            {Name: "id"},
		columnAggregateType: {Name: "aggregate_type", Required: true},
		columnAggregateID:   {Name: "aggregate_id", Required: true},
		columnEventType:     {Name: "event_type", Required: true},
		columnPayload:       {Name: "payload", Required: true},
		columnHeaders:       {Name: "headers"},
	}
}

// Mapper maps the rows of tables that were read with Columns. It is used by one
// goroutine.
type Mapper struct {
	tables []wal.Table
	topic  Template
	topics map[string]string // what the template gave for a value, to make each name once
}

// maxTopicNames bounds the names that a Mapper remembers.
const maxTopicNames = 10_000

// NewMapper makes a mapper for rows of tables. The tables are only named in
// errors.
func NewMapper(topic Template, tables []wal.Table) *Mapper {
	return &Mapper{tables: tables, topic: topic, topics: map[string]string{}}
}

// Map appends a message for each row to dst. Key, value and header values are the
// rows' own bytes and live as long as they do; the rest is allocated once a call.
// At a row that cannot be mapped it stops, with the messages of the rows before it
// and a data error that names the row and never shows its values.
func (m *Mapper) Map(rows []wal.Row, dst []sink.Message) ([]sink.Message, error) {
	b := builder{
		headers: make([]sink.Header, 0, 4*len(rows)),
		text:    make([]byte, 0, positionBytes*len(rows)),
	}
	for i := range rows {
		message, err := m.message(&rows[i], &b)
		if err != nil {
			return dst, m.explain(&rows[i], err)
		}
		dst = append(dst, message)
	}
	return dst, nil
}

// errNoAggregate is a row without a key: it would have no partition of its own,
// and so no order.
var errNoAggregate = errors.New("aggregate_id is null or empty")

func (m *Mapper) message(row *wal.Row, b *builder) (sink.Message, error) {
	columns := row.Columns
	switch {
	case len(columns[columnAggregateID]) == 0:
		return sink.Message{}, errNoAggregate
	case columns[columnAggregateType] == nil:
		return sink.Message{}, errors.New("aggregate_type is null")
	case columns[columnEventType] == nil:
		return sink.Message{}, errors.New("event_type is null")
	}
	topic, err := m.topicOf(columns)
	if err != nil {
		return sink.Message{}, err
	}
	headers, err := b.rowHeaders(row)
	if err != nil {
		return sink.Message{}, err
	}
	return sink.Message{
		Topic:   topic,
		Key:     columns[columnAggregateID],
		Value:   columns[columnPayload],
		Headers: headers,
		Time:    row.Time,
	}, nil
}

func (m *Mapper) topicOf(columns [][]byte) (string, error) {
	if m.topic.column < 0 {
		return m.topic.before, nil
	}
	value := columns[m.topic.column]
	if topic, ok := m.topics[string(value)]; ok {
		return topic, nil
	}
	topic, err := m.topic.name(string(value))
	if err != nil {
		return "", err
	}
	if len(m.topics) >= maxTopicNames {
		clear(m.topics)
	}
	m.topics[string(value)] = topic
	return topic, nil
}

func (m *Mapper) explain(row *wal.Row, err error) error {
	t := m.tables[row.Table]
	return fault.NewData(
		fmt.Errorf("map row %d of transaction %d at %v in %s.%s: %w", row.Index, row.XID, row.Commit, t.Schema, t.Name, err),
		"the stream stands before this row's transaction and nothing of it is lost; README, \"When a row stops the stream\", says how to pass it")
}

// Template makes a topic's name from a row: literal text with at most one
// placeholder in braces.
type Template struct {
	before, after string
	column        int // -1 without a placeholder
}

// Placeholders of a Template.
var placeholders = map[string]int{ //nolint:gochecknoglobals // a constant
	"aggregate_type": columnAggregateType,
	"event_type":     columnEventType,
}

// ParseTemplate reads a template such as outbox.event.{aggregate_type}. The error
// is a usage error.
func ParseTemplate(text string) (Template, error) {
	t, err := parseTemplate(text)
	if err != nil {
		return Template{}, fault.NewUsage(fmt.Errorf("topic template %q: %w", text, err),
			"write letters, digits, dots, dashes and underscores with at most one of {aggregate_type} and {event_type}")
	}
	return t, nil
}

func parseTemplate(text string) (Template, error) {
	before, rest, found := strings.Cut(text, "{")
	if !found {
		return Template{before: text, column: -1}, checkTopic(text)
	}
	name, after, closed := strings.Cut(rest, "}")
	column, known := placeholders[name]
	switch {
	case !closed:
		return Template{}, errors.New("a brace is not closed")
	case !known:
		return Template{}, fmt.Errorf("{%s} is not a placeholder", name)
	}
	t := Template{before: before, after: after, column: column}
	_, err := t.name("x")
	return t, err
}

// Static is the topic of a template without a placeholder.
func (t Template) Static() (topic string, ok bool) {
	return t.before, t.column < 0
}

func (t Template) name(value string) (string, error) {
	if value == "" {
		return "", errors.New("the column that names the topic is empty")
	}
	topic := t.before + value + t.after
	return topic, checkTopic(topic)
}

// maxTopicBytes is Kafka's own limit: a file name holds the topic and a
// partition's number (Topic.java, MAX_NAME_LENGTH).
const maxTopicBytes = 249

// checkTopic keeps names that come from rows within what Kafka allows and out of
// the brokers' internal topics.
func checkTopic(topic string) error {
	switch {
	case topic == "" || topic == "." || topic == "..":
		return fmt.Errorf("%s is not a topic name", strconv.Quote(topic))
	case len(topic) > maxTopicBytes:
		return fmt.Errorf("a topic name of %d bytes is longer than %d", len(topic), maxTopicBytes)
	case strings.HasPrefix(topic, "__"):
		return errors.New("a topic name that begins with two underscores is the broker's own")
	}
	for _, c := range []byte(topic) {
		if !legalTopicByte(c) {
			return fmt.Errorf("a topic name may not hold %q", c)
		}
	}
	return nil
}

func legalTopicByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == '_' || c == '-'
}
