package debezium

import (
	"errors"
	"fmt"
	"slices"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Plan is a Format for the rows of one table as it is described. It is used by one
// goroutine.
type Plan struct {
	format    *Format
	id, key   part
	payload   part
	routes    part
	timestamp *part
	version   *part
	partition *part
	headers   []placed
	envelope  *envelope
}

// part is a column at work: where it stands among the needed ones, how it is read
// and how it is written.
type part struct {
	at   int
	name string
	codec
	encoding
}

// placed is a column that becomes a header.
type placed struct {
	part
	alias string
}

// Plan prepares the format for a table. The error is an operator's: a column is
// missing, or is of a type that cannot go where it shall.
func (f *Format) Plan(t Table) (*Plan, error) {
	b := planner{format: f, table: t}
	o := &f.options
	p := &Plan{format: f}
	p.id = b.encoded(o.IDColumn, o.Header)
	p.key = b.encoded(o.KeyColumn, o.Key)
	p.payload = b.part(o.PayloadColumn)
	p.routes = b.ofKind(o.RouteColumn, kindString, "names the topic")
	if o.TimestampColumn != "" {
		p.timestamp = b.clock(o.TimestampColumn)
	}
	if o.VersionColumn != "" {
		version := b.ofKind(o.VersionColumn, kindInt32, "is the schema's version")
		p.version = &version
	}
	for _, placement := range o.Placements {
		b.place(p, placement)
	}
	p.finish(&b)
	if err := joined(b.errs); err != nil {
		return nil, fault.NewOperator(
			fmt.Errorf("table %s.%s with --format debezium: %w", t.Schema, t.Name, err),
			"docs/debezium.md says which columns go where")
	}
	return p, nil
}

// finish chooses how the value is written, now that every column is known.
func (p *Plan) finish(b *planner) {
	o := &p.format.options
	if len(b.errs) > 0 {
		return
	}
	p.payload.encoding = encoding{converter: o.Value, schema: p.payload.codec.schema}
	if p.envelope != nil {
		p.envelope.prefix = o.Prefix + "." + b.table.Schema + "." + b.table.Name + "."
		p.envelope.names = map[string]string{}
		e := encoding{converter: o.Value, schema: p.envelope.schema(p.payload.codec.schema, "", nil)}
		b.note(o.PayloadColumn, e.check())
		return
	}
	b.note(o.PayloadColumn, p.payload.check())
	p.payload.prepare()
}

// planner gathers what a plan needs, and every error on the way.
type planner struct {
	format *Format
	table  Table
	errs   []error
}

func (b *planner) note(column string, err error) {
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("column %s: %w", column, err))
	}
}

func (b *planner) has(name string) bool {
	return slices.ContainsFunc(b.table.Columns, func(c Column) bool { return c.Name == name })
}

func (b *planner) part(name string) part {
	at := slices.IndexFunc(b.format.needed, func(n Needed) bool { return n.Name == name })
	of := slices.IndexFunc(b.table.Columns, func(c Column) bool { return c.Name == name })
	if of < 0 {
		b.errs = append(b.errs, fmt.Errorf("it has no column %q", name))
		return part{name: name}
	}
	made, err := codecFor(b.table.Columns[of], &b.format.options)
	if err != nil {
		b.errs = append(b.errs, err)
	}
	return part{at: at, name: name, codec: made}
}

func (b *planner) encoded(name string, c Converter) part {
	p := b.part(name)
	if p.codec.schema == nil {
		return p
	}
	p.encoding = encoding{converter: c, schema: p.codec.schema}
	b.note(name, p.check())
	p.prepare()
	return p
}

func (b *planner) ofKind(name string, k kind, what string) part {
	p := b.part(name)
	if p.codec.schema != nil && p.codec.schema.kind != k {
		b.note(name, fmt.Errorf("it %s and must be of type %s", what, k))
	}
	return p
}

// clock is the part of the timestamp column, whatever time.precision.mode is. Unlike
// the connector, which dies of them, it takes timestamptz and date as well.
func (b *planner) clock(name string) *part {
	p := b.part(name)
	of := slices.IndexFunc(b.table.Columns, func(c Column) bool { return c.Name == name })
	if of >= 0 && !slices.Contains([]string{"timestamp", "timestamptz", "date"}, b.table.Columns[of].Type) {
		b.note(name, errors.New("the record's time must be a timestamp, a timestamptz or a date"))
	}
	p.read = func(text []byte, into *value) error {
		us, err := parseTimestamp(text)
		if err != nil {
			return err
		}
		into.set, into.integer = true, floorDiv(us, 1000)
		return nil
	}
	return &p
}

func (b *planner) place(p *Plan, placement Placement) {
	if b.format.options.IgnoreMissing && !b.has(placement.Column) {
		return
	}
	switch placement.Place {
	case PlaceHeader:
		p.headers = append(p.headers, placed{b.encoded(placement.Column, b.format.options.Header), placement.Alias})
	case PlacePartition:
		of := b.ofKind(placement.Column, kindInt32, "chooses the partition")
		p.partition = &of
	case PlaceEnvelope:
		if p.envelope == nil {
			p.envelope = &envelope{}
		}
		p.envelope.members = append(p.envelope.members, placed{b.part(placement.Column), placement.Alias})
	}
}
