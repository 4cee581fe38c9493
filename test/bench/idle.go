package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// idleSettle is how long after its start a program may still be busy with it.
const idleSettle = 5 * time.Second

// measureIdle is what outboxcdc costs while nobody writes.
func measureIdle(ctx context.Context, b *bench) error {
	l, err := b.newBacklog(ctx, usual("idle", 1), 0)
	if err != nil {
		return err
	}
	h := l.newHeat(b.contestants()[0])
	err = h.prepare(ctx)
	if err == nil {
		err = h.idle(ctx)
	}
	return errors.Join(err, h.clear(ctx), l.drop(ctx))
}

func (h *heat) idle(ctx context.Context) error {
	var err error
	if h.child, err = start(h.contestant.run(context.WithoutCancel(ctx), h.bench, h.entry)); err != nil {
		return err
	}
	if err := until(ctx, h.child.ended, h.active); err != nil {
		return fmt.Errorf("wait for the slot to be read: %w; it said:\n%s", err, h.child.log.String())
	}
	pid := h.child.cmd.Process.Pid
	if err := h.pass(ctx, min(idleSettle, h.bench.idleTime)); err != nil {
		return err
	}
	before, err := cpu(pid)
	if err != nil {
		return err
	}
	if err := h.pass(ctx, h.bench.idleTime); err != nil {
		return err
	}
	after, err := cpu(pid)
	if err != nil {
		return err
	}
	peak, now, err := memory(pid)
	if err != nil {
		return err
	}
	h.bench.printf("\nidle for %v: %.2f %% of a core, %.1f MiB resident, %.1f MiB at most\n", h.bench.idleTime,
		100*(after-before).Seconds()/h.bench.idleTime.Seconds(), float64(now)/(1<<20), float64(peak)/(1<<20))
	return errors.Join(h.child.stop(ctx), h.child.err)
}

// pass lets time go by while the contestant runs.
func (h *heat) pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-h.child.ended:
		return fmt.Errorf("%w; it said:\n%s", errEnded, h.child.log.String())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
