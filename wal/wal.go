// Package wal reads committed outbox rows from a Postgres logical replication
// slot and tells the slot what it may forget.
//
// It knows Postgres: connections, slots, publications, the pgoutput protocol. It
// does not know where rows go, what they mean, or when they are safe; it is told
// the last through Stream.Confirm.
package wal

import (
	"slices"
	"time"
)

// Table is an outbox table and what is read of it. Columns are found by name in
// each Relation message, so their order and the other columns do not matter.
type Table struct {
	Schema  string
	Name    string
	Columns []Column
}

// Column is one column that a Row carries. When a Required one is absent from
// the table or from what the publication sends, the stream stops and names it;
// an optional one that is absent reads as NULL.
type Column struct {
	Name     string
	Required bool

	// OnlyTypes, when there are any, are the only types that the column may have, and
	// NotTypes are types that it may not have, as pg_type.typname, without a schema.
	// A domain counts as the type below it. Another type stops the stream as well.
	OnlyTypes, NotTypes []string
}

// fits says whether the column may have a type.
func (c Column) fits(typeName string) bool {
	return (len(c.OnlyTypes) == 0 || slices.Contains(c.OnlyTypes, typeName)) && !slices.Contains(c.NotTypes, typeName)
}

// Row is one inserted outbox row. Commit and Index name it for good: they are the
// same on every delivery of the same log.
type Row struct {
	Commit LSN       // position of the commit record of its transaction
	Index  int       // its place among the outbox rows of that transaction, from 0
	XID    uint32    // transaction id, for messages to operators only: it wraps
	Alone  bool      // a logical message outside of any transaction; see Config.MessagePrefix
	Time   time.Time // commit time, microsecond resolution, UTC
	Table  int       // which of Config.Tables it belongs to; their number for a logical message
	Shape  *Shape    // its table as it was then; nil where the log was not read

	// Columns holds the text that Postgres rendered, in the order of
	// Table.Columns; nil is NULL, an empty slice the empty text. The bytes
	// belong to the batch and are valid until its Release.
	Columns [][]byte
}

// Shape is a table as it was when rows were inserted, as far as the publication sends
// it. All rows up to the next change of the table share one; it is never changed.
type Shape struct {
	Schema, Name string        // of the table or partition, as the log names it
	Columns      []ColumnShape // in the table's own order

	// Read says where in Columns each of Table.Columns is; -1 when it is absent.
	Read []int
}

// ColumnShape is one column of a Shape.
type ColumnShape struct {
	Name     string
	Type     uint32 // its pg_type.oid; of a domain, the domain's own
	Modifier int32  // its pg_attribute.atttypmod, such as the digits of a numeric; -1 without

	// TypeName is the pg_type.typname, of a domain that of the type below it, with its
	// schema and a dot before it unless that is pg_catalog. It is empty for a few of
	// Postgres' own types, which nobody stores events in.
	TypeName string
}

// Of is the shape of one of Table.Columns; ok is false when it is absent.
func (s *Shape) Of(column int) (shape ColumnShape, ok bool) {
	if s == nil || s.Read[column] < 0 {
		return ColumnShape{}, false
	}
	return s.Columns[s.Read[column]], true
}

// Batch is a piece of the log in commit order. A transaction may span batches
// and a batch may span transactions. A batch without rows stands for log that
// other tables wrote.
type Batch struct {
	Rows []Row

	// End is the end of the last transaction that finishes in this batch, or the
	// position of a keepalive when that is later and no transaction is open; 0
	// when neither happened. Once this batch and all before it are with the
	// broker, End may be confirmed.
	End LSN

	text   int // bytes of the rows' columns
	memory *arena
}

// NewBatch makes a batch of rows that were not read from a Stream; their columns are
// the garbage collector's. end is the batch's End.
func NewBatch(rows []Row, end LSN) Batch {
	b := Batch{Rows: rows, End: end}
	for i := range rows {
		for _, column := range rows[i].Columns {
			b.text += len(column)
		}
	}
	return b
}

// Bytes is the memory that the rows take until they are acked, the measure for
// budgets: their text and an estimate of what surrounds it.
func (b Batch) Bytes() int { return b.text + rowOverhead*len(b.Rows) }

// TextBytes is the size of the rows' columns as Postgres sent them.
func (b Batch) TextBytes() int { return b.text }

// Hold says that the rows are in use until Release.
func (b Batch) Hold() {
	if b.memory != nil {
		b.memory.hold(b.Bytes())
	}
}

// Release ends what Hold began, once nothing refers to the columns any more. A
// batch that is never released is left to the garbage collector. Neighbours share
// memory, so what is freed is the sum of the Bytes of all those that were held and
// waited for this one, and 0 while others hold on.
func (b Batch) Release() (freed int) {
	if b.memory == nil {
		return b.Bytes()
	}
	return b.memory.release()
}
