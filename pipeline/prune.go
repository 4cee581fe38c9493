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

// Pruned is what was removed from a table.
type Pruned struct {
	Table string
	wal.Swept
}

// Prune deletes from the outbox tables what the broker holds for sure and what is
// older, some pages a transaction; dropPartitions drops whole partitions where it can.
// It is safe beside a stream. done tells what was removed before an error, too.
func Prune(ctx context.Context, config Config, olderThan time.Duration, dropPartitions bool) (done []Pruned, err error) {
	config.setDefaults()
	if len(config.Wal.Tables) == 0 {
		return nil, fault.NewUsage(errors.New("there is no table to prune: logical messages are in none"), "name a table with --table")
	}
	r := &Runner{config: config, logger: config.Logger}
	if r.store, err = checkpoint.Open(ctx, config.Checkpoint, config.storeOptions()); err != nil {
		return nil, err
	}
	defer r.closeStore()
	var e evidence
	err = withConn(ctx, config.Wal, func(conn *wal.Conn) error {
		if e, err = r.gather(ctx, conn); err != nil {
			return err
		}
		// In another log the numbers of transactions are others.
		v, err := judge(e)
		if err == nil && (v.Kind == OtherLog || v.Kind == RestoredBack) {
			err = v.err()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return r.sweep(ctx, e, wal.Sweep{OlderThan: olderThan, DropPartitions: dropPartitions})
}

// sweep goes over all tables with what is delivered filled in.
func (r *Runner) sweep(ctx context.Context, e evidence, s wal.Sweep) (done []Pruned, err error) {
	tables, err := wal.OpenTables(ctx, r.config.Wal)
	if err != nil {
		return nil, err
	}
	defer tables.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	for i, t := range r.config.Wal.Tables {
		if s.Delivered, err = r.delivered(ctx, tables, i, e); err != nil {
			return done, err
		}
		swept, err := tables.Sweep(ctx, i, s)
		done = append(done, Pruned{t.Display(), swept})
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// sweepInterval is how often sent rows are marked or deleted while streaming. A sweep
// reads the tables whole.
const sweepInterval = time.Minute

// sweepOnce marks or deletes what e says is delivered. It opens a store of its own: the
// session's is the saver's.
func sweepOnce(ctx context.Context, config Config, e evidence) ([]Pruned, error) {
	store, err := checkpoint.Open(ctx, config.Checkpoint, config.storeOptions())
	if err != nil {
		return nil, err
	}
	defer store.Close() //nolint:errcheck // nothing was saved
	r := &Runner{config: config, logger: config.Logger, store: store}
	return r.sweep(ctx, e, wal.Sweep{Mark: config.MarkSent})
}

// keepSwept marks or deletes rows that were sent, for as long as a session lives. What
// counts is what is saved. That a table is locked or slow ends no stream; that it cannot
// be done at all does.
func (r *Runner) keepSwept(ctx context.Context, keeper *saver) error {
	clock := time.NewTicker(r.config.SweepInterval)
	defer clock.Stop()
	var last string
	for {
		if saved := keeper.durable(); saved.Delivered.Known() && saved.Delivered.Text != last {
			identity := wal.Identity{System: saved.System, Timeline: saved.Timeline, Database: saved.Database}
			done, err := sweepOnce(ctx, r.config, evidence{saved: &saved, identity: identity})
			switch class := fault.Classify(err); {
			case ctx.Err() != nil:
				return ctx.Err()
			case err == nil:
				last = saved.Delivered.Text
			case class == fault.Operator:
				return fmt.Errorf("after sending: %w", err)
			default:
				r.logger.Warn("sent rows are left as they are for now", slog.String("error", err.Error()))
			}
			for _, p := range done {
				r.logger.Debug("swept", slog.String("table", p.Table), slog.Int64("rows", p.Rows))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
	}
}
