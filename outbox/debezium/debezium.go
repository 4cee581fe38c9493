// Package debezium gives an outbox row the form that Debezium's Postgres connector
// with its Outbox Event Router gives it, byte for byte: topic, key, value, headers
// and partition, so that a consumer does not notice which of the two sent it.
//
// It is pure: it knows columns and records. It does not know where rows come from,
// nor what a name of a topic may be. What it does is held to records that the real
// connector made, in testdata; where the connector stops, hangs or gives what no
// consumer can use, docs/debezium.md says what is done instead.
package debezium

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Needed is a column that a Format reads, by name.
type Needed struct {
	Name     string
	Required bool
}

// Table is an outbox table as the catalog describes it.
type Table struct {
	Schema, Name string
	Columns      []Column
}

// Record is what a row becomes.
type Record struct {
	Topic     string
	Key       []byte // nil is a null key: any partition is right
	Value     []byte // nil is a null value
	Headers   []sink.Header
	Partition int32     // -1 where the key decides
	Time      time.Time // of the timestamp column; zero where there is none
}

// NoPartition is the Partition of a record whose key decides.
const NoPartition = -1

// Format is what the options make of rows. It is used by one goroutine at a time.
type Format struct {
	options  Options
	needed   []Needed
	route    *route
	context  []sink.Header
	describe func(schema, table string) ([]wal.ColumnFacts, error)
}

// New makes a format. The run is a word for this run of the program, the value of
// the header __debezium.context.runId; Debezium's is a UUID of version 7.
func New(o Options, run string) (*Format, error) {
	r, err := newRoute(o.RouteRegex, o.RouteReplacement)
	if err != nil {
		return nil, fault.NewUsage(err, "it is Java's syntax as far as Go's RE2 or its lookarounds know it")
	}
	f := &Format{options: o, route: r}
	for _, name := range []string{o.IDColumn, o.KeyColumn, o.RouteColumn, o.PayloadColumn, o.TimestampColumn, o.VersionColumn} {
		f.need(name, true)
	}
	for _, p := range o.Placements {
		f.need(p.Column, !o.IgnoreMissing)
	}
	if o.ContextHeaders {
		f.context = contextHeaders(&o, run)
	}
	return f, nil
}

func (f *Format) need(name string, required bool) {
	if name == "" {
		return
	}
	for i := range f.needed {
		if f.needed[i].Name == name {
			f.needed[i].Required = f.needed[i].Required || required
			return
		}
	}
	f.needed = append(f.needed, Needed{name, required})
}

// Needed gives the columns that the format reads; the values of a row come in this
// order.
func (f *Format) Needed() []Needed { return slices.Clone(f.needed) }

// contextPrefix begins the names of the headers that say which connector sent a
// record (extended.headers.enabled, Debezium 3.2.1 and later).
const contextPrefix = "__debezium.context."

func contextHeaders(o *Options, run string) []sink.Header {
	plain := &schema{kind: kindString}
	e := encoding{converter: o.Header, schema: plain}
	e.prepare()
	var b Buffer
	var headers []sink.Header
	for _, h := range [][2]string{
		{"connectorLogicalName", o.Prefix},
		{"taskId", "0"},
		{"connectorName", "postgresql"},
		{"runId", run},
	} {
		v := value{set: true, text: []byte(h[1])}
		headers = append(headers, sink.Header{Key: contextPrefix + h[0], Value: e.encode(&v, &b)})
	}
	return headers
}

// Buffer is the memory of what is made for many rows. What was given out stays as it
// is when the buffer grows.
type Buffer struct {
	text    []byte
	headers []sink.Header
}

// encoding is a converter at work on values of one schema.
type encoding struct {
	converter    Converter
	schema       *schema
	before, last string // around each value of a JsonConverter with schemas
}

func (e *encoding) prepare() {
	if e.converter == ConverterJSONSchema {
		e.before = `{"schema":` + string(appendSchema(nil, e.schema, "", false)) + `,"payload":`
		e.last = "}"
	}
}

// errSchema is a value that a converter cannot take; the connector's task dies of it.
var errSchema = errors.New("its converter does not take values of this type")

// errLost is a value whose content the connector would lose.
var errLost = errors.New("StringConverter gives a Java object's name instead of its content")

// check says whether the converter can carry values of the schema.
func (e *encoding) check() error {
	switch e.converter {
	case ConverterBinary:
		if e.schema.kind != kindBytes || e.schema.name != "" {
			return errSchema
		}
	case ConverterString:
		if e.schema.holdsBytes() || e.schema.isDate() {
			return errLost
		}
	default:
	}
	return nil
}

// encode gives the bytes of a value, nil for null where the converter has one. A
// text that goes as it is is not copied.
func (e *encoding) encode(v *value, b *Buffer) []byte {
	at := len(b.text)
	switch e.converter {
	case ConverterJSON, ConverterJSONSchema:
		b.text = append(b.text, e.before...)
		b.text = appendJSON(b.text, e.schema, v)
		b.text = append(b.text, e.last...)
		return b.text[at:len(b.text):len(b.text)]
	default:
	}
	switch {
	case !v.set:
		return nil
	case e.schema.kind == kindString || e.converter == ConverterBinary:
		return v.text
	case e.converter == ConverterSimple:
		b.text = appendSimple(b.text, e.schema, v, false)
	default:
		b.text = appendJava(b.text, e.schema, v)
	}
	return b.text[at:len(b.text):len(b.text)]
}

// valid says whether the converter can write the value: JSON holds Unicode text
// only, and any bytes come from a database in SQL_ASCII.
func (e *encoding) valid(v *value) error {
	isJSON := e.converter == ConverterJSON || e.converter == ConverterJSONSchema
	if isJSON && e.schema.kind == kindString && !utf8.Valid(v.text) {
		return errNoText
	}
	return nil
}

// errNoText is a value that JSON cannot hold.
var errNoText = errors.New("is no Unicode text")

// load reads a part's value out of a row, with the DEFAULT in the place of null.
func (p *part) load(values [][]byte) (value, error) {
	var v value
	if text := values[p.at]; text != nil {
		if err := p.read(text, &v); err != nil {
			return v, fmt.Errorf("column %s: %w", p.name, err)
		}
	}
	return *v.or(p.codec.schema), nil
}

func (p *part) bytes(values [][]byte, b *Buffer) ([]byte, error) {
	v, err := p.load(values)
	if err == nil {
		err = p.valid(&v)
	}
	if err != nil {
		return nil, fmt.Errorf("column %s: %w", p.name, err)
	}
	return p.encode(&v, b), nil
}

// errNoRoute is a row that names no topic.
var errNoRoute = errors.New("is null, and names the topic")

// Map makes a row's record; values are in the order of Needed, a missing column and
// null are nil. What it gives lives as long as the values and the buffer do. The
// error is about the row's data and shows none of it.
func (p *Plan) Map(values [][]byte, b *Buffer) (Record, error) {
	record := Record{Partition: NoPartition}
	route, err := p.routes.load(values)
	if err == nil && !route.set {
		err = fmt.Errorf("column %s: %w", p.routes.name, errNoRoute)
	}
	if err != nil {
		return record, err
	}
	if record.Topic, err = p.format.route.topic(route.text); err != nil {
		return record, err
	}
	if record.Key, err = p.key.bytes(values, b); err != nil {
		return record, err
	}
	if record.Value, err = p.value(values, route.text, b); err != nil {
		return record, err
	}
	if record.Headers, err = p.rowHeaders(values, b); err != nil {
		return record, err
	}
	if err := p.choosePartition(values, &record); err != nil {
		return record, err
	}
	err = p.chooseTime(values, &record)
	return record, err
}

func (p *Plan) rowHeaders(values [][]byte, b *Buffer) ([]sink.Header, error) {
	at := len(b.headers)
	b.headers = append(b.headers, p.format.context...)
	id, err := p.id.bytes(values, b)
	if err != nil {
		return nil, err
	}
	b.headers = append(b.headers, sink.Header{Key: "id", Value: id})
	for i := range p.headers {
		text, err := p.headers[i].bytes(values, b)
		if err != nil {
			return nil, err
		}
		b.headers = append(b.headers, sink.Header{Key: p.headers[i].alias, Value: text})
	}
	return b.headers[at:len(b.headers):len(b.headers)], nil
}

func (p *Plan) choosePartition(values [][]byte, record *Record) error {
	if p.partition == nil {
		return nil
	}
	v, err := p.partition.load(values)
	switch {
	case err != nil || !v.set:
		return err
	case v.integer < 0 || v.integer > math.MaxInt32:
		return fmt.Errorf("column %s: a partition is not negative", p.partition.name)
	default:
		record.Partition = int32(v.integer)
		return nil
	}
}

// chooseTime takes the timestamp column. A broker refuses a time before 1970.
func (p *Plan) chooseTime(values [][]byte, record *Record) error {
	if p.timestamp == nil {
		return nil
	}
	text := values[p.timestamp.at]
	if text == nil {
		return nil
	}
	var v value
	if err := p.timestamp.read(text, &v); err != nil {
		return fmt.Errorf("column %s: %w", p.timestamp.name, err)
	}
	if v.integer < 0 {
		return fmt.Errorf("column %s: a record's time is not before 1970", p.timestamp.name)
	}
	record.Time = time.UnixMilli(v.integer).UTC()
	return nil
}

// value gives the payload, or the envelope around it.
func (p *Plan) value(values [][]byte, route []byte, b *Buffer) ([]byte, error) {
	v, err := p.payload.load(values)
	if err != nil {
		return nil, err
	}
	o := &p.format.options
	e := &p.payload.encoding
	if o.Tombstones && isEmpty(e.schema, &v) {
		return nil, nil
	}
	if err := e.valid(&v); err != nil {
		return nil, fmt.Errorf("column %s: %w", p.payload.name, err)
	}
	if o.Expand && v.set && e.schema.kind == kindString {
		if s, expanded, ok := (expander{o.KeepNulls}).expand(v.text); ok {
			v = expanded
			e = &encoding{converter: o.Value, schema: s}
			if p.envelope == nil {
				e.prepare()
			}
		}
	}
	if p.envelope == nil {
		return e.encode(&v, b), nil
	}
	return p.wrap(e.schema, v, values, route, b)
}

// isEmpty says whether a payload is null, or a text that Java's trim leaves nothing
// of. An empty bytea is a value.
func isEmpty(s *schema, v *value) bool {
	return !v.set || s.kind == kindString && len(bytes.TrimFunc(v.text, func(r rune) bool { return r <= ' ' })) == 0
}

func joined(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errors.Join(errs...)
}
