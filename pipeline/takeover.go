package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// TakeOver makes the slot of another program ours: it saves, as where a stream goes on,
// the position up to which that program has confirmed. Everything before is with the
// broker, since a slot confirms nothing else; what that program has sent behind it is
// sent again. So nothing is missing, and the events of an aggregate keep their order.
//
// The other program has stopped: while it streams, the slot moves on, and TakeOver
// refuses, as it does wherever a stream would refuse to begin. A position that an
// earlier stream of ours saved gives way to where the slot stands now, since that is
// what was delivered meanwhile. The errors are classified.
func TakeOver(ctx context.Context, config Config) (checkpoint.Position, error) {
	r, err := New(config)
	if err != nil {
		return checkpoint.Position{}, err
	}
	conn, err := wal.Connect(ctx, r.config.Wal)
	if err != nil {
		return checkpoint.Position{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	if err := r.judgeTakeover(ctx, conn); err != nil {
		return checkpoint.Position{}, err
	}
	if err := r.openStore(ctx, config.storeOptions()); err != nil {
		return checkpoint.Position{}, err
	}
	defer r.closeStore()
	return r.takeOver(ctx, conn)
}

// judgeTakeover looks at everything that a stream needs, before anything is written.
func (r *Runner) judgeTakeover(ctx context.Context, conn *wal.Conn) error {
	if err := r.idle(ctx, conn); err != nil {
		return err
	}
	findings, err := r.findings(ctx, conn)
	if err != nil {
		return err
	}
	r.warn(findings)
	return fault.Failures(findings)
}

// idle refuses a slot that another program still streams from.
func (r *Runner) idle(ctx context.Context, conn *wal.Conn) error {
	slot, err := r.slot(ctx, conn)
	switch {
	case err != nil:
		return err
	case slot == nil:
		return fault.NewOperator(fmt.Errorf("there is no slot %s to take over", r.config.Wal.Slot),
			"name the connector's slot; when the connector dropped it at its stop (slot.drop.on.stop), what it had not sent is in no stream: "+
				"begin with outboxcdc init, and send those rows again from the table")
	case slot.Active:
		return fault.NewOperator(conn.Busy(ctx, *slot), "stop the other program for good, wait until it has ended, and try again")
	default:
		return nil
	}
}

// takeOver saves where the slot stands, once it is known to stand.
func (r *Runner) takeOver(ctx context.Context, conn *wal.Conn) (checkpoint.Position, error) {
	e, err := r.gather(ctx, conn)
	if err != nil {
		return checkpoint.Position{}, err
	}
	if v, ahead := slotAhead(e); ahead {
		return checkpoint.Position{}, v.err()
	}
	if err := r.idle(ctx, conn); err != nil {
		return checkpoint.Position{}, err
	}
	historian, ok := r.store.(checkpoint.Historian)
	if !ok {
		return checkpoint.Position{}, fault.NewOperator(errors.New("this checkpoint store cannot replace a position"), "use another one with --checkpoint")
	}
	position := r.positionAt(e, e.slot.Confirmed)
	position.Delivered = e.confirmed(position)
	if err := historian.Replace(ctx, checkpoint.Entry{Position: position}); err != nil {
		return position, fmt.Errorf("save where slot %s stands: %w", position.Slot, err)
	}
	r.logger.Info("took the slot over", slog.String("slot", position.Slot), slog.String("at", position.LSN.String()))
	return position, nil
}
