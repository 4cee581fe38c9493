package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// accepts says whether the operator accepted this very gap: the flag names the saved
// position that the refusal named. Once accepted, what is saved is another position,
// so a flag that stays in a start script accepts nothing that comes later.
//
// Where nothing is saved the refusal named where the slot stands.
func (r *Runner) accepts(e evidence, v Verdict) bool {
	if v.Kind == PositionGone {
		return e.slot != nil && r.config.AcceptGap == e.slot.Confirmed
	}
	return r.config.AcceptGap != 0 && e.saved != nil && e.saved.LSN == r.config.AcceptGap &&
		!v.Begins() && e.identity.Database == e.saved.Database && e.identity.Timeline >= e.timelineFloor()
}

// timelineFloor is the lowest timeline that may follow what is saved. Timelines of
// another cluster do not compare.
func (e evidence) timelineFloor() uint32 {
	if e.identity.System != e.saved.System {
		return 0
	}
	return e.saved.Timeline
}

// makeRoom drops a slot that nobody can stream from any more, so that it is made anew.
func (r *Runner) makeRoom(ctx context.Context, conn *wal.Conn, e evidence) error {
	if e.slot == nil || !e.slot.Lost() && e.slot.Confirmed <= e.identity.Flush {
		return nil
	}
	if err := conn.DropSlot(ctx); err != nil {
		return err
	}
	r.logger.Warn("dropped the slot, which nobody could stream from", slog.String("slot", e.slot.Name),
		slog.String("wal_status", e.slot.WALStatus), slog.String("confirmed", e.slot.Confirmed.String()))
	return nil
}

// accept records the gap and gives where the stream goes on: where the slot stands.
// The snapshot is taken now, when the slot is there, so every row of the gap is
// visible in it.
func (r *Runner) accept(ctx context.Context, conn *wal.Conn, e evidence, v Verdict) (checkpoint.Position, error) {
	historian, ok := r.store.(checkpoint.Historian)
	if !ok {
		return checkpoint.Position{}, fault.NewOperator(errors.New("this checkpoint store cannot record that a gap was accepted"),
			"use another one with --checkpoint")
	}
	sample, err := conn.Sample(ctx)
	if err != nil {
		return checkpoint.Position{}, fmt.Errorf("take a snapshot behind the gap: %w", err)
	}
	position := r.positionAt(e, e.slot.Confirmed)
	if position.Delivered, err = r.carry(ctx, e, position.LSN); err != nil {
		return position, err
	}
	carried := position.Delivered
	gap := checkpoint.Gap{
		From: v.From, To: v.To, Before: carried,
		After:  checkpoint.Snapshot{Text: sample.Snapshot, At: sample.At, Time: sample.Time},
		Reason: string(v.Kind) + ": " + v.Sentence,
	}
	if gap.To == 0 {
		gap.To = e.slot.Confirmed
	}
	if !carried.Known() {
		position.Delivered = e.confirmed(position)
	}
	if err := historian.Replace(ctx, checkpoint.Entry{Position: position, Gap: gap}); err != nil {
		return position, fmt.Errorf("record the accepted gap: %w", err)
	}
	r.logger.Warn("a gap was accepted with --accept-gap: its events may never have been sent",
		slog.String("slot", position.Slot), slog.String("from", gap.From.String()), slog.String("to", gap.To.String()),
		slog.Time("at", position.Time), slog.String("verdict", gap.Reason))
	return position, nil
}

// positionAt is a position of the server's log that is to be saved now.
func (r *Runner) positionAt(e evidence, lsn wal.LSN) checkpoint.Position {
	return checkpoint.Position{
		Slot: r.config.Wal.Slot, System: e.identity.System, Timeline: e.identity.Timeline, Database: e.identity.Database,
		LSN: lsn, Time: time.Now().UTC(),
	}
}

// confirmed says in terms of transactions what the slot says of itself: what had ended
// before a place that it has confirmed is not in its stream any more. So there is a
// snapshot from the very start. It shows what was there before the slot too, which is
// noted as unsure (register).
func (e evidence) confirmed(position checkpoint.Position) (none checkpoint.Snapshot) {
	if e.slot == nil || e.slot.Horizon == 0 || e.slot.Confirmed > position.LSN {
		return none
	}
	return checkpoint.Snapshot{Text: fmt.Sprintf("%d:%[1]d:", e.slot.Horizon), At: position.LSN, Time: position.Time}
}

// carry gives the newest snapshot of the past that still holds: what is visible in it
// is delivered, and the server has it. Behind where the server left a timeline, or
// was set back to, it gives numbers of transactions out again; nothing that was taken
// there may be carried over.
func (r *Runner) carry(ctx context.Context, e evidence, bound wal.LSN) (none checkpoint.Snapshot, err error) {
	if e.saved == nil || e.saved.System != e.identity.System || e.saved.LSN > e.identity.Flush && e.saved.Timeline == e.identity.Timeline {
		return none, nil
	}
	sent, descends, err := common(e)
	if err != nil || !descends {
		return none, err
	}
	bound = min(bound, sent)
	if e.saved.Delivered.At <= bound {
		return e.saved.Delivered, nil
	}
	historian, ok := r.store.(checkpoint.Historian)
	if !ok {
		return none, nil
	}
	entries, err := historian.History(ctx)
	if err != nil {
		return none, fmt.Errorf("look for an earlier snapshot: %w", err)
	}
	earlier, _ := checkpoint.SnapshotAt(entries, e.saved.Timeline, bound)
	return earlier, nil
}
