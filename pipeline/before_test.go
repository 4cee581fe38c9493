package pipeline

import (
	"testing"

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
