package debezium

import (
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/wal"
)

var _ outbox.Whole = (*Format)(nil)

// Mapping gives what the options say of the table's columns, for all who know a row by
// its roles.
func (f *Format) Mapping() outbox.Mapping {
	o := &f.options
	return outbox.Mapping{Columns: map[outbox.Role]string{
		outbox.RoleID:            o.IDColumn,
		outbox.RoleAggregateType: o.RouteColumn,
		outbox.RoleAggregateID:   o.KeyColumn,
		outbox.RolePayload:       o.PayloadColumn,
		outbox.RoleEventType:     "",
		outbox.RoleHeaders:       "",
	}}
}

// Columns are those that the options name.
func (f *Format) Columns() []wal.Column {
	columns := make([]wal.Column, len(f.needed))
	for i, n := range f.needed {
		columns[i] = wal.Column{Name: n.Name, Required: n.Required}
	}
	return columns
}

// Reserved is no name: placements alone make headers, and may repeat any.
func (f *Format) Reserved(string) bool { return false }

// Places says whether a column is placed as the partition.
func (f *Format) Places() bool {
	return slices.ContainsFunc(f.options.Placements, func(p Placement) bool { return p.Place == PlacePartition })
}

// DescribeBy gives the format the means to ask the catalog.
func (f *Format) DescribeBy(describe func(schema, table string) ([]wal.ColumnFacts, error)) {
	f.describe = describe
}

// Judge says why a table cannot be written in this format; see Plan.
func (f *Format) Judge(schema, table string, columns []wal.ColumnFacts) error {
	_, err := f.Plan(Table{schema, table, columnsOf(columns)})
	return err
}

func columnsOf(facts []wal.ColumnFacts) []Column {
	columns := make([]Column, len(facts))
	for i, c := range facts {
		columns[i] = Column{Name: c.Name, Type: c.Type, Mod: c.Modifier, Labels: c.Labels, Domain: c.Domain, NotNull: c.NotNull, Default: c.Default}
	}
	return columns
}

// Bind prepares for the rows of one shape. The log says of which types the columns
// were then; what it does not say, NOT NULL, DEFAULT and the labels of an enum, is what
// the catalog says now, as it is to Debezium.
func (f *Format) Bind(source outbox.Source) (outbox.Encoder, error) {
	var columns []Column
	if f.describe != nil {
		facts, err := f.describe(source.Table.Schema, source.Table.Name)
		if err != nil {
			return nil, err
		}
		columns = columnsOf(facts)
	}
	table := Table{source.Table.Schema, source.Table.Name, columns}
	if source.Shape != nil {
		table.Columns = ofItsTime(source.Shape, columns)
	}
	plan, err := f.Plan(table)
	if err != nil {
		return nil, err
	}
	e := &encoder{plan: plan, values: make([][]byte, len(f.needed))}
	for _, n := range f.needed {
		e.places = append(e.places, source.Column(n.Name))
	}
	return e, nil
}

// ofItsTime gives the columns that a shape has, with what the catalog knows of those
// that are still there.
func ofItsTime(shape *wal.Shape, now []Column) []Column {
	columns := make([]Column, len(shape.Columns))
	for i, was := range shape.Columns {
		columns[i] = Column{Name: was.Name, Type: was.TypeName, Mod: was.Modifier}
		at := slices.IndexFunc(now, func(c Column) bool { return c.Name == was.Name })
		if at < 0 {
			continue
		}
		is := now[at]
		columns[i].Domain, columns[i].NotNull, columns[i].Default, columns[i].Labels = is.Domain, is.NotNull, is.Default, is.Labels
		if was.TypeName == "" || strings.Contains(was.TypeName, ".") || was.Modifier < 0 {
			// No type of Postgres' own, or a domain, whose modifier is its own.
			columns[i].Type, columns[i].Mod = is.Type, is.Mod
		}
	}
	return columns
}

// encoder writes the events of one table.
type encoder struct {
	plan   *Plan
	places []int    // of the needed columns among a row's
	values [][]byte // those of the row at hand
	buffer Buffer
}

// Encode makes the record of a row.
func (e *encoder) Encode(d *outbox.Draft) error {
	for i, at := range e.places {
		e.values[i] = nil
		if at >= 0 {
			e.values[i] = d.Columns[at]
		}
	}
	e.buffer.text, e.buffer.headers = d.Text(), e.buffer.headers[:0]
	record, err := e.plan.Map(e.values, &e.buffer)
	if err != nil {
		return err
	}
	d.Keep(e.buffer.text)
	if err := d.SetTopic(record.Topic); err != nil {
		return err
	}
	d.SetKey(record.Key)
	d.SetValue(record.Value)
	for _, h := range record.Headers {
		d.AddHeader(h.Key, h.Value)
	}
	if record.Partition != NoPartition {
		d.SetPartition(record.Partition)
	}
	if !record.Time.IsZero() {
		d.SetTime(record.Time)
	}
	return nil
}
