package wal

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// typedRelationOf is a Relation whose columns have types and modifiers.
func typedRelationOf(oid uint32, schema, name string, columns ...ColumnShape) []byte {
	m := binary.BigEndian.AppendUint32([]byte{kindRelation}, oid)
	m = append(m, schema+"\x00"+name+"\x00d"...)
	m = binary.BigEndian.AppendUint16(m, uint16(len(columns)))
	for _, c := range columns {
		m = append(m, "\x00"+c.Name+"\x00"...)
		m = binary.BigEndian.AppendUint32(m, c.Type)
		m = binary.BigEndian.AppendUint32(m, uint32(c.Modifier))
	}
	return m
}

func typeOf(oid uint32, schema, name string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kindType}, oid), schema+"\x00"+name+"\x00"...)
}

func TestRowsCarryTheShapeOfTheirTime(t *testing.T) {
	a := newTestAssembler(0)
	note := ColumnShape{Name: "note", Type: 1700, Modifier: 655366}
	id := ColumnShape{Name: "id", Type: 16500, Modifier: -1}
	feed(t, a,
		typeOf(16500, "", "bytea"), typedRelationOf(7, "public", "outbox", note, id),
		beginOf(0x100, commitTime, 42), insertOf(7, "1.5", "a"), insertOf(7, "2.5", "b"),
		typedRelationOf(7, "public", "outbox", id), insertOf(7, "c"), commitOf(0x100, 0x130))
	batch, _ := a.cut()
	id.TypeName, note.TypeName = "bytea", "numeric"
	want := []*Shape{
		{Schema: "public", Name: "outbox", Columns: []ColumnShape{note, id}, Read: []int{1, 0}},
		{Schema: "public", Name: "outbox", Columns: []ColumnShape{id}, Read: []int{0, -1}},
	}
	got := []*Shape{batch.Rows[0].Shape, batch.Rows[2].Shape}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shapes (-want +got):\n%s", diff)
	}
	if batch.Rows[1].Shape != batch.Rows[0].Shape {
		t.Error("rows of one relation do not share their shape")
	}
	if _, ok := got[1].Of(1); ok {
		t.Error("a column that is absent has a shape")
	}
	if c, ok := got[0].Of(1); !ok || c != note {
		t.Errorf("column 1 is %+v, want %+v", c, note)
	}
}

func TestAColumnOfAWrongTypeStopsTheStream(t *testing.T) {
	for name, c := range map[string]struct {
		column Column
		typ    uint32
		fine   bool
	}{
		"one of those":        {Column{OnlyTypes: []string{"int4", "int8"}}, 20, true},
		"none of those":       {Column{OnlyTypes: []string{"int4", "int8"}}, 25, false},
		"forbidden":           {Column{NotTypes: []string{"jsonb"}}, 3802, false},
		"not forbidden":       {Column{NotTypes: []string{"jsonb"}}, 25, true},
		"a domain over those": {Column{OnlyTypes: []string{"int4"}}, 16500, true},
		"forbidden domain":    {Column{NotTypes: []string{"int4"}}, 16500, false},
	} {
		a := newTestAssembler(0)
		c.column.Name = "id"
		a.tables[0].Columns[0] = c.column
		feed(t, a, typeOf(16500, "", "int4"), beginOf(0x100, commitTime, 42))
		err := a.message(typedRelationOf(7, "public", "outbox", ColumnShape{Name: "id", Type: c.typ, Modifier: -1}))
		if fine := err == nil; fine != c.fine || !fine && fault.Classify(err) != fault.Operator {
			t.Errorf("%s: %v", name, err)
		}
	}
}
