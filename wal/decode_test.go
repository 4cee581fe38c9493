package wal

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// newTestAssembler reads two columns of public.outbox.
func newTestAssembler(from LSN) *assembler {
	return &assembler{
		tables: []Table{{Schema: "public", Name: "outbox", Columns: []Column{
			{Name: "id", Required: true}, {Name: "note"},
		}}},
		relations: map[uint32]relation{},
		warn:      func(string, string) {},
		batchRows: batchRows, batchBytes: batchBytes,
		last: from,
	}
}

func feed(t *testing.T, a *assembler, messages ...[]byte) {
	t.Helper()
	for _, m := range messages {
		if err := a.message(m); err != nil {
			t.Fatalf("message %q: %v", m[0], err)
		}
	}
}

var commitTime = time.Date(2026, 3, 4, 5, 6, 7, 89000, time.UTC)

func TestRowsAreNamedByCommitAndIndex(t *testing.T) {
	a := newTestAssembler(0)
	feed(t, a,
		relationOf(7, "public", "outbox", "note", "id"),
		beginOf(0x100, commitTime, 42), insertOf(7, "n1", "a"), insertOf(7, "n2", "b"), commitOf(0x100, 0x130),
		beginOf(0x200, commitTime, 43), insertOf(7, "n3", "c"))
	batch, ok := a.cut()
	if !ok {
		t.Fatal("no batch")
	}
	type short struct {
		Commit LSN
		Index  int
		XID    uint32
		ID     string
		Note   string
	}
	var got []short
	for _, r := range batch.Rows {
		got = append(got, short{r.Commit, r.Index, r.XID, string(r.Columns[0]), string(r.Columns[1])})
		if !r.Time.Equal(commitTime) {
			t.Errorf("commit time %v, want %v", r.Time, commitTime)
		}
	}
	want := []short{{0x100, 0, 42, "a", "n1"}, {0x100, 1, 42, "b", "n2"}, {0x200, 0, 43, "c", "n3"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if batch.End != 0x130 {
		t.Errorf("End %v, want the end of the finished transaction 0/130", batch.End)
	}
}

func TestBatchInsideATransactionHasNoEnd(t *testing.T) {
	a := newTestAssembler(0)
	feed(t, a, relationOf(7, "public", "outbox", "id"), beginOf(0x100, commitTime, 42), insertOf(7, "a"))
	if batch, _ := a.cut(); batch.End != 0 {
		t.Errorf("End %v inside a transaction, want none", batch.End)
	}
	feed(t, a, insertOf(7, "b"), commitOf(0x100, 0x130))
	batch, _ := a.cut()
	if batch.End != 0x130 || len(batch.Rows) != 1 || batch.Rows[0].Index != 1 {
		t.Errorf("batch after the commit: end %v, %d rows; want 0/130 and the second row", batch.End, len(batch.Rows))
	}
}

func TestKeepaliveCountsOnlyOutsideATransactionAndForward(t *testing.T) {
	a := newTestAssembler(0x100)
	a.keepalive(0x80)
	if b, ok := a.cut(); ok {
		t.Errorf("a keepalive behind the start gave end %v, want nothing", b.End)
	}
	feed(t, a, beginOf(0x200, commitTime, 42))
	a.keepalive(0x200)
	if b, ok := a.cut(); ok {
		t.Errorf("a keepalive inside a transaction gave end %v, want nothing", b.End)
	}
	feed(t, a, commitOf(0x200, 0x230))
	a.keepalive(0x300)
	if b, _ := a.cut(); b.End != 0x300 {
		t.Errorf("End %v, want the keepalive's 0/300", b.End)
	}
}

func TestNullEmptyAndAbsentColumnsDiffer(t *testing.T) {
	a := newTestAssembler(0)
	empty, absent := "", []byte(nil)
	insert := append([]byte{'I', 0, 0, 0, 7, 'N', 0, 2, 'n'}, 't', 0, 0, 0, 0)
	feed(t, a, relationOf(7, "public", "outbox", "note", "id"), beginOf(0x100, commitTime, 42), insert)
	batch, _ := a.cut()
	if got := batch.Rows[0].Columns; got[1] != nil || got[0] == nil || string(got[0]) != empty {
		t.Errorf("columns %q, want id empty and note null %q", got, absent)
	}
}

func TestRelationMayChangeInsideATransaction(t *testing.T) {
	a := newTestAssembler(0)
	feed(t, a,
		relationOf(7, "public", "outbox", "id"), beginOf(0x100, commitTime, 42), insertOf(7, "a"),
		relationOf(7, "public", "outbox", "extra", "id", "note"), insertOf(7, "x", "b", "n"), commitOf(0x100, 0x130))
	batch, _ := a.cut()
	if len(batch.Rows) != 2 || string(batch.Rows[1].Columns[0]) != "b" || string(batch.Rows[1].Columns[1]) != "n" {
		t.Errorf("rows %+v, want the second mapped by the new shape", batch.Rows)
	}
}

func TestBrokenProtocolIsAnErrorThatNamesThePlace(t *testing.T) {
	relation := relationOf(7, "public", "outbox", "id", "note")
	begin := beginOf(0x100, commitTime, 42)
	cases := map[string][][]byte{
		"unknown kind":                 {{'?'}},
		"insert outside a transaction": {relation, insertOf(7, "a", "b")},
		"unknown relation":             {begin, insertOf(8, "a", "b")},
		"too many columns":             {relation, begin, insertOf(7, "a", "b", "c")},
		"too few columns":              {relation, begin, insertOf(7, "a")},
		"begin inside a transaction":   {begin, beginOf(0x200, commitTime, 43)},
		"commit without begin":         {commitOf(0x100, 0x130)},
		"commit of another":            {begin, commitOf(0x110, 0x130)},
		"commit that ends before":      {begin, commitOf(0x100, 0x90)},
		"trailing bytes":               {relation, begin, append(insertOf(7, "a", "b"), 0)},
		"unchanged column":             {relation, begin, {'I', 0, 0, 0, 7, 'N', 0, 2, 'u', 'n'}},
		"binary column":                {relation, begin, {'I', 0, 0, 0, 7, 'N', 0, 2, 'b', 0, 0, 0, 0, 'n'}},
		"old tuple in an insert":       {relation, begin, {'I', 0, 0, 0, 7, 'O', 0, 2, 'n', 'n'}},
		"length beyond the message":    {relation, begin, {'I', 0, 0, 0, 7, 'N', 0, 2, 'n', 't', 0x3F, 0, 0, 0, 'x'}},
	}
	for name, messages := range cases {
		t.Run(name, func(t *testing.T) {
			a := newTestAssembler(0)
			last := len(messages) - 1
			feed(t, a, messages[:last]...)
			err := a.message(messages[last])
			if fault.Classify(err) != fault.Operator || err == nil {
				t.Fatalf("error %v, want an operator error", err)
			}
			if b, _ := a.cut(); b.End != 0 {
				t.Errorf("End %v after a broken message, want none", b.End)
			}
		})
	}
}

func TestMissingRequiredColumnStopsAndNamesIt(t *testing.T) {
	a := newTestAssembler(0)
	feed(t, a, beginOf(0x100, commitTime, 42))
	err := a.message(relationOf(7, "public", "outbox", "note"))
	if err == nil || fault.Classify(err) != fault.Operator || !bytes.Contains([]byte(err.Error()), []byte(`"id"`)) {
		t.Errorf("error %v, want an operator error that names the column id", err)
	}
}

func TestRenamedTableStops(t *testing.T) {
	a := newTestAssembler(0)
	feed(t, a, relationOf(7, "public", "outbox", "id"))
	if err := a.message(relationOf(7, "public", "outbox_old", "id")); err == nil || fault.Classify(err) != fault.Operator {
		t.Errorf("error %v, want an operator error", err)
	}
}

func TestRowsThatCameUnderAnotherNameAreRead(t *testing.T) {
	a := newTestAssembler(0)
	a.oids = []uint32{7}
	a.warn = func(schema, name string) { t.Errorf("rows of %s.%s are dropped", schema, name) }
	feed(t, a, beginOf(0x100, commitTime, 42),
		relationOf(7, "app", "outbox_old", "note", "id"), insertOf(7, "n", "1"),
		relationOf(7, "public", "outbox", "id", "note"), insertOf(7, "2", "n"), commitOf(0x100, 0x130))
	b, _ := a.cut()
	if len(b.Rows) != 2 || string(b.Rows[0].Columns[0]) != "1" || string(b.Rows[1].Columns[0]) != "2" {
		t.Errorf("rows %+v, want both", b.Rows)
	}
}

func TestUnlistedTableIsDroppedAloudOnce(t *testing.T) {
	a := newTestAssembler(0)
	warned := 0
	a.warn = func(string, string) { warned++ }
	feed(t, a, relationOf(9, "public", "other", "id"), beginOf(0x100, commitTime, 42),
		insertOf(9, "a"), insertOf(9, "b"), commitOf(0x100, 0x130))
	batch, _ := a.cut()
	if len(batch.Rows) != 0 || batch.End != 0x130 || warned != 1 {
		t.Errorf("%d rows, end %v, %d warnings; want none, 0/130 and one", len(batch.Rows), batch.End, warned)
	}
}

func TestBatchesShareMemoryAndGiveItBackTogether(t *testing.T) {
	a := newTestAssembler(0)
	feed(t, a, relationOf(7, "public", "outbox", "id", "note"), beginOf(0x100, commitTime, 42), insertOf(7, "a", "secret"))
	first, _ := a.cut()
	feed(t, a, insertOf(7, "b", "note"))
	second, _ := a.cut()
	feed(t, a, commitOf(0x100, 0x130))
	if first.memory != second.memory {
		t.Error("a batch of one row took an arena of its own")
	}
	first.Hold()
	second.Hold()
	if freed := second.Release(); freed != 0 {
		t.Errorf("the second batch freed %d bytes while the first is held, want none", freed)
	}
	if freed, want := first.Release(), first.Bytes()+second.Bytes(); freed != want {
		t.Errorf("the last batch freed %d bytes, want those of both, %d", freed, want)
	}
	memory := a.room()
	if memory != first.memory || len(memory.rows) != 0 || len(memory.text) != 0 {
		t.Error("an idle arena is not used again from its beginning")
	}
	if memory.columns[:2][1] != nil {
		t.Errorf("an arena that is used again holds %q", memory.columns[:2])
	}
}

func TestAFullArenaIsLeftToItsBatches(t *testing.T) {
	a := newTestAssembler(0)
	feed(t, a, relationOf(7, "public", "outbox", "id", "note"), beginOf(0x100, commitTime, 42))
	large := string(bytes.Repeat([]byte("x"), arenaBytes))
	feed(t, a, insertOf(7, "a", large))
	if !a.full() {
		t.Fatal("a batch whose arena is full is not cut")
	}
	first, _ := a.cut()
	feed(t, a, insertOf(7, "b", "note"))
	if a.memory == first.memory {
		t.Error("a full arena takes another row")
	}
	if string(first.Rows[0].Columns[0]) != "a" || string(first.Rows[0].Columns[1]) != large {
		t.Error("the row that filled the arena changed")
	}
	first.Hold()
	if freed := first.Release(); freed != first.Bytes() {
		t.Errorf("freed %d bytes, want %d", freed, first.Bytes())
	}
}

func TestColumnSlotsStartAsNull(t *testing.T) {
	a := newArena()
	copy(a.newColumns(2), [][]byte{[]byte("old"), []byte("values")})
	a.columns = a.columns[:0]
	if got := a.newColumns(2); got[0] != nil || got[1] != nil {
		t.Errorf("new column slots hold %q, want NULL", got)
	}
}

func TestTextThatDoesNotFitKeepsItsNeighbours(t *testing.T) {
	a := newArena()
	small := a.copyText([]byte("small"))
	large := a.copyText(bytes.Repeat([]byte("x"), 2*arenaBytes))
	next := a.copyText([]byte("next"))
	if string(small) != "small" || string(next) != "next" || len(large) != 2*arenaBytes || !a.full() {
		t.Error("a column changed when its neighbour was copied, or the arena goes on")
	}
}

func TestParseLSNTakesTwoHexGroupsAndNothingElse(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/ffffffff": 1<<64 - 1} {
		if got, err := ParseLSN(text); err != nil || got != want {
			t.Errorf("ParseLSN(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "/", "1", "1/", "/1", " 1/2", "1/2 ", "1/2zzz", "1/2 3", "100000000/0", "0/FFFFFFFFFF", "-1/2", "+1/2", "0x1/2", "1/2/3", "1_0/2"} {
		if got, err := ParseLSN(text); err == nil {
			t.Errorf("ParseLSN(%q) = %v, want an error", text, got)
		}
	}
	if got := string(LSN(0x16B374D848).AppendHex(nil)); got != "00000016B374D848" {
		t.Errorf("AppendHex %q, want 16 digits", got)
	}
}

// FuzzMessage feeds one message after a relation and a begin. Whatever it holds,
// there is no panic, what is kept is bounded by the input, and on messages that
// pglogrepl accepts too both see the same row.
func FuzzMessage(f *testing.F) {
	f.Add(insertOf(7, "a", "b"))
	f.Add(relationOf(7, "public", "outbox", "id"))
	f.Add(commitOf(0x100, 0x130))
	f.Add(beginOf(0x200, commitTime, 1))
	f.Add([]byte{'I', 0, 0, 0, 7, 'N', 0, 2, 'n', 't', 0x3F, 0, 0, 0, 'x'})
	f.Add([]byte{'O', 0, 0, 0, 0, 0, 0, 0, 0, 'x', 0})
	f.Add([]byte{'T', 0, 0, 0, 1, 0, 0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) == 0 {
			return
		}
		a := newTestAssembler(0)
		feed(t, a, relationOf(7, "public", "outbox", "id", "note"), beginOf(0x100, commitTime, 42))
		err := a.message(message)
		batch, _ := a.cut()
		if batch.TextBytes() > len(message) {
			t.Fatalf("%d bytes of text from a message of %d", batch.TextBytes(), len(message))
		}
		if err == nil && message[0] == 'I' && len(batch.Rows) == 1 {
			compare(t, message, batch.Rows[0])
		}
	})
}

func compare(t *testing.T, message []byte, row Row) {
	t.Helper()
	parsed, err := pglogrepl.Parse(message)
	if err != nil {
		t.Fatalf("pglogrepl refuses what we accept: %v", err)
	}
	insert, ok := parsed.(*pglogrepl.InsertMessage)
	if !ok {
		t.Fatalf("pglogrepl reads a %T", parsed)
	}
	for i, want := range insert.Tuple.Columns {
		if null := want.DataType == 'n'; null != (row.Columns[i] == nil) || !bytes.Equal(want.Data, row.Columns[i]) {
			t.Errorf("column %d is %q, pglogrepl reads %q (%c)", i, row.Columns[i], want.Data, want.DataType)
		}
	}
}

func TestTruncatedMessagesNeverPanicAndNeverPass(t *testing.T) {
	begin := beginOf(0x100, commitTime, 42)
	for _, whole := range [][]byte{insertOf(7, "abc", "def"), relationOf(8, "public", "outbox", "id", "note"), commitOf(0x100, 0x130), typeOf(9, "public", "mood")} {
		for n := 1; n < len(whole); n++ {
			a := newTestAssembler(0)
			feed(t, a, relationOf(7, "public", "outbox", "id", "note"), begin)
			if err := a.message(whole[:n]); !errors.Is(err, errTruncated) {
				t.Errorf("%q cut to %d of %d bytes: error %v, want truncated", whole[0], n, len(whole), err)
			}
		}
	}
}
