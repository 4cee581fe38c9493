package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// result is what one drain of a backlog cost.
type result struct {
	rate        float64 // events a second
	cpu         float64 // microseconds an event
	sender      float64 // part of a core that the walsender was busy; 0 when unknown
	peak        float64 // MiB
	allocations float64 // an event; 0 when unknown
	segments    float64 // of TCP, an event; 0 when unknown
}

// measureDrains is the main table.
func measureDrains(ctx context.Context, b *bench) error {
	for _, s := range mainShapes() {
		if err := b.measureShape(ctx, s, b.events); err != nil {
			return err
		}
	}
	return nil
}

// measureShape lets all contestants drain one backlog.
func (b *bench) measureShape(ctx context.Context, s shape, events int) error {
	all := b.contestants()
	results, n, err := b.contest(ctx, s, events, all)
	if err != nil {
		return err
	}
	b.printf("\n%s, backlog of %d events, medians of %d rounds\n\n", s.name, n, b.rounds)
	b.printTable(all, results)
	return nil
}

// contest makes a backlog and lets all drain it, round after round, each round begun by
// another one. It gives how many events the backlog had.
func (b *bench) contest(ctx context.Context, s shape, events int, all []contestant) (map[string][]result, int, error) {
	l, err := b.newBacklog(ctx, s, events)
	if err != nil {
		return nil, 0, err
	}
	results := map[string][]result{}
	for round := range b.rounds {
		for i := range all {
			c := all[(i+round)%len(all)]
			r, err := l.drain(ctx, c)
			if err != nil {
				return nil, 0, errors.Join(fmt.Errorf("%s, %s: %w", s.name, c.name, err), l.drop(ctx))
			}
			b.printf("  %-22s %7.1f k/s %6.2f µs %6.1f MiB  walsender %3.0f %%\n", c.name, r.rate/1e3, r.cpu, r.peak, 100*r.sender)
			results[c.name] = append(results[c.name], r)
		}
	}
	return results, l.events, l.drop(ctx)
}

// heat is one run of one contestant.
type heat struct {
	*backlog
	contestant contestant
	portion    portion
	entry      entry
	board      *board
	shared     bool // the topics are others' too
	child      *child
	sender     int // pid of the walsender
}

// drain measures one contestant on a copy of the slot. Time and cost count from the
// moment the server has given it the slot until the last event is where it belongs: in
// Kafka, and for one that sends nowhere, out of the server.
func (l *backlog) drain(ctx context.Context, c contestant) (result, error) {
	h := l.newHeat(c)
	if err := h.prepare(ctx); err != nil {
		return result{}, errors.Join(err, h.clear(ctx))
	}
	r, err := h.run(ctx)
	return r, errors.Join(err, h.clear(ctx))
}

func (l *backlog) newHeat(c contestant) *heat {
	return &heat{backlog: l, contestant: c, portion: portion{slot: l.slot}}
}

// prepare makes topics, unless there are some, and a copy of the slot.
func (h *heat) prepare(ctx context.Context) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	if h.board == nil {
		if h.board, err = h.bench.newBoard(ctx, h.shape); err != nil {
			return err
		}
	}
	h.entry = entry{portion: h.portion, database: h.name, form: h.board.form, http: address}
	h.entry.slot = h.bench.name("copy")
	_, err = h.conn.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1, $2)", h.portion.slot, h.entry.slot)
	if err != nil {
		return fmt.Errorf("copy the slot: %w", err)
	}
	return nil
}

// clear removes what the run made.
func (h *heat) clear(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if h.child != nil {
		h.child.kill()
	}
	var errs []error
	if h.board != nil && !h.shared {
		errs = append(errs, h.board.drop(ctx))
	}
	if h.entry.slot != "" {
		errs = append(errs, dropSlot(ctx, h.conn, h.entry.slot))
	}
	return errors.Join(errs...)
}

// dropSlot waits for the walsender to notice that its client is gone.
func dropSlot(ctx context.Context, conn *pgx.Conn, slot string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var active bool
		err := conn.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&active)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil
		case err != nil:
			return fmt.Errorf("drop slot %s: %w", slot, err)
		case active:
			continue
		}
		if _, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", slot); err == nil {
			return nil
		}
	}
}

func (h *heat) run(ctx context.Context) (result, error) {
	var err error
	if h.child, err = start(h.contestant.run(context.WithoutCancel(ctx), h.bench, h.entry)); err != nil {
		return result{}, err
	}
	r, err := h.measure(ctx)
	if err == nil {
		err = h.child.stop(ctx)
	}
	if err == nil && h.contestant.sends {
		err = h.complete(ctx, &r)
	}
	if err != nil {
		h.child.kill()
		return r, fmt.Errorf("%w; it said:\n%s", err, h.child.log.String())
	}
	return r, nil
}

// usage is what was used until some moment.
type usage struct {
	at          time.Time
	own, sender time.Duration
	allocations float64
	segments    float64
}

func (h *heat) usage(ctx context.Context) (u usage, err error) {
	u.at, u.segments = time.Now(), segments()
	if u.own, err = cpu(h.child.cmd.Process.Pid); err != nil {
		return u, err
	}
	if h.bench.local() {
		if u.sender, err = cpu(h.sender); err != nil {
			return u, err
		}
	}
	if h.contestant.counts != nil {
		u.allocations, err = h.contestant.counts(ctx, h.child, h.entry)
	}
	return u, err
}

func (h *heat) measure(ctx context.Context) (result, error) {
	if err := until(ctx, h.child.ended, h.active); err != nil {
		return result{}, fmt.Errorf("wait for the slot to be read: %w", err)
	}
	from, err := h.usage(ctx)
	if err != nil {
		return result{}, err
	}
	reached := h.drained
	if h.contestant.sends {
		reached = h.arrived
	}
	if err := until(ctx, h.child.ended, reached); err != nil {
		return result{}, fmt.Errorf("wait for the last event: %w", err)
	}
	to, err := h.usage(ctx)
	if err != nil {
		return result{}, err
	}
	peak, _, err := memory(h.child.cmd.Process.Pid)
	if err != nil {
		return result{}, err
	}
	return to.since(from, h.events, peak), nil
}

// since is what the drain of so many events cost, of which from was the beginning.
func (u usage) since(from usage, events int, peak int64) result {
	n, took := float64(events), u.at.Sub(from.at)
	return result{
		rate:        n / took.Seconds(),
		cpu:         float64((u.own - from.own).Microseconds()) / n,
		sender:      float64(u.sender-from.sender) / float64(took),
		peak:        float64(peak) / (1 << 20),
		allocations: (u.allocations - from.allocations) / n,
		segments:    (u.segments - from.segments) / n,
	}
}

// complete compares what the topics hold after the end with what was written, and asks
// a bare loop what it allocated.
func (h *heat) complete(ctx context.Context, r *result) error {
	if h.child.err != nil {
		return fmt.Errorf("it ended with %w", h.child.err)
	}
	got, err := h.board.count(ctx)
	if err != nil {
		return err
	}
	if got != h.events {
		return fmt.Errorf("%d events are in Kafka, %d were written", got, h.events)
	}
	if h.contestant.counts == nil {
		total, err := reported(h.child)
		if err != nil {
			return err
		}
		r.allocations = total / float64(h.events)
	}
	return nil
}

// active says whether the server has given the slot to somebody.
func (h *heat) active(ctx context.Context) (float64, error) {
	err := h.conn.QueryRow(ctx, "SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = $1", h.entry.slot).Scan(&h.sender)
	if err != nil || h.sender == 0 {
		return almost, err
	}
	return 1, nil
}

// almost makes until look often.
const almost = 0.9999

// arrived is the part of the events that Kafka holds.
func (h *heat) arrived(ctx context.Context) (float64, error) {
	n, err := h.board.count(ctx)
	return float64(n) / float64(h.events), err
}

// drained is the part of the log that the server has sent.
func (h *heat) drained(ctx context.Context) (part float64, err error) {
	err = h.conn.QueryRow(ctx, `SELECT coalesce((r.sent_lsn - s.restart_lsn) / nullif($2::pg_lsn - s.restart_lsn, 0), 0)::float
		FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1`,
		h.entry.slot, h.end).Scan(&part)
	return part, err
}
