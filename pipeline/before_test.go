package pipeline

import (
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestWhatIsBeforeABadRowIsConfirmed(t *testing.T) {
	rows := func(end wal.LSN, commits ...wal.LSN) wal.Batch {
		b := wal.Batch{End: end}
		for _, c := range commits {
			b.Rows = append(b.Rows, wal.Row{Commit: c})
		}
		return b
	}
	for name, c := range map[string]struct {
		batch      wal.Batch
		bad        int
		begun, end wal.LSN
		good       int
	}{
		"behind other transactions":                {batch: rows(31, 10, 20, 30), bad: 2, begun: 5, good: 2, end: 30},
		"in the midst of its transaction":          {batch: rows(21, 10, 20, 20), bad: 2, begun: 5, good: 1, end: 20},
		"in a transaction that did not end":        {batch: rows(11, 10, 20, 20), bad: 2, begun: 5, good: 1, end: 11},
		"first, behind an end that came before it": {batch: rows(11, 20, 20), bad: 0, begun: 5, good: 0, end: 11},
		"first, and nothing ended":                 {batch: rows(0, 20, 20), bad: 0, begun: 11, good: 0, end: 0},
		"in a transaction that is in the ledger":   {batch: rows(21, 20), bad: 0, begun: 20, good: 0, end: 0},
	} {
		if good, end := before(c.batch, c.bad, c.begun); good != c.good || end != c.end {
			t.Errorf("%s: %d rows up to %v, want %d up to %v", name, good, end, c.good, c.end)
		}
	}
}

func TestOnlyWhatWasReadIsConfirmedBeforeABadRow(t *testing.T) {
	bad := func() wal.Batch {
		b := batchOf(0x1300, "c", "")
		b.End = 0 // its commit is not read yet
		return b
	}
	for name, c := range map[string]struct {
		batches []wal.Batch
		want    wal.LSN
	}{
		"in the read that ends the transaction before": {want: 0x1200, batches: []wal.Batch{
			batchOf(0x1100, "a"),
			{Rows: append(batchOf(0x1200, "b").Rows, bad().Rows...), End: 0x1200},
		}},
		"behind an end that came with it": {want: 0x1200, batches: []wal.Batch{
			{Rows: append(batchOf(0x1100, "a").Rows, batchOf(0x1200, "b").Rows...), End: 0x1100},
			{Rows: bad().Rows, End: 0x1200},
		}},
		"in a read of its own": {want: 0x1200, batches: []wal.Batch{batchOf(0x1200, "a", "b"), bad()}},
	} {
		t.Run(name, func(t *testing.T) {
			inTrial(t, func(t *testing.T, x *trial) {
				for _, b := range c.batches {
					x.batches <- b
				}
				(<-x.sink.acks)(nil)
				(<-x.sink.acks)(nil)
				close(x.sink.flush)
				if err := <-x.done; fault.Classify(err) != fault.Data {
					t.Errorf("session ended with %v, want a data error", err)
				}
				if x.at != c.want || x.beyond != 0 {
					t.Errorf("confirmed %v, and %v, which was not read; want %v", x.at, x.beyond, c.want)
				}
			})
		})
	}
}
