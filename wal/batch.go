package wal

import (
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// rowOverhead is what a row takes besides its text: the Row, its column slots and
// its share of the message made from it. It keeps a budget honest when rows are
// tiny.
const rowOverhead = 512

// assembler turns pgoutput messages into batches. It is pure: no clock, no
// connection. It keeps the open transaction, the relations of this connection and
// the batch under construction.
//
// The relation cache lives as long as the connection: the server sends a Relation
// before the first change of a table and again after every change of its shape,
// also in the middle of a transaction.
type assembler struct {
	tables    []Table
	oids      []uint32 // of the tables, where they are known
	relations map[uint32]relation
	types     map[uint32]string         // names of those that are not Postgres' own
	own       *pgtype.Map               // of those that are
	prefix    string                    // of the logical messages that are rows; none when empty
	clock     uint64                    // of the server, when it sent the message at hand
	warn      func(schema, name string) // an unlisted table sent a row; once a relation

	batchRows  int
	batchBytes int

	tx     transaction
	memory *arena // of the batch under construction; nil when the last one was full
	rows   int    // in that batch
	bytes  int    // of their text
	end    LSN    // of that batch
	last   LSN    // the latest End ever given or due
}

type transaction struct {
	begin
	rows int // outbox rows so far
	open bool
}

// relation is what is needed to read a tuple: which row column each of its
// columns goes to.
type relation struct {
	schema, name string
	table        int   // index in Config.Tables, -1 for a table that nobody asked for
	columns      []int // index in Table.Columns, -1 for a column that nobody asked for
	shape        *Shape
}

// message takes one pgoutput message.
func (a *assembler) message(body []byte) error {
	kind, rest := body[0], body[1:]
	var err error
	switch kind {
	case kindInsert:
		err = a.insert(rest)
	case kindBegin:
		err = a.begin(rest)
	case kindCommit:
		err = a.commit(rest)
	case kindRelation:
		err = a.relation(rest)
	case kindType:
		err = a.learnType(rest)
	case kindMessage:
		err = a.logicalMessage(rest)
	case kindOrigin, kindUpdate, kindDelete, kindTruncate:
		// The publication sends inserts; where it sends more, an outbox row that
		// was changed or removed is still not a new event.
	default:
		err = fmt.Errorf("message kind %q is unknown", kind)
	}
	return a.explain(kind, err)
}

func (a *assembler) begin(rest []byte) error {
	b, err := parseBegin(rest)
	if err != nil {
		return err
	}
	if a.tx.open {
		return fmt.Errorf("transaction %d begins inside transaction %d", b.xid, a.tx.xid)
	}
	a.tx = transaction{begin: b, open: true}
	return nil
}

func (a *assembler) commit(rest []byte) error {
	c, err := parseCommit(rest)
	switch {
	case err != nil:
		return err
	case !a.tx.open:
		return errors.New("commit without a begin")
	case c.commit != a.tx.commit:
		return fmt.Errorf("commit at %v ends a transaction announced for %v", c.commit, a.tx.commit)
	case c.end <= c.commit || c.end <= a.last:
		return fmt.Errorf("transaction ends at %v, not after its commit at %v and the position %v", c.end, c.commit, a.last)
	}
	a.tx.open = false
	a.last, a.end = c.end, c.end
	return nil
}

// keepalive counts the log that nobody sent rows for. Its position covers every
// transaction that commits before it, and all those were sent before it on this
// connection, so they are in this batch or an earlier one. Inside a transaction it
// says nothing that the next keepalive would not say again; and it may lie behind
// what is known, since the server starts over from where decoding reads again.
func (a *assembler) keepalive(end LSN) {
	if !a.tx.open && end > a.last {
		a.last, a.end = end, end
	}
}

func (a *assembler) learnType(rest []byte) error {
	oid, name, err := parseType(rest)
	if err != nil {
		return err
	}
	if a.types == nil {
		a.types = map[uint32]string{}
	}
	a.types[oid] = name
	return nil
}

// typeName is the name of a type: of those that are not Postgres' own the server tells
// it, the others have the same oid everywhere.
func (a *assembler) typeName(oid uint32) string {
	if name, told := a.types[oid]; told {
		return name
	}
	if a.own == nil {
		a.own = pgtype.NewMap()
	}
	if known, ok := a.own.TypeForOID(oid); ok {
		return known.Name
	}
	return ""
}

func (a *assembler) relation(rest []byte) error {
	m, err := parseRelation(rest)
	if err != nil {
		return err
	}
	for i := range m.columns {
		m.columns[i].TypeName = a.typeName(m.columns[i].Type)
	}
	r := relation{schema: m.schema, name: m.name, table: a.tableIndex(m)}
	old, known := a.relations[m.oid]
	if r.table < 0 {
		if known && old.table >= 0 {
			return fault.NewOperator(
				fmt.Errorf("table %s.%s was renamed to %s.%s while streaming", old.schema, old.name, m.schema, m.name),
				"rename it back, or name the new table with --table")
		}
	} else if r.columns, err = a.mapColumns(m, a.tables[r.table]); err != nil {
		return err
	} else {
		r.shape = shapeOf(m, r.columns, len(a.tables[r.table].Columns))
	}
	a.relations[m.oid] = r
	return nil
}

// tableIndex goes by name, and where that is unknown by identity. The server
// describes a table as it was when the row was inserted: what came while it had
// another name has that name in the log for good, whatever it is called now.
func (a *assembler) tableIndex(m relationMessage) int {
	for i, t := range a.tables {
		if t.Schema == m.schema && t.Name == m.name {
			return i
		}
	}
	if m.oid == 0 {
		return -1
	}
	return slices.Index(a.oids, m.oid)
}

func (a *assembler) mapColumns(m relationMessage, t Table) ([]int, error) {
	columns := make([]int, len(m.columns))
	for i := range columns {
		columns[i] = -1
	}
	for want, column := range t.Columns {
		at := indexOf(m.columns, column.Name)
		if at >= 0 && !column.fits(m.columns[at].TypeName) {
			return nil, fault.NewOperator(
				fmt.Errorf("column %q of table %s.%s is of type %s in transaction %d at %v", column.Name, m.schema, m.name, m.columns[at].TypeName, a.tx.xid, a.tx.commit),
				"the stream stands before this transaction; "+typeAdvice(column))
		}
		if at >= 0 {
			columns[at] = want
		} else if column.Required {
			return nil, fault.NewOperator(
				fmt.Errorf("table %s.%s has no column %q in transaction %d at %v", m.schema, m.name, column.Name, a.tx.xid, a.tx.commit),
				"the stream stands before this transaction; add the column, or take it into the publication's column list")
		}
	}
	return columns, nil
}

func indexOf(columns []ColumnShape, name string) int {
	return slices.IndexFunc(columns, func(c ColumnShape) bool { return c.Name == name })
}

// shapeOf is for the rows to come; columns is what mapColumns gave, wanted how many
// columns the table is asked for.
func shapeOf(m relationMessage, columns []int, wanted int) *Shape {
	s := &Shape{Schema: m.schema, Name: m.name, Columns: m.columns, Read: make([]int, wanted)}
	for i := range s.Read {
		s.Read[i] = slices.Index(columns, i)
	}
	return s
}

func (a *assembler) insert(rest []byte) error {
	c := cursor{rest: rest}
	oid, n, err := parseInsertHead(&c)
	if err != nil {
		return err
	}
	r, known := a.relations[oid]
	switch {
	case !a.tx.open:
		return errors.New("insert outside a transaction")
	case !known:
		return fmt.Errorf("insert into relation %d, which was not described", oid)
	case r.table < 0:
		a.warnOnce(oid, r)
		return nil
	case n != len(r.columns):
		return fmt.Errorf("insert into %s.%s carries %d columns, want %d", r.schema, r.name, n, len(r.columns))
	}
	return a.row(&c, r)
}

// warnOnce tells the operator of rows that are read and dropped because their
// table was not asked for.
func (a *assembler) warnOnce(oid uint32, r relation) {
	if r.name == "" {
		return
	}
	a.warn(r.schema, r.name)
	a.relations[oid] = relation{table: -1}
}

// logicalMessage takes a message of ours as a row. Others have theirs in the same log.
//
// One outside of a transaction is a unit of its own, like a transaction of one row: it
// ends with its record, and may be confirmed there. The server sends it in its turn:
// everything that ends before its record was sent before, and it is never sent in the
// midst of a transaction, which comes in one piece.
func (a *assembler) logicalMessage(rest []byte) error {
	m, err := parseMessage(rest)
	if err != nil {
		return err
	}
	switch {
	case m.transactional && !a.tx.open:
		return errors.New("transactional message outside a transaction")
	case a.prefix == "" || m.prefix != a.prefix:
		return nil
	case m.transactional:
		a.add(Row{Commit: a.tx.commit, Index: a.tx.rows, XID: a.tx.xid, Time: a.tx.time}, m.content)
		a.tx.rows++
		return nil
	case a.tx.open:
		return fmt.Errorf("message that ends at %v inside transaction %d, to which it does not belong", m.end, a.tx.xid)
	case m.end <= a.last:
		return fmt.Errorf("message ends at %v, not after the position %v", m.end, a.last)
	}
	a.add(Row{Commit: m.end - 1, Alone: true, Time: pgTime(a.clock)}, m.content)
	a.last, a.end = m.end, m.end
	return nil
}

// add adds the row of a logical message.
func (a *assembler) add(r Row, content []byte) {
	memory := a.room()
	r.Table, r.Columns = len(a.tables), memory.newColumns(1)
	r.Columns[0] = memory.copyText(content)
	memory.rows = append(memory.rows, r)
	a.rows++
	a.bytes += len(content)
}

func (a *assembler) row(c *cursor, r relation) error {
	memory := a.room()
	slots := memory.newColumns(len(a.tables[r.table].Columns))
	size := 0
	for _, to := range r.columns {
		text, null, err := parseColumn(c)
		if err != nil {
			return err
		}
		if to >= 0 && !null {
			slots[to] = memory.copyText(text)
			size += len(text)
		}
	}
	if err := c.end(); err != nil {
		return err
	}
	memory.rows = append(memory.rows, Row{
		Commit:  a.tx.commit,
		Index:   a.tx.rows,
		XID:     a.tx.xid,
		Time:    a.tx.time,
		Table:   r.table,
		Shape:   r.shape,
		Columns: slots,
	})
	a.tx.rows++
	a.rows++
	a.bytes += size
	return nil
}

// room is the arena for the next row.
func (a *assembler) room() *arena {
	switch {
	case a.memory == nil:
		a.memory = newArena()
	case a.rows == 0:
		a.memory.rewindIdle()
	}
	return a.memory
}

// full says that the batch must be cut before the next message.
func (a *assembler) full() bool {
	return a.rows > 0 && (a.memory.full() || a.rows >= a.batchRows || a.bytes+rowOverhead*a.rows >= a.batchBytes)
}

// cut gives the batch so far and begins the next; ok is false when there is
// nothing to give.
func (a *assembler) cut() (b Batch, ok bool) {
	if a.rows == 0 && a.end == 0 {
		return Batch{}, false
	}
	b = Batch{End: a.end, text: a.bytes}
	if a.rows > 0 {
		b.memory = a.memory
		last := a.memory.full()
		b.Rows = a.memory.takeRows(last)
		if last {
			a.memory = nil
		}
	}
	a.rows, a.bytes, a.end = 0, 0, 0
	return b, true
}

// explain adds where in the log a message stands. What breaks the protocol is not
// cured by reading it again, so it goes to the operator and the slot keeps it.
func (a *assembler) explain(kind byte, err error) error {
	if err == nil { // before anything that allocates: this is asked for each message
		return nil
	}
	if _, classified := errors.AsType[*fault.Error](err); classified {
		return err
	}
	where := fmt.Sprintf("after %v", a.last)
	if a.tx.open {
		where = fmt.Sprintf("in transaction %d, which commits at %v", a.tx.xid, a.tx.commit)
	}
	return fault.NewOperator(
		fmt.Errorf("read message %q %s: %w", kind, where, err),
		"nothing was confirmed past it; please report this with the server's version")
}
