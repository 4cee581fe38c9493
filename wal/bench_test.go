package wal

import (
	"fmt"
	"strings"
	"testing"
)

// decodeRound is what the reader does for each large piece of the log, but for the
// socket: take messages apart, gather rows, cut batches. Whoever sends them gives them
// back at once.
type decodeRound struct {
	assembler *assembler
	messages  [][]byte
	rows      int
}

func newDecodeRound(tb testing.TB, rows, perTransaction int) *decodeRound {
	tb.Helper()
	d := &decodeRound{assembler: newTestAssembler(0), rows: rows}
	if err := d.assembler.message(relationOf(7, "public", "outbox", "id", "note")); err != nil {
		tb.Fatal(err)
	}
	payload := `{"total": 12.50, "note": "` + strings.Repeat("x", 300) + `"}`
	at := LSN(0x100)
	for n := 0; n < rows; n += perTransaction {
		d.messages = append(d.messages, beginOf(at, commitTime, 42))
		for i := range min(perTransaction, rows-n) {
			d.messages = append(d.messages, insertOf(7, fmt.Sprint(n+i), payload))
		}
		at += 0x100
		d.messages = append(d.messages, commitOf(at-0x100, at-0x80))
	}
	return d
}

func (d *decodeRound) run(tb testing.TB) {
	tb.Helper()
	d.assembler.last = 0 // the same log again
	got := 0
	for _, m := range d.messages {
		if err := d.assembler.message(m); err != nil {
			tb.Fatal(err)
		}
		if d.assembler.full() {
			got += d.cut()
		}
	}
	if got += d.cut(); got != d.rows {
		tb.Fatalf("%d rows came, want %d", got, d.rows)
	}
}

func (d *decodeRound) cut() (rows int) {
	batch, ok := d.assembler.cut()
	if !ok {
		return 0
	}
	rows = len(batch.Rows)
	batch.Hold()
	batch.Release()
	return rows
}

func TestTheDecoderAllocatesNothing(t *testing.T) {
	for _, perTransaction := range []int{1, 100} {
		d := newDecodeRound(t, 5000, perTransaction)
		if n := testing.AllocsPerRun(50, func() { d.run(t) }); n > 1 {
			// One is an arena, when the garbage collector has taken the pool's.
			t.Errorf("%v allocations for 5000 rows, %d a transaction, want none", n, perTransaction)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	const rows = 1000
	for _, perTransaction := range []int{1, 100} {
		b.Run(fmt.Sprintf("rows=%d", perTransaction), func(b *testing.B) {
			d := newDecodeRound(b, rows, perTransaction)
			b.ReportAllocs()
			for b.Loop() {
				d.run(b)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/event")
		})
	}
}
