package wal

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func messageOf(transactional bool, end LSN, prefix, content string) []byte {
	m := []byte{kindMessage, 0}
	if transactional {
		m[1] = 1
	}
	m = binary.BigEndian.AppendUint64(m, uint64(end))
	m = append(m, prefix+"\x00"...)
	m = binary.BigEndian.AppendUint32(m, uint32(len(content)))
	return append(m, content...)
}

func newMessageAssembler(from LSN) *assembler {
	a := newTestAssembler(from)
	a.prefix = "ours"
	return a
}

func TestATransactionsMessageIsARowInItsPlace(t *testing.T) {
	a := newMessageAssembler(0)
	feed(t, a, relationOf(7, "public", "outbox", "id"), beginOf(0x100, commitTime, 42), insertOf(7, "a"),
		messageOf(true, 0x90, "foreign", "x"), messageOf(true, 0x98, "ours", "\x00\xff"), insertOf(7, "b"), commitOf(0x100, 0x130))
	batch, _ := a.cut()
	if len(batch.Rows) != 3 || batch.End != 0x130 {
		t.Fatalf("%d rows to %v, want 3 to 0/130", len(batch.Rows), batch.End)
	}
	got := batch.Rows[1]
	if got.Commit != 0x100 || got.Index != 1 || got.XID != 42 || got.Alone || !got.Time.Equal(commitTime) || got.Table != 1 || string(got.Columns[0]) != "\x00\xff" {
		t.Errorf("message came as %+v", got)
	}
	if batch.Rows[2].Index != 2 {
		t.Errorf("the row behind it has index %d, want 2", batch.Rows[2].Index)
	}
}

func TestAMessageOutsideATransactionIsAUnitOfItsOwn(t *testing.T) {
	a := newMessageAssembler(0x80)
	a.clock = uint64(time.Second / time.Microsecond)
	feed(t, a, messageOf(false, 0x100, "ours", "one"))
	batch, _ := a.cut()
	if len(batch.Rows) != 1 || batch.End != 0x100 {
		t.Fatalf("%d rows to %v, want one that may be confirmed at the end of its record", len(batch.Rows), batch.End)
	}
	if r := batch.Rows[0]; !r.Alone || r.Commit != 0xFF || r.Index != 0 || !r.Time.Equal(time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC)) {
		t.Errorf("it came as %+v", r)
	}
	// A transaction whose commit record begins where that one ends.
	feed(t, a, relationOf(7, "public", "outbox", "id"), beginOf(0x100, commitTime, 42), insertOf(7, "a"), commitOf(0x100, 0x130))
	next, _ := a.cut()
	if next.Rows[0].Commit == batch.Rows[0].Commit {
		t.Error("two events have one position")
	}
}

func TestMessagesOfOthersAreNoRowsAndNoPositions(t *testing.T) {
	a := newMessageAssembler(0x80)
	feed(t, a, messageOf(false, 0x100, "foreign", "x"), messageOf(false, 0x110, "ours2", "x"), messageOf(false, 0x120, "our", "x"))
	if b, ok := a.cut(); ok {
		t.Errorf("they gave %d rows and end %v, want nothing", len(b.Rows), b.End)
	}
	none := newTestAssembler(0x80)
	feed(t, none, messageOf(false, 0x100, "", "x"), messageOf(false, 0x110, "ours", "x"))
	if b, ok := none.cut(); ok {
		t.Errorf("without a prefix they gave %d rows and end %v, want nothing", len(b.Rows), b.End)
	}
}

func TestMessagesThatBreakTheProtocolStopTheStream(t *testing.T) {
	for name, c := range map[string]struct{ before, message []byte }{
		"alone inside a transaction":   {beginOf(0x100, commitTime, 42), messageOf(false, 0x90, "ours", "x")},
		"of a transaction outside one": {nil, messageOf(true, 0x90, "ours", "x")},
		"behind what is known":         {nil, messageOf(false, 0x80, "ours", "x")},
		"with something behind it":     {nil, append(messageOf(false, 0x90, "ours", "x"), 0)},
	} {
		a := newMessageAssembler(0x80)
		if c.before != nil {
			feed(t, a, c.before)
		}
		if err := a.message(c.message); fault.Classify(err) != fault.Operator || err == nil {
			t.Errorf("%s: %v, want an operator error", name, err)
		}
	}
	whole := messageOf(false, 0x90, "ours", "abc")
	for n := 1; n < len(whole); n++ {
		if err := newMessageAssembler(0x80).message(whole[:n]); !errors.Is(err, errTruncated) {
			t.Errorf("cut to %d bytes: %v, want truncated", n, err)
		}
	}
}
