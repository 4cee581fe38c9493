package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/outboxcdc/outboxcdc/wal"
)

// memoryLot is a table of parked rows that outlives sessions. It keeps copies, as a
// database does.
type memoryLot struct {
	mu   sync.Mutex
	rows []lotRow // in the order of the log

	fail     func() error // asked before each change and each look; nil never fails
	failPark bool         // of these, only Park
	failLate func() error // asked after each change, which then has happened; nil never fails
}

// late is what a change ends with that was made.
func (l *memoryLot) late() error {
	if l.failLate == nil {
		return nil
	}
	return l.failLate()
}

type lotRow struct {
	wal.ParkedRow

	state string // empty while it is parked
}

func (l *memoryLot) begin() (end func(), err error) {
	l.mu.Lock()
	if l.fail != nil && !l.failPark {
		err = l.fail()
	}
	return l.mu.Unlock, err
}

func (l *memoryLot) Load(_ context.Context, from wal.LSN) (heads []wal.ParkedHead, err error) {
	end, err := l.begin()
	defer end()
	for i := range l.rows {
		r := &l.rows[i]
		if r.state == "" || r.Commit >= from {
			heads = append(heads, wal.ParkedHead{Place: r.Place, Aggregate: r.Aggregate, Bytes: r.Bytes(), Cause: r.Cause, Reason: r.Reason, Settled: r.state != ""})
		}
	}
	return heads, err
}

func (l *memoryLot) Park(_ context.Context, rows []wal.ParkedRow) error {
	end, err := l.begin()
	defer end()
	if l.failPark {
		err = l.fail()
	}
	if err != nil {
		return err
	}
	for i := range rows {
		if slices.ContainsFunc(l.rows, func(r lotRow) bool { return r.Place == rows[i].Place }) {
			continue
		}
		r := rows[i]
		r.Aggregate, r.ID, r.Type, r.Event = bytes.Clone(r.Aggregate), bytes.Clone(r.ID), bytes.Clone(r.Type), bytes.Clone(r.Event)
		r.Columns = nil
		for _, c := range rows[i].Columns {
			r.Columns = append(r.Columns, bytes.Clone(c))
		}
		l.rows = append(l.rows, lotRow{ParkedRow: r})
	}
	slices.SortFunc(l.rows, func(a, b lotRow) int {
		return cmp.Or(cmp.Compare(a.Commit, b.Commit), cmp.Compare(a.Index, b.Index))
	})
	return l.late()
}

func (l *memoryLot) Rekey(_ context.Context, rows []wal.ParkedRow) error {
	end, err := l.begin()
	defer end()
	if err != nil {
		return err
	}
	for i := range rows {
		at := slices.IndexFunc(l.rows, func(r lotRow) bool { return r.Place == rows[i].Place })
		l.rows[at].Aggregate, l.rows[at].Type = bytes.Clone(rows[i].Aggregate), bytes.Clone(rows[i].Type)
	}
	return l.late()
}

func (l *memoryLot) Asked(context.Context) (requests []wal.Request, err error) {
	end, err := l.begin()
	defer end()
	for i := range l.rows {
		r := &l.rows[i]
		if r.state != "" || r.Asked == "" {
			continue
		}
		at := slices.IndexFunc(requests, func(q wal.Request) bool { return bytes.Equal(q.Aggregate, r.Aggregate) })
		if at < 0 {
			requests = append(requests, wal.Request{Aggregate: r.Aggregate})
			at = len(requests) - 1
		}
		requests[at].Retry = requests[at].Retry || r.Asked == wal.AskRetry
	}
	return requests, err
}

// line calls visit for the parked rows of an aggregate, in order.
func (l *memoryLot) line(aggregate []byte, visit func(r *lotRow)) {
	for i := range l.rows {
		if r := &l.rows[i]; r.state == "" && bytes.Equal(r.Aggregate, aggregate) {
			visit(r)
		}
	}
}

func (l *memoryLot) Rows(_ context.Context, aggregate []byte, after wal.Place, limit, size int) (rows []wal.ParkedRow, err error) {
	end, err := l.begin()
	defer end()
	taken := 0
	l.line(aggregate, func(r *lotRow) {
		if after.Before(r.Place) && len(rows) < limit && taken < size {
			rows = append(rows, r.ParkedRow)
			taken += r.Bytes()
		}
	})
	return rows, err
}

func (l *memoryLot) Settle(_ context.Context, aggregate []byte, upTo wal.Place) error {
	end, err := l.begin()
	defer end()
	if err != nil {
		return err
	}
	l.line(aggregate, func(r *lotRow) {
		if upTo.Before(r.Place) {
			r.Asked = cmp.Or(r.Asked, wal.AskRetry)
			return
		}
		r.state, r.Asked = wal.ParkedSent, ""
	})
	return l.late()
}

func (l *memoryLot) Drop(_ context.Context, aggregate []byte) (rows []wal.ParkedRow, err error) {
	end, err := l.begin()
	defer end()
	if err != nil {
		return nil, err
	}
	l.line(aggregate, func(r *lotRow) {
		if r.Asked == wal.AskDrop {
			r.state, r.Asked = wal.ParkedDropped, ""
			rows = append(rows, r.ParkedRow)
		}
	})
	return rows, l.late()
}

func (l *memoryLot) Refuse(_ context.Context, row *wal.ParkedRow, cause, reason string) error {
	end, err := l.begin()
	defer end()
	if err != nil {
		return err
	}
	l.line(row.Aggregate, func(r *lotRow) {
		if r.Asked == wal.AskRetry {
			r.Asked = ""
		}
		if r.Place == row.Place {
			r.Cause, r.Reason = cause, reason
		}
	})
	return nil
}

func (l *memoryLot) Close() error { return nil }

// ask is outboxcdc dlq, for the rows that which names.
func (l *memoryLot) ask(what string, which func(r *wal.ParkedRow) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.rows {
		if r := &l.rows[i]; r.state == "" && which(&r.ParkedRow) {
			r.Asked = what
		}
	}
}

func anyRow(*wal.ParkedRow) bool { return true }
