package pipeline

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// excerpt is a piece of the log as a Source: the transactions that commit before an
// end, read from a copy of a slot that goes with the connection. Nothing that it does
// moves the slot that was copied. It ends by itself.
type excerpt struct {
	stream *wal.Stream
	from   wal.LSN
	to     wal.LSN                 // transactions that commit before it
	keep   func(row *wal.Row) bool // nil keeps all
}

// openExcerpt copies slot and begins at from, or where the slot stands when from is
// 0. A slot that stands behind from cannot go back there, and the server would not
// say so: that is an operator error.
func openExcerpt(ctx context.Context, config wal.Config, slot string, from, to wal.LSN) (*excerpt, error) {
	conn, err := wal.Connect(ctx, config)
	if err != nil {
		return nil, err
	}
	e, err := copyExcerpt(ctx, conn, slot, from, to)
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return e, nil
}

func copyExcerpt(ctx context.Context, conn *wal.Conn, slot string, from, to wal.LSN) (*excerpt, error) {
	if _, err := wal.Preflight(ctx, conn); err != nil { // learns which tables there are
		return nil, err
	}
	if err := conn.BorrowSlot(ctx, slot); err != nil {
		return nil, err
	}
	copied, _, err := conn.Slot(ctx)
	if err != nil {
		return nil, err
	}
	if from == 0 {
		from = copied.Confirmed
	}
	if copied.Confirmed > from {
		return nil, fault.NewOperator(fmt.Errorf("slot %s stands at %v and cannot give what was committed at %v", slot, copied.Confirmed, from),
			"begin there, or plan again")
	}
	stream, err := conn.Start(ctx, from)
	if err != nil {
		return nil, err
	}
	return &excerpt{stream: stream, from: from, to: to}, nil
}

// Run is Source's.
func (e *excerpt) Run(ctx context.Context, stop <-chan struct{}, out chan<- wal.Batch) error {
	defer close(out)
	reading, end := context.WithCancel(ctx)
	defer end()
	batches, gone := make(chan wal.Batch), make(chan struct{})
	var reader errgroup.Group
	reader.Go(func() (err error) {
		defer close(gone)
		defer fault.Catch(func(bug error) { err = bug })
		return e.stream.Run(reading, stop, batches)
	})
	e.pass(stop, gone, batches, out)
	end()
	// What it still gives is behind the end, or nobody wants it any more.
	for _, more := next(batches, gone); more; {
		_, more = next(batches, gone)
	}
	return reader.Wait()
}

// next is false when there are no more batches, or who gave them broke.
func next(batches <-chan wal.Batch, gone <-chan struct{}) (batch wal.Batch, more bool) {
	select {
	case batch, more = <-batches:
		return batch, more
	case <-gone:
		return batch, false
	}
}

// pass passes batches on up to the end.
func (e *excerpt) pass(stop, gone <-chan struct{}, batches <-chan wal.Batch, out chan<- wal.Batch) {
	for {
		batch, more := next(batches, gone)
		if !more {
			return
		}
		batch, last := e.cut(batch)
		if len(batch.Rows) > 0 || batch.End != 0 {
			select {
			case out <- batch:
			case <-stop:
				return
			}
		}
		if last {
			return
		}
	}
}

// cut leaves of a batch what lies before the end and is to be kept. The last batch
// ends at the end: transactions come in the order of their commits, so that nothing
// before it is still to come.
func (e *excerpt) cut(batch wal.Batch) (cut wal.Batch, last bool) {
	kept := batch.Rows[:0]
	for i := range batch.Rows {
		row := &batch.Rows[i]
		if row.Commit >= e.to {
			last = true
			break
		}
		if e.keep == nil || e.keep(row) {
			kept = append(kept, *row)
		}
	}
	batch.Rows = kept
	if last = last || batch.End >= e.to; last {
		batch.End = e.to
	}
	return batch, last
}

// Confirm is Source's. The end that was put in the place of a later one is not the
// copy's to know.
func (e *excerpt) Confirm(lsn wal.LSN) {
	if lsn <= e.stream.Read() && lsn >= e.stream.Confirmed() {
		e.stream.Confirm(lsn)
	}
}

// each calls visit for every row of the excerpt and with each end of a batch, in
// order, until it gives an error.
func (e *excerpt) each(ctx context.Context, visit func(batch wal.Batch) error) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	stop, batches := make(chan struct{}), make(chan wal.Batch)
	var reader errgroup.Group
	reader.Go(func() error { return fault.Guard(func() error { return e.Run(ctx, stop, batches) }) })
	var visited error
	for batch := range batches {
		batch.Hold()
		if visited == nil {
			if visited = visit(batch); visited != nil {
				close(stop)
				end()
			}
		}
		batch.Release()
	}
	if err := reader.Wait(); visited == nil {
		return err
	}
	return visited
}
