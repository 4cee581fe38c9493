package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// portion is what one slot is for.
type portion struct {
	slot        string
	publication string   // outboxcdc when empty
	tables      []string // public.outbox when empty
}

// flags are those of outboxcdc.
func (p portion) flags() []string {
	flags := []string{"--slot", p.slot}
	if p.publication != "" {
		flags = append(flags, "--publication", p.publication)
	}
	for _, table := range p.tables {
		flags = append(flags, "--table", table)
	}
	return flags
}

// splitTables is how many partitions a split outbox has.
const splitTables = 4

// splits are the numbers of slots among which they are divided.
func splits() []int { return []int{1, 2, 4} }

// splitSetup makes the outbox of docs/splitting.md.
func splitSetup() string {
	var sql strings.Builder
	sql.WriteString(`CREATE TABLE outbox (
		seq bigserial, id uuid NOT NULL DEFAULT gen_random_uuid(),
		aggregate_type text NOT NULL, aggregate_id text NOT NULL, event_type text NOT NULL,
		payload jsonb, headers jsonb, created_at timestamptz NOT NULL DEFAULT now(),
		xid xid8 NOT NULL DEFAULT pg_current_xact_id(), PRIMARY KEY (aggregate_id, seq)
	) PARTITION BY HASH (aggregate_id);
`)
	for i := range splitTables {
		fmt.Fprintf(&sql, "CREATE TABLE outbox_%d PARTITION OF outbox FOR VALUES WITH (MODULUS %d, REMAINDER %[1]d);\n", i, splitTables)
	}
	return sql.String()
}

// portions are the slots behind which the backlog gathers.
func (l *backlog) portions() []portion {
	if !l.shape.split {
		return []portion{{slot: l.slot}}
	}
	var all []portion
	for _, n := range splits() {
		all = append(all, l.portionsOf(n)...)
	}
	return all
}

// portionsOf divides the tables among n slots.
func (l *backlog) portionsOf(n int) []portion {
	all := make([]portion, n)
	for i := range all {
		name := fmt.Sprintf("%s_%d_%d", l.slot, n, i)
		all[i] = portion{slot: name, publication: name}
	}
	for i := range splitTables {
		p := &all[i%n]
		p.tables = append(p.tables, fmt.Sprintf("public.outbox_%d", i))
	}
	return all
}

// measureSplit drains one log through one, two and four slots at once.
func measureSplit(ctx context.Context, b *bench) error {
	s := usual("split", 1)
	s.split, s.setup = true, splitSetup()
	l, err := b.newBacklog(ctx, s, b.events/fewer)
	if err != nil {
		return err
	}
	results := map[int][]result{}
	for range b.rounds {
		for _, n := range splits() {
			r, err := l.drainSplit(ctx, n)
			if err != nil {
				return errors.Join(fmt.Errorf("%d slots: %w", n, err), l.drop(ctx))
			}
			b.printf("  %d slots %7.1f k/s %6.2f µs %6.1f MiB  walsenders %3.0f %%\n", n, r.rate/1e3, r.cpu, r.peak, 100*r.sender)
			results[n] = append(results[n], r)
		}
	}
	rows := [][]string{{"slots", "k events/s", "CPU µs an event", "peak MiB of all", "walsenders busy"}}
	for _, n := range splits() {
		all := results[n]
		rows = append(rows, []string{
			fmt.Sprint(n),
			fmt.Sprintf("%.0f", median(all, func(r result) float64 { return r.rate / 1e3 })),
			fmt.Sprintf("%.2f", median(all, func(r result) float64 { return r.cpu })),
			fmt.Sprintf("%.0f", median(all, func(r result) float64 { return r.peak })),
			orDash(median(all, func(r result) float64 { return 100 * r.sender }), "%.0f %%"),
		})
	}
	b.printf("\none event a transaction, %d events, the log split over slots, medians of %d rounds\n\n", l.events, b.rounds)
	b.table(rows)
	return l.drop(ctx)
}

// drainSplit runs one outboxcdc for each portion, all at once.
func (l *backlog) drainSplit(ctx context.Context, n int) (result, error) {
	board, err := l.bench.newBoard(ctx, l.shape)
	if err != nil {
		return result{}, err
	}
	var heats []*heat
	for _, p := range l.portionsOf(n) {
		h := l.newHeat(l.bench.contestants()[0])
		h.portion, h.board, h.shared = p, board, true
		heats = append(heats, h)
	}
	r, err := drainTogether(ctx, heats)
	for _, h := range heats {
		err = errors.Join(err, h.clear(ctx))
	}
	return r, errors.Join(err, board.drop(context.WithoutCancel(ctx)))
}

// drainTogether counts from the moment the first has its slot.
func drainTogether(ctx context.Context, heats []*heat) (r result, err error) {
	for _, h := range heats {
		if err := h.prepare(ctx); err != nil {
			return r, err
		}
	}
	for _, h := range heats {
		if h.child, err = start(h.contestant.run(context.WithoutCancel(ctx), h.bench, h.entry)); err != nil {
			return r, err
		}
	}
	from := make([]usage, len(heats))
	for i, h := range heats {
		if err := until(ctx, h.child.ended, h.active); err != nil {
			return r, fmt.Errorf("wait for slot %s to be read: %w; it said:\n%s", h.entry.slot, err, h.child.log.String())
		}
		if from[i], err = h.usage(ctx); err != nil {
			return r, err
		}
	}
	first := heats[0]
	if err := until(ctx, first.child.ended, first.arrived); err != nil {
		return r, fmt.Errorf("wait for the last event: %w", err)
	}
	return sum(ctx, heats, from)
}

// sum adds up what all of them used, and stops them.
func sum(ctx context.Context, heats []*heat, from []usage) (total result, err error) {
	events, now := heats[0].events, time.Now()
	for i, h := range heats {
		to, err := h.usage(ctx)
		if err != nil {
			return total, err
		}
		peak, _, err := memory(h.child.cmd.Process.Pid)
		if err != nil {
			return total, err
		}
		from[i].at, to.at = from[0].at, now
		r := to.since(from[i], events, peak)
		total.rate = r.rate
		total.cpu += r.cpu
		total.sender += r.sender
		total.peak += r.peak
	}
	for _, h := range heats {
		if err := errors.Join(h.child.stop(ctx), h.child.err); err != nil {
			return total, fmt.Errorf("%w; it said:\n%s", err, strings.TrimSpace(h.child.log.String()))
		}
	}
	if got, err := heats[0].board.count(ctx); err != nil || got != events {
		return total, errors.Join(err, fmt.Errorf("%d events are in Kafka, %d were written", got, events))
	}
	return total, nil
}
