package outbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Plan is a Config that was checked for the tables it is for. It does not change.
type Plan struct {
	tables   []tablePlan
	format   Format
	position bool
	typed    bool // see Mapper.Aggregate
}

// tablePlan is what is known of a table before its first row: where its columns are
// among those of a row, -1 for what is not there.
type tablePlan struct {
	table       wal.Table
	name        string // for people
	messages    bool   // rows are logical messages
	mapping     Mapping
	roles       [roleCount]int
	partition   int
	timestamp   int
	headers     []int
	headerNames []string
	router      router
	format      Format
	whole       bool // format is a Whole
}

// NewPlan checks config for tables, of which only the names are read. The error is one
// usage error or more, joined.
func NewPlan(config Config, tables []wal.Table) (*Plan, error) {
	p := &Plan{format: config.Format, position: !config.WithoutPosition}
	if p.format == nil {
		p.format = Native{}
	}
	var errs []error
	used := 0
	for _, t := range tables {
		mapping, own := config.Tables[TableName{t.Schema, t.Name}]
		if own {
			used++
		} else {
			mapping = config.Default
		}
		planned, err := newTablePlan(t, mapping, p.format, config.Reserved)
		planned.name = t.Schema + "." + t.Name
		if err != nil {
			errs = append(errs, fmt.Errorf("table %s: %w", planned.name, err))
		}
		p.tables = append(p.tables, planned)
	}
	if config.Messages != nil {
		planned, err := newTablePlan(wal.Table{}, *config.Messages, p.format, config.Reserved)
		planned.name, planned.messages = "logical messages", true
		if err != nil {
			errs = append(errs, fmt.Errorf("messages: %w", err))
		}
		p.tables = append(p.tables, planned)
	}
	if used < len(config.Tables) {
		errs = append(errs, fault.NewUsage(errors.New("a setting is for a table that is not streamed"), "name the table with --table, or take the setting away"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p.typed = typed(p.tables)
	return p, nil
}

// Whole is the plan's format when it is one that is Whole.
func (p *Plan) Whole() (format Whole, ok bool) {
	format, ok = p.format.(Whole)
	return format, ok
}

// Tables are the tables of the plan with the columns that a Mapper reads. Rows of
// logical messages have the number behind the last of them.
func (p *Plan) Tables() []wal.Table {
	var tables []wal.Table
	for i := range p.tables {
		t := p.tables[i].table
		if !p.tables[i].messages {
			tables = append(tables, wal.Table{Schema: t.Schema, Name: t.Name, Columns: slices.Clone(t.Columns)})
		}
	}
	return tables
}

// Places says whether rows may choose their partition.
func (p *Plan) Places() bool {
	if placer, ok := p.format.(interface{ Places() bool }); ok && placer.Places() {
		return true
	}
	return slices.ContainsFunc(p.tables, func(t tablePlan) bool { return t.partition >= 0 })
}

// Topics are those that are known before any row comes.
func (p *Plan) Topics() []string {
	var topics []string
	for i := range p.tables {
		r := &p.tables[i].router
		if name, static := r.static(); static {
			topic, err := r.finish(name)
			if err == nil { // newRouter has seen to it
				topics = append(topics, topic)
			}
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// Templates are the templates of topics that rows name, so that they are not known
// beforehand. A Whole format has none: it names topics by its own rules.
func (p *Plan) Templates() []string {
	var templates []string
	for i := range p.tables {
		if _, static := p.tables[i].router.static(); !static && !p.tables[i].whole {
			templates = append(templates, p.tables[i].router.String())
		}
	}
	slices.Sort(templates)
	return slices.Compact(templates)
}

// Column is where the column of a role is among the columns of a table's rows; -1 when
// it has none.
func (p *Plan) Column(table int, role Role) int {
	return Source{plan: &p.tables[table]}.Role(role)
}

// Messages says whether the plan is for logical messages, too.
func (p *Plan) Messages() bool {
	n := len(p.tables)
	return n > 0 && p.tables[n-1].messages
}

// Name is the name of a table for people, or what stands for logical messages.
func (p *Plan) Name(table int) string { return p.tables[table].name }

// Value is what a row has in the column of a role; nil when that is null, or there is
// none. A logical message is read for it.
func (p *Plan) Value(row *wal.Row, role Role) []byte {
	at := p.Column(row.Table, role)
	columns := row.Columns
	if t := &p.tables[row.Table]; t.messages {
		columns, _ = newMembers(t).read(row) // what is no event has no values
	}
	if at < 0 || columns == nil {
		return nil
	}
	return columns[at]
}

func newTablePlan(t wal.Table, mapping Mapping, format Format, reserved []string) (tablePlan, error) {
	p := tablePlan{table: wal.Table{Schema: t.Schema, Name: t.Name}, mapping: mapping, format: format, partition: -1, timestamp: -1}
	_, p.whole = format.(Whole)
	err := mapping.validate(format)
	var routeErr error
	p.router, routeErr = newRouter(&mapping, reserved)
	if err := errors.Join(err, routeErr); err != nil {
		return p, err
	}
	p.planRoles()
	if mapping.Partition != "" {
		p.partition = p.need(wal.Column{Name: mapping.Partition, Required: true, OnlyTypes: integerTypes()})
	}
	if mapping.Timestamp != "" {
		p.timestamp = p.need(wal.Column{Name: mapping.Timestamp, Required: true, OnlyTypes: timeTypes()})
	}
	for _, h := range mapping.Headers {
		p.headers = append(p.headers, p.need(wal.Column{Name: h.Column, Required: true}))
		p.headerNames = append(p.headerNames, h.name())
	}
	for _, column := range format.Columns() {
		p.need(column)
	}
	err = p.planTopic()
	return p, err
}

// planRoles asks for the columns of all roles. One that somebody chose must be there.
func (p *tablePlan) planRoles() {
	for at, role := range Roles() {
		name, explicit := p.mapping.column(role)
		if name == "" {
			p.roles[at] = -1
			continue
		}
		column := wal.Column{Name: name, Required: explicit || at != atID && at != atHeaders}
		if at == atAggregateID && !p.whole {
			column.NotTypes = keylessTypes()
		}
		p.roles[at] = p.need(column)
	}
}

func (p *tablePlan) planTopic() error {
	if p.whole {
		return nil
	}
	for _, name := range p.router.columns {
		column := name
		if slices.Contains(Roles(), Role(name)) {
			column, _ = p.mapping.column(Role(name))
		}
		if column == "" {
			return fault.NewUsage(fmt.Errorf("the topic is made of %s, for which there is no column", name), "change --topic, or name the column with --column")
		}
		p.router.at = append(p.router.at, p.need(wal.Column{Name: column, Required: true}))
	}
	return nil
}

// need asks for a column, once for all that it is needed for, and gives its place.
func (p *tablePlan) need(column wal.Column) int {
	at := columnIndex(p.table.Columns, column.Name)
	if at < 0 {
		p.table.Columns = append(p.table.Columns, column)
		return len(p.table.Columns) - 1
	}
	known := &p.table.Columns[at]
	known.Required = known.Required || column.Required
	if len(known.OnlyTypes) == 0 {
		known.OnlyTypes = column.OnlyTypes
	}
	known.NotTypes = append(known.NotTypes, column.NotTypes...)
	return at
}

func columnIndex(columns []wal.Column, name string) int {
	return slices.IndexFunc(columns, func(c wal.Column) bool { return c.Name == name })
}

func integerTypes() []string { return []string{"int2", "int4", "int8"} }

func timeTypes() []string { return []string{"timestamptz", "timestamp", "date", "int8", "int4"} }

// keylessTypes are no keys: equal values may have different texts, or a text may say
// less than the value.
func keylessTypes() []string { return []string{"json", "jsonb", "xml", "float4", "float8"} }

// binding is a table with a shape of its rows.
type binding struct {
	shape   *wal.Shape
	encoder Encoder
	members *members // of logical messages; nil for a table
	bytes   []int    // columns of type bytea
	decoded [][]byte // the columns of the row at hand, when there are any
}

func (p *tablePlan) newBinding(shape *wal.Shape, format Format) (*binding, error) {
	encoder, err := format.Bind(Source{Table: p.table, Shape: shape, Mapping: p.mapping, plan: p})
	if err != nil {
		return nil, err
	}
	b := &binding{shape: shape, encoder: encoder}
	if p.messages {
		b.members = newMembers(p)
	}
	for i := range p.table.Columns {
		if column, ok := shape.Of(i); ok && column.TypeName == "bytea" {
			b.bytes = append(b.bytes, i)
		}
	}
	return b, nil
}

// decode gives the columns of a row, with bytes in the place of Postgres' hexadecimal
// text.
func (b *binding) decode(d *Draft, row *wal.Row) ([][]byte, error) {
	if b.members != nil {
		return b.members.read(row)
	}
	columns := row.Columns
	if len(b.bytes) == 0 {
		return columns, nil
	}
	b.decoded = append(b.decoded[:0], columns...)
	for _, at := range b.bytes {
		if columns[at] == nil {
			continue
		}
		text, err := appendBytea(d.Text(), columns[at])
		if err != nil {
			return nil, err
		}
		b.decoded[at] = d.Keep(text)
	}
	return b.decoded, nil
}

// start fills a draft with what is the same in every format.
func (p *tablePlan) start(d *Draft, row *wal.Row, columns [][]byte) error {
	d.Row, d.Columns, d.plan, d.at = row, columns, p, len(d.headers)
	m := &d.message
	m.Key, m.Value, m.Time, m.Partition, m.Placed = columns[p.roles[atAggregateID]], columns[p.roles[atPayload]], row.Time, 0, false
	if len(m.Key) == 0 {
		return p.aboutColumn(p.roles[atAggregateID], errNoAggregate)
	}
	if err := p.judgePayload(m.Value); err != nil {
		return p.aboutColumn(p.roles[atPayload], err)
	}
	if p.mapping.Tombstones == EmptyTombstones && isBlank(m.Value) {
		m.Value = nil
	}
	if p.timestamp >= 0 && columns[p.timestamp] != nil {
		at, err := parseTime(columns[p.timestamp])
		if err != nil {
			return p.aboutColumn(p.timestamp, err)
		}
		m.Time = at
	}
	if p.partition >= 0 && columns[p.partition] != nil {
		partition, err := parsePartition(columns[p.partition])
		if err != nil {
			return p.aboutColumn(p.partition, err)
		}
		m.Partition, m.Placed = partition, true
	}
	return nil
}

func (p *tablePlan) judgePayload(value []byte) error {
	if value == nil && p.mapping.Tombstones == NoTombstones {
		return errors.New("it is null, and --tombstones is off")
	}
	return nil
}

// aboutColumn names the column that an error is about.
func (p *tablePlan) aboutColumn(at int, err error) error {
	return fmt.Errorf("column %s: %w", p.table.Columns[at].Name, err)
}

// isBlank is Java's trim().isEmpty(): nothing above the blank.
func isBlank(value []byte) bool {
	return strings.TrimFunc(string(value), func(r rune) bool { return r <= ' ' }) == ""
}
