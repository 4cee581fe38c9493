package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Poison is the transaction at which a stream halts.
type Poison struct {
	Commit wal.LSN
	XID    uint32
	Rows   []WaitingRow // the first maxShown of them
	Count  int          // of all of them; 0 when they cannot be read
	Hidden string       // why they cannot be read; empty when they can
	behind wal.LSN      // where the stream goes on
}

// maxShown bounds the rows of a Poison.
const maxShown = 20

// Skip passes one transaction, so that the stream goes on behind it: its rows are not
// sent, and the history says so for good. Everything before it must have been sent,
// so it is the first with rows behind the saved position, and nothing else is passed.
// approve is shown the transaction; its error ends everything with nothing changed.
//
// What is moved is the saved position. The slot follows when the stream starts there.
func Skip(ctx context.Context, config Config, commit wal.LSN, approve func(Poison) error) error {
	plan, err := config.validateRead()
	if err := errors.Join(err, checkpoint.CheckURL(config.Checkpoint)); err != nil {
		return err
	}
	config.Wal.BatchRows = 1 // so that a batch never holds the end of a later transaction
	config.Wal.Tables = withoutDemands(config.Wal.Tables)
	s := &skipping{config: config, commit: commit, runner: &Runner{config: config, logger: config.Logger}}
	s.mapper = outbox.NewMapper(plan)
	defer s.runner.closeStore()
	if err := s.skip(ctx, approve); err != nil {
		return fmt.Errorf("skip %v: %w", commit, err)
	}
	return nil
}

// withoutDemands reads rows without a column that an event needs, or with another type
// of it, too: that may be why the stream halts.
func withoutDemands(tables []wal.Table) []wal.Table {
	lenient := make([]wal.Table, len(tables))
	for i, t := range tables {
		lenient[i] = wal.Table{Schema: t.Schema, Name: t.Name}
		for _, column := range t.Columns {
			column.Required, column.OnlyTypes, column.NotTypes = false, nil, nil
			lenient[i].Columns = append(lenient[i].Columns, column)
		}
	}
	return lenient
}

type skipping struct {
	config Config
	commit wal.LSN
	runner *Runner
	mapper *outbox.Mapper
	e      evidence
	poison Poison
}

func (s *skipping) skip(ctx context.Context, approve func(Poison) error) error {
	if err := s.runner.openStore(ctx, s.config.storeOptions()); err != nil {
		return err
	}
	from, err := s.judge(ctx)
	if err != nil {
		return err
	}
	if err := s.find(ctx, from); err != nil {
		return err
	}
	if err := approve(s.poison); err != nil {
		return err
	}
	return s.save(ctx)
}

// judge gives where the stream would start, and refuses where it could not.
func (s *skipping) judge(ctx context.Context) (from wal.LSN, err error) {
	err = withConn(ctx, s.config.Wal, func(conn *wal.Conn) error {
		if s.e, err = s.runner.gather(ctx, conn); err != nil {
			return err
		}
		verdict, err := judge(s.e)
		switch {
		case err != nil:
			return err
		case !verdict.Begins():
			return verdict.err()
		case s.e.saved == nil:
			return fault.NewOperator(fmt.Errorf("no position is saved for slot %s, so nobody knows what was sent", s.config.Wal.Slot), "start outboxcdc stream first, and see where it halts")
		case s.e.saved.Timeline != s.e.identity.Timeline:
			// What the saved snapshot shows may mean other transactions here.
			return fault.NewOperator(fmt.Errorf("the saved position is of timeline %d, the server is on %d", s.e.saved.Timeline, s.e.identity.Timeline),
				"start outboxcdc stream first, which goes over to it, and see where it halts")
		case s.e.slot == nil:
			return fault.NewOperator(fmt.Errorf("slot %s does not exist", s.config.Wal.Slot), "check --slot")
		case s.e.slot.Active:
			return conn.Busy(ctx, *s.e.slot)
		}
		if from = verdict.start; from == 0 {
			from = s.e.slot.Confirmed
		}
		return nil
	})
	if err == nil && s.commit < from {
		return 0, fault.NewOperator(fmt.Errorf("everything up to %v is behind the stream already", from), "outboxcdc peek shows what waits")
	}
	return from, err
}

// errFound ends the reading of the log behind the transaction.
var errFound = errors.New("found")

// find reads the log up to the first row behind the transaction.
func (s *skipping) find(ctx context.Context, from wal.LSN) error {
	end := s.e.identity.Flush
	if s.commit >= end {
		return s.notThere()
	}
	look, err := openExcerpt(ctx, s.config.Wal, s.config.Wal.Slot, from, end)
	if err != nil {
		return err
	}
	s.poison = Poison{Commit: s.commit}
	err = look.each(ctx, s.visit)
	if unreadable, ok := errors.AsType[*wal.TransactionError](err); ok && unreadable.Commit == s.commit {
		s.poison = Poison{Commit: s.commit, XID: unreadable.XID, Hidden: unreadable.Err.Error()}
		// Where a transaction ends is not known before it is read; behind its commit
		// record begins what comes after it.
		if look, err = openExcerpt(ctx, s.config.Wal, s.config.Wal.Slot, s.commit+1, end); err != nil {
			return err
		}
		err = look.each(ctx, s.visitBehind)
	}
	switch {
	case err != nil && !errors.Is(err, errFound):
		return err
	case s.poison.Count == 0 && s.poison.Hidden == "" || s.poison.behind == 0:
		return s.notThere()
	default:
		return nil
	}
}

func (s *skipping) notThere() error {
	return fault.NewOperator(errors.New("no transaction with outbox rows that waits in the slot commits there"), "outboxcdc peek shows what waits")
}

// visit takes the transaction out of the log. Any other with rows before it was not
// sent, or the stream would stand behind it.
func (s *skipping) visit(batch wal.Batch) error {
	for i := range batch.Rows {
		row := &batch.Rows[i]
		switch {
		case row.Commit < s.commit:
			return fault.NewOperator(
				fmt.Errorf("transaction %d, which commits at %v, stands before it and was not sent", row.XID, row.Commit),
				"start outboxcdc stream: it sends what can be sent, and says where it halts")
		case row.Commit > s.commit:
			s.behind(batch.End, row)
			return errFound
		}
		s.poison.Count++
		s.poison.XID = row.XID
		if len(s.poison.Rows) < maxShown {
			s.poison.Rows = append(s.poison.Rows, waiting(s.config.Wal.Tables, row, s.mapper))
		}
	}
	if batch.End > s.commit {
		s.poison.behind = batch.End
		return errFound
	}
	return nil
}

func (s *skipping) visitBehind(batch wal.Batch) error {
	if len(batch.Rows) > 0 {
		s.behind(batch.End, &batch.Rows[0])
		return errFound
	}
	if batch.End > s.commit+1 {
		s.poison.behind = batch.End
		return errFound
	}
	return nil
}

// behind chooses between an end in the batch that holds the next row and the commit
// record of that row: a stream that starts at either gives that row. A message that is
// alone begins before its Commit, nobody knows where, but behind the commit record that
// is passed over.
func (s *skipping) behind(end wal.LSN, row *wal.Row) {
	next := row.Commit
	if row.Alone {
		next = s.commit + 1
	}
	s.poison.behind = next
	if s.commit < end && end <= next {
		s.poison.behind = end
	}
}

// save moves the saved position behind the transaction. The gap that it leaves in the
// history names exactly this transaction: visible in After and not in Before.
func (s *skipping) save(ctx context.Context) error {
	historian, ok := s.runner.store.(checkpoint.Historian)
	if !ok {
		return errors.New("the checkpoint store cannot replace a position")
	}
	// People take their time to approve. A stream that was started meanwhile may be past it.
	saved, err := s.runner.load(ctx)
	if err != nil {
		return err
	}
	if saved == nil || saved.LSN != s.e.saved.LSN {
		return fault.NewOperator(errors.New("the saved position has changed meanwhile: a stream was started"), "outboxcdc peek shows what waits now")
	}
	now := time.Now().UTC()
	position := *s.e.saved
	position.LSN, position.Time = s.poison.behind, now
	gap := checkpoint.Gap{
		From: s.poison.Commit, To: s.poison.behind,
		Reason: fmt.Sprintf("transaction %d was skipped on request: %d rows", s.poison.XID, s.poison.Count),
	}
	before, after, err := s.around(ctx)
	if err != nil {
		return err
	}
	gap.Before = checkpoint.Snapshot{Text: before, At: s.poison.Commit, Time: now}
	gap.After = checkpoint.Snapshot{Text: after, At: s.poison.behind, Time: now}
	if err := historian.Replace(ctx, checkpoint.Entry{Position: position, Gap: gap}); err != nil {
		return fmt.Errorf("save the position behind it: %w", err)
	}
	return nil
}

// around are two snapshots between which the transaction alone lies. A message outside of a
// transaction is none, and no row: then they are the same. There is no number 0, and a text
// with it would be no pg_snapshot to the server, which reads all gaps at once.
func (s *skipping) around(ctx context.Context) (before, after string, err error) {
	if s.poison.XID == 0 {
		const nothing = "1:1:"
		return nothing, nothing, nil
	}
	xid, err := s.fullXID(ctx)
	return fmt.Sprintf("%d:%d:%d", xid, xid+1, xid), fmt.Sprintf("%d:%d:", xid+1, xid+1), err
}

// fullXID is the transaction's number with the epoch that the log leaves out. It lies
// before the next one of the cluster.
func (s *skipping) fullXID(ctx context.Context) (uint64, error) {
	var next uint64
	err := withConn(ctx, s.config.Wal, func(conn *wal.Conn) (err error) {
		next, err = conn.NextXID(ctx)
		return err
	})
	full := next&^0xFFFFFFFF | uint64(s.poison.XID)
	if full >= next && full >= 1<<32 {
		full -= 1 << 32
	}
	return full, err
}
