package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Status is where a stream stands, looked at from outside: from what is saved and what
// the server says. Confirmed ≤ Saved ≤ End.
type Status struct {
	Slot      string
	Exists    bool    // the slot
	Confirmed wal.LSN // the slot may forget what ends before
	Saved     wal.LSN // everything that ends at or before it is with the broker; 0 when nothing is saved
	End       wal.LSN // of the server's log

	SavedAt   time.Time           // zero when nothing is saved
	Delivered checkpoint.Snapshot // unknown until a stream has run for some seconds

	Messages      string        // prefix of logical messages, which nobody can count; empty when none are streamed
	LagBytes      int64         // of log behind what is saved
	Tables        []TableStatus // in the order of the configuration
	LagAge        time.Duration // age of the oldest row that is pending
	RetainedBytes int64         // log kept because of the slot
	SafeBytes     int64         // log that may still be written before the slot is lost; -1 when not limited
	Server        wal.Overview
	Gaps          []checkpoint.Gap // that were accepted
	Parked        wal.ParkedCount  // rows that wait aside; see OnErrorPark
	Verdict       Verdict
}

// TableStatus is how many rows of a table the broker may not hold yet.
type TableStatus struct {
	Table   string
	Rows    int64  // -1 when they cannot be counted
	Problem string // why, in a sentence; empty when they are counted
}

// countTimeout bounds the counting of pending rows: it reads whole tables.
const countTimeout = 5 * time.Second

// LookAtStatus looks once. It changes nothing. An error means that it could not look;
// that something must be mended is in the Verdict.
func LookAtStatus(ctx context.Context, config Config) (s Status, err error) {
	config.setDefaults()
	r := &Runner{config: config, logger: config.Logger}
	if r.store, err = checkpoint.Open(ctx, config.Checkpoint, config.storeOptions()); err != nil {
		return s, err
	}
	defer r.closeStore()
	conn, err := wal.Connect(ctx, config.Wal)
	if err != nil {
		return s, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	e, err := r.gather(ctx, conn)
	if err != nil {
		return s, err
	}
	if s.Verdict, err = judge(e); err != nil {
		return s, err
	}
	if s.Server, err = conn.Overview(ctx); err != nil {
		return s, err
	}
	if s.Parked, err = conn.Parked(ctx); err != nil {
		return s, err
	}
	s.Messages = config.Wal.MessagePrefix
	s.fill(e)
	if historian, ok := r.store.(checkpoint.Historian); ok {
		entries, err := historian.History(ctx)
		if err != nil {
			return s, err
		}
		s.Gaps = checkpoint.Gaps(entries)
	}
	err = r.countPending(ctx, e, &s)
	return s, err
}

func (s *Status) fill(e evidence) {
	s.End, s.SafeBytes = e.identity.Flush, -1
	if e.slot != nil {
		s.Exists, s.Slot, s.Confirmed = true, e.slot.Name, e.slot.Confirmed
		s.RetainedBytes, s.SafeBytes = e.slot.RetainedBytes, e.slot.SafeBytes
	}
	behind := s.Confirmed
	if e.saved != nil {
		s.Slot, s.Saved, s.SavedAt, s.Delivered = e.saved.Slot, e.saved.LSN, e.saved.Time, e.saved.Delivered
		behind = s.Saved
	}
	if behind != 0 && behind < s.End {
		s.LagBytes = int64(s.End - behind)
	}
}

// countPending fills in the tables.
func (r *Runner) countPending(ctx context.Context, e evidence, s *Status) error {
	tables, err := wal.OpenTables(ctx, r.config.Wal)
	if err != nil {
		return err
	}
	defer tables.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	for i, t := range r.config.Wal.Tables {
		status := TableStatus{Table: t.Display(), Rows: -1}
		d, err := r.delivered(ctx, tables, i, e)
		if err == nil {
			var p wal.Pending
			if p, err = tables.Pending(ctx, i, d, countTimeout); err == nil {
				status.Rows, s.LagAge = p.Rows, max(s.LagAge, p.Oldest)
			}
		}
		switch {
		case err == nil:
		case wal.TookTooLong(err):
			status.Problem = fmt.Sprintf("counting took longer than %v", countTimeout)
		case fault.Classify(err) == fault.Operator:
			status.Problem = oneLine(err)
		default:
			return err
		}
		s.Tables = append(s.Tables, status)
	}
	return nil
}

func oneLine(err error) string {
	if known, ok := errors.AsType[*fault.Error](err); ok {
		return known.Err.Error()
	}
	return err.Error()
}

// errNoSnapshot means that nothing tells yet which rows are delivered.
var errNoSnapshot = errors.New("no delivered snapshot is saved yet")

// delivered says which rows of a table the broker holds, by what is saved and by what
// may never have been sent: from before the stream, and from gaps.
func (r *Runner) delivered(ctx context.Context, tables *wal.Tables, table int, e evidence) (wal.Delivered, error) {
	var none wal.Delivered
	traced, err := tables.Traced(ctx, table)
	switch {
	case err != nil:
		return none, err
	case !traced:
		return none, fault.NewOperator(
			fmt.Errorf("table %s has no column xid of type xid8, so nobody can tell which rows were sent", r.config.Wal.Tables[table].Display()),
			"add one: outboxcdc init --print-sql shows how it is declared")
	case e.saved == nil || !e.saved.Delivered.Known():
		return none, fault.NewOperator(errNoSnapshot, "let the stream run for some seconds")
	case e.saved.System != e.identity.System || e.saved.Timeline != e.identity.Timeline || e.saved.Database != e.identity.Database:
		return none, fault.NewOperator(errors.New("the delivered snapshot is of another log than the server's"), "run outboxcdc status")
	}
	d := wal.Delivered{Snapshot: e.saved.Delivered.Text}
	if d.Unsure, err = tables.Unsure(ctx, table); err != nil {
		return none, err
	}
	if checkpoint.InDatabase(r.config.Checkpoint) {
		return d, nil // it knows the gaps too
	}
	historian, ok := r.store.(checkpoint.Historian)
	if !ok {
		return d, nil
	}
	entries, err := historian.History(ctx)
	if err != nil {
		return none, err
	}
	gaps := checkpoint.Gaps(entries)
	for i := range gaps {
		d.Unsure = append(d.Unsure, wal.Between{Before: gaps[i].Before.Text, After: gaps[i].After.Text})
	}
	d.Unsure = slices.Compact(d.Unsure)
	return d, nil
}
