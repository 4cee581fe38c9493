package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// Batches of a tableSource end at either bound.
const (
	tableBatchRows  = 512
	tableBatchBytes = 256 << 10
)

const columnCreatedAt = "created_at"

// tableSource gives rows of the outbox tables in the order of their seq, one table
// after the other, as a Source that ends by itself. The ends of its batches are no
// positions of the log, which the table does not know: they count the rows, and the
// last one, of a batch without rows, says that there are no more.
type tableSource struct {
	tables    *wal.Tables // with columnsOfTables
	at        []rowPlaces // of each of them
	selection func(table int) wal.Selection
	begin     place
	stamp     func(row *wal.Row, n uint64) // gives a row what it is sent with; nil leaves it without a position
	close     func()

	shape *wal.Shape // of the table that is read

	mu     sync.Mutex
	given  wal.LSN // rows that were given, and one more at the end
	whole  bool    // given includes the end
	places []place // of the ends of batches, the oldest first
}

// place is how far a tableSource has come: everything of the tables before this one,
// and of this one up to a seq.
type place struct {
	at    wal.LSN
	Table int    `json:"table"`
	Seq   string `json:"seq"`
}

// columnsOfTables is config with what a tableSource reads beside the event's columns.
func columnsOfTables(config wal.Config) (wal.Config, []rowPlaces) {
	config.Tables = slices.Clone(config.Tables)
	at := make([]rowPlaces, len(config.Tables))
	for i := range config.Tables {
		t := &config.Tables[i]
		t.Columns = slices.Clone(t.Columns)
		at[i] = rowPlaces{seq: need(t, wal.ColumnSeq), created: need(t, columnCreatedAt)}
	}
	return config, at
}

// rowPlaces is where a tableSource's own columns are.
type rowPlaces struct{ seq, created int }

// need asks for a column unless it is asked for already, and says where it is.
func need(t *wal.Table, name string) int {
	at := slices.IndexFunc(t.Columns, func(c wal.Column) bool { return c.Name == name })
	if at < 0 {
		at = len(t.Columns)
		t.Columns = append(t.Columns, wal.Column{Name: name})
	}
	return at
}

// Run is Source's.
func (t *tableSource) Run(ctx context.Context, stop <-chan struct{}, out chan<- wal.Batch) error {
	defer close(out)
	defer t.close()
	reading, end := untilStop(ctx, stop)
	defer end()
	for table := t.begin.Table; table < len(t.at); table++ {
		selection := t.selection(table)
		if table == t.begin.Table {
			selection.After = t.begin.Seq
		}
		if err := t.read(reading, table, selection, out); err != nil {
			if reading.Err() != nil {
				return nil // a stop, or the session ends anyway
			}
			return err
		}
	}
	return t.give(reading, out, nil, place{Table: len(t.at)})
}

// errGone ends a scan that nobody waits for any more.
var errGone = errors.New("nobody takes the rows any more")

func (t *tableSource) read(ctx context.Context, table int, selection wal.Selection, out chan<- wal.Batch) error {
	var rows []wal.Row
	var err error
	if t.shape, err = t.tables.Shape(ctx, table); err != nil {
		return err
	}
	bytes := 0
	err = t.tables.Select(ctx, table, selection, func(columns [][]byte) error {
		row, size := t.row(table, columns)
		rows = append(rows, row)
		if bytes += size; len(rows) < tableBatchRows && bytes < tableBatchBytes {
			return nil
		}
		full := rows
		rows, bytes = nil, 0
		return t.give(ctx, out, full, t.placeOf(table, full))
	})
	if err != nil {
		return err
	}
	return t.give(ctx, out, rows, t.placeOf(table, rows))
}

// placeOf is behind the last of rows.
func (t *tableSource) placeOf(table int, rows []wal.Row) place {
	p := place{Table: table}
	if len(rows) > 0 {
		p.Seq = string(rows[len(rows)-1].Columns[t.at[table].seq])
	}
	return p
}

// row copies the columns, which are valid during the visit only.
func (t *tableSource) row(table int, columns [][]byte) (row wal.Row, size int) {
	for _, c := range columns {
		size += len(c)
	}
	text := make([]byte, 0, size)
	row = wal.Row{Table: table, Shape: t.shape, Columns: make([][]byte, len(columns)), Time: createdAt(columns[t.at[table].created])}
	for i, c := range columns {
		if c != nil {
			at := len(text)
			text = append(text, c...)
			row.Columns[i] = text[at:len(text):len(text)]
		}
	}
	return row, size
}

// createdAt reads the text of a timestamptz in UTC. The table does not know when a
// transaction was committed; when it began is the nearest that there is. Without that
// it is now.
func createdAt(text []byte) time.Time {
	at, err := time.Parse("2006-01-02 15:04:05.999999-07", string(text))
	if err != nil {
		return time.Now().UTC()
	}
	return at.UTC()
}

// give passes rows on; none at all are the end.
func (t *tableSource) give(ctx context.Context, out chan<- wal.Batch, rows []wal.Row, behind place) error {
	last := behind.Table == len(t.at)
	if len(rows) == 0 && !last {
		return nil
	}
	t.mu.Lock()
	for i := range rows {
		t.given++
		if t.stamp != nil {
			t.stamp(&rows[i], uint64(t.given))
		}
	}
	if last {
		t.given++
		t.whole = true
	}
	behind.at = t.given
	t.places = append(t.places, behind)
	batch := wal.NewBatch(rows, t.given)
	t.mu.Unlock()
	select {
	case out <- batch:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errGone, ctx.Err())
	}
}

// Confirm is Source's; a table forgets nothing.
func (t *tableSource) Confirm(wal.LSN) {}

// reached gives the place up to which everything is with the broker, when the mark is
// the end of a batch; ok is false before the first. whole says that this is all.
func (t *tableSource) reached(mark wal.LSN) (p place, whole, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(t.places) && t.places[n].at <= mark {
		p, ok = t.places[n], true
		n++
	}
	if n > 1 {
		t.places = slices.Delete(t.places, 0, n-1)
	}
	return p, t.whole && mark == t.given, ok
}
