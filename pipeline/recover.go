package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// RecoverConfig says how a lost slot is replaced.
type RecoverConfig struct {
	Config

	Anew       bool // replace a slot that is sound, too
	Everything bool // send every row of the tables, whatever was delivered

	// Upgraded says that pg_upgrade made this cluster of the one that the position is of:
	// its log begins behind the old one's end, and the numbers of transactions go on.
	Upgraded bool
}

// Recovery is what a recovery did.
type Recovery struct {
	Lost wal.LSN             // the saved position: where the old slot ended for us
	From checkpoint.Snapshot // what was delivered for sure; zero when everything was sent
	At   wal.LSN             // the new slot gives what commits from here on
	Sent int64               // rows of the tables that were sent
	Run  string              // header of those
}

// Recover makes a slot anew after the old one was lost and sends from the outbox
// tables what lies between: rows that are not in the delivered snapshot, and are in
// the snapshot that the new slot was made with. A transaction that was committed
// before the new slot's beginning is in that snapshot and any other comes from the
// slot, so none is missing and none comes from both. What was delivered behind the
// delivered snapshot is sent twice: it was in flight when the slot was lost.
//
// Until all of it is with the broker nothing is saved, and what is saved refuses the
// new slot, as it would one that a stranger had made. So a recovery that dies at any
// moment is begun anew by the next, with another slot; and a stream that starts
// meanwhile is refused. The end is one save, and that is the position and the
// snapshot of the new slot.
func Recover(ctx context.Context, stop <-chan struct{}, config RecoverConfig) (*Recovery, error) {
	plan, err := config.validate()
	if err == nil && len(config.Wal.Tables) == 0 {
		err = fault.NewUsage(errors.New("there is no table to recover from, and logical messages are in none: those that the slot has lost are gone"),
			"outboxcdc stream names the gap, and goes on behind it with --accept-gap, which records it")
	}
	if err != nil {
		return nil, err
	}
	opening, opened := untilStop(ctx, stop)
	defer opened()
	r := &recovery{config: config, plan: plan, runner: &Runner{config: config.Config, plan: plan, logger: config.Logger}}
	defer r.runner.closeStore()
	if err := r.runner.openStore(opening, config.storeOptions()); err != nil {
		return nil, err
	}
	err = withConn(opening, config.Wal, func(conn *wal.Conn) error { return r.recover(opening, stop, conn) })
	if err != nil {
		return nil, fmt.Errorf("recover slot %s: %w", config.Wal.Slot, err)
	}
	return &r.done, nil
}

type recovery struct {
	config RecoverConfig
	plan   *outbox.Plan
	runner *Runner
	e      evidence
	done   Recovery
}

func (r *recovery) recover(ctx context.Context, stop <-chan struct{}, conn *wal.Conn) error {
	if err := conn.LockRecovery(ctx); err != nil {
		return err
	}
	if err := r.judge(ctx, conn); err != nil {
		return err
	}
	if err := r.nothingParked(ctx, conn); err != nil {
		return err
	}
	// Whatever can be known to fail comes before the old slot goes.
	if err := r.prepare(ctx, conn); err != nil {
		return err
	}
	broker, err := sink.Open(ctx, r.config.Sink, r.config.SinkOptions)
	if err != nil {
		return err
	}
	defer broker.Close() //nolint:errcheck // what it holds is acked by then, or not counted
	if err := r.replaceSlot(ctx, conn); err != nil {
		return err
	}
	failpoint.Pass(failpoint.RecoverSlotGone)
	born, err := conn.CreateSlotInSnapshot(ctx)
	if err != nil {
		return err
	}
	r.config.Logger.Info("made the slot anew; sending from the table what lies between",
		slog.String("slot", r.config.Wal.Slot), slog.String("at", born.At.String()), slog.String("delivered", r.done.From.At.String()))
	failpoint.Pass(failpoint.RecoverSlotMade)
	if err := r.send(ctx, stop, conn, broker, born); err != nil {
		return err
	}
	failpoint.Pass(failpoint.RecoverSent)
	return r.save(ctx, born)
}

// nothingParked refuses to send rows past those that are parked, whose positions are
// lower: who drops what is not above the highest that it knows would not see them when
// they come. No stream can send or drop them while the slot is lost, so what is to be
// dropped is, here.
func (r *recovery) nothingParked(ctx context.Context, conn *wal.Conn) error {
	count, err := conn.Parked(ctx)
	if err != nil || count.Rows == 0 {
		return err
	}
	parking := wal.NewParking(r.config.Wal, r.e.identity.System)
	defer parking.Close() //nolint:errcheck // what it has done is durable
	dropped, err := parking.DropAsked(ctx)
	if err != nil {
		return err
	}
	if dropped > 0 {
		r.config.Logger.Warn("parked rows dropped", slog.Int64("rows", dropped))
	}
	if int64(count.Rows) == dropped {
		return nil
	}
	return fault.NewOperator(fmt.Errorf("%d rows are parked, and what is sent from the table would overtake them", int64(count.Rows)-dropped),
		"look at them with outboxcdc dlq list and show, ask with outboxcdc dlq drop --all --wait 1ms, and recover again; insert anew what is needed of them afterwards")
}

// judge refuses where there is nothing to recover, or nothing to recover from.
func (r *recovery) judge(ctx context.Context, conn *wal.Conn) error {
	var err error
	if r.e, err = r.runner.gather(ctx, conn); err != nil {
		return err
	}
	if r.e.saved == nil {
		return fault.NewOperator(errors.New("no position is saved for it, so nothing says what was delivered"),
			"outboxcdc stream makes slot and position at its first start; rows from before are sent by inserting them anew")
	}
	if r.config.Upgraded {
		if err := r.upgraded(ctx, conn); err != nil {
			return err
		}
	}
	if v, other := otherLog(r.origin()); other {
		return v.err()
	}
	r.done.Lost = r.e.saved.LSN
	if r.config.Everything {
		return nil
	}
	if r.done.From, err = r.delivered(ctx); err != nil {
		return err
	}
	return everyRowTells(ctx, conn.Tables())
}

// origin is the evidence in terms of the cluster that the position is of.
func (r *recovery) origin() evidence {
	e := r.e
	if r.config.Upgraded {
		e.identity.System, e.identity.Timeline = e.saved.System, e.saved.Timeline
	}
	return e
}

// upgraded refuses a cluster that pg_upgrade did not make of the one before. It sets where
// the log and the numbers of transactions go on (pg_upgrade.c, copy_xact_xlog_xid); a dump
// that is restored begins both anew.
func (r *recovery) upgraded(ctx context.Context, conn *wal.Conn) error {
	saved := r.e.saved
	switch {
	case saved.System == r.e.identity.System:
		return fault.NewUsage(errors.New("the cluster was not upgraded since: the position is of this one"), "leave out --upgraded")
	case r.e.identity.Flush < saved.LSN:
		return fault.NewOperator(fmt.Errorf("the log ends at %v, before the position that was saved, %v, and behind pg_upgrade it would go on from there", r.e.identity.Flush, saved.LSN), restoredAdvice)
	case !saved.Delivered.Known():
		return nil
	}
	reached, err := conn.Reaches(ctx, saved.Delivered.Text)
	if err == nil && !reached {
		err = fault.NewOperator(errors.New("the numbers of transactions are lower than those of what was delivered, and behind pg_upgrade they would go on from there"), restoredAdvice)
	}
	return err
}

// restoredAdvice is for a database that came into its cluster by a dump.
const restoredAdvice = "check --database-url; rows of a database that was restored from a dump do not tell what was delivered of them: begin with a new slot name, and insert anew what is to be sent"

// everyRowTells refuses rows of which nobody can say whether they were sent: they would be
// passed in silence.
func everyRowTells(ctx context.Context, tables *wal.Tables) error {
	if err := tables.Traceable(ctx); err != nil {
		return err
	}
	untold, err := tables.Untold(ctx)
	if err != nil || len(untold) == 0 {
		return err
	}
	name := untold[0].Display()
	return fault.NewOperator(fmt.Errorf("table %s has rows without a value in xid, so nobody can tell whether they were sent", name),
		fmt.Sprintf("--everything sends all rows again; or say it of these: UPDATE %s SET xid = '1' WHERE xid IS NULL AND … for those that were sent, "+
			"and SET xid = pg_current_xact_id() for those that were not", name))
}

// delivered is the newest snapshot that means something in the server's log.
//
// Behind the switch to another timeline the numbers of transactions are given out
// again. Of an older timeline a snapshot counts only when it was delivered before the
// switch: what it shows was committed there, and what it does not show has no number
// below its end that it shows.
func (r *recovery) delivered(ctx context.Context) (checkpoint.Snapshot, error) {
	entries := []checkpoint.Entry{{Position: *r.e.saved}}
	if historian, ok := r.runner.store.(checkpoint.Historian); ok {
		kept, err := historian.History(ctx)
		if err != nil {
			return checkpoint.Snapshot{}, err
		}
		// What is saved may not be settled; the history is. A slot that is sound is made
		// anew since rows were written past its stream.
		if settled := r.e.saved.Delivered.At < r.e.saved.LSN; r.config.Anew && !settled && len(kept) > 0 {
			entries = nil
		}
		entries = append(entries, kept...)
	}
	switches, err := r.e.history()
	if err != nil {
		return checkpoint.Snapshot{}, err
	}
	best, ok := newestDelivered(entries, r.origin().identity, switches)
	if !ok {
		return best, fault.NewOperator(fmt.Errorf("what was delivered before %v is not known in terms of transactions", r.e.saved.LSN),
			"--everything sends every row of the table again, and consumers drop what they know by the header id")
	}
	return best, nil
}

func newestDelivered(entries []checkpoint.Entry, identity wal.Identity, switches []wal.TimelineSwitch) (best checkpoint.Snapshot, ok bool) {
	timeline := uint32(0)
	for i := range entries {
		e := &entries[i]
		limit := identity.Flush
		if e.Timeline != identity.Timeline {
			at := slices.IndexFunc(switches, func(s wal.TimelineSwitch) bool { return s.Timeline == e.Timeline })
			if at < 0 {
				continue
			}
			limit = switches[at].At
		}
		if e.System != identity.System || !e.Delivered.Known() || e.Delivered.At > limit {
			continue
		}
		if !ok || e.Timeline > timeline || e.Timeline == timeline && e.Delivered.At > best.At {
			best, timeline, ok = e.Delivered, e.Timeline, true
		}
	}
	return best, ok
}

// prepare makes the publication when it is missing, and refuses what would keep the
// stream from starting afterwards.
func (r *recovery) prepare(ctx context.Context, conn *wal.Conn) error {
	if _, err := conn.CreatePublication(ctx); err != nil {
		return err
	}
	findings, err := r.runner.findings(ctx, conn)
	if err != nil {
		return err
	}
	slots := []string{wal.CodeSlotMissing, wal.CodeSlotLost, wal.CodeSlotAhead, wal.CodeSlotActive, wal.CodeSlotTwoPhase}
	return fault.Failures(slices.DeleteFunc(findings, func(f fault.Finding) bool { return slices.Contains(slots, f.Code) }))
}

// replaceSlot drops the old slot, unless it is sound.
func (r *recovery) replaceSlot(ctx context.Context, conn *wal.Conn) error {
	slot, exists, err := conn.Slot(ctx)
	switch {
	case err != nil || !exists:
		return err
	case slot.Active:
		return conn.Busy(ctx, slot)
	}
	verdict, err := judge(r.e)
	if err != nil {
		return err
	}
	if verdict.Begins() && !slot.TwoPhase && !r.config.Anew {
		return fault.NewOperator(errors.New("it is sound, and the stream can go on from it"), "start outboxcdc stream; --anew makes the slot anew all the same")
	}
	return conn.DropSlot(ctx)
}

// send sends what lies between, and returns when the broker holds all of it.
//
// The rows get positions of their own between those that came before and those that
// the new slot gives: one byte before its beginning, where no record can begin, and
// numbered in the order of seq. So consumers that go by the position keep them.
func (r *recovery) send(ctx context.Context, stop <-chan struct{}, conn *wal.Conn, broker sink.Sink, born wal.Rebirth) error {
	r.done.At, r.done.Run = born.At, "recover-"+string(born.At.AppendHex(nil))
	config, at := columnsOfTables(r.config.Wal)
	t := &tableSource{
		tables: conn.TablesOf(config), at: at, close: func() {},
		selection: func(int) wal.Selection { return wal.Selection{Unseen: r.done.From.Text, Ordered: true} },
		stamp:     func(row *wal.Row, n uint64) { row.Commit, row.Index = born.At-1, int(n-1) },
	}
	tagged := sink.Tagged(broker, sink.Header{Key: outbox.ReplayHeader, Value: []byte(r.done.Run)})
	s := finiteSession(&r.config.Config, r.plan, t, tagged, finiteStart{store: unsaved{}})
	if err := s.run(ctx, stop); err != nil && !over(stop) {
		return err
	}
	if _, whole, _ := t.reached(s.saver.position.LSN); !whole {
		return &fault.Error{
			Class: fault.Transient, Err: errors.New("stopped before everything was sent"),
			Advice: "run it again: it begins anew, and what was sent is sent twice",
		}
	}
	r.done.Sent = int64(s.tracker.Mark().Rows)
	return conn.Tables().Thaw(ctx)
}

// save makes the new slot the stream's.
func (r *recovery) save(ctx context.Context, born wal.Rebirth) error {
	historian, ok := r.runner.store.(checkpoint.Historian)
	if !ok {
		return errors.New("the checkpoint store cannot replace a position")
	}
	now := time.Now().UTC()
	err := historian.Replace(ctx, checkpoint.Entry{Position: checkpoint.Position{
		Slot: r.config.Wal.Slot, System: r.e.identity.System, Timeline: r.e.identity.Timeline, Database: r.e.identity.Database,
		LSN: born.At, Time: now, Delivered: checkpoint.Snapshot{Text: born.Snapshot, At: born.At, Time: now},
	}})
	if err != nil {
		return fmt.Errorf("save the start of the new slot: %w", err)
	}
	failpoint.Pass(failpoint.RecoverSaved)
	return nil
}

// unsaved is the store of a session that is begun anew when it breaks.
type unsaved struct{}

func (unsaved) Load(context.Context) (checkpoint.Position, error) {
	return checkpoint.Position{}, checkpoint.ErrNone
}
func (unsaved) Save(context.Context, checkpoint.Position) error { return nil }
func (unsaved) Close() error                                    { return nil }
