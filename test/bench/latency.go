package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// delay is how long events took from the INSERT to the consumer, in milliseconds.
type delay struct{ p50, p99, p999, most float64 }

func newDelay(sorted []time.Duration) delay {
	return delay{quantile(sorted, 0.5), quantile(sorted, 0.99), quantile(sorted, 0.999), quantile(sorted, 1)}
}

const (
	warmUp    = time.Second // of each run, not counted
	farFuture = time.Hour
)

// live are the contestants of latency: ours, and the loop that reads at once.
func (b *bench) live() []contestant {
	var all []contestant
	for _, c := range b.contestants() {
		if c.name == ours || c.name == bare {
			all = append(all, c)
		}
	}
	return all
}

// measureLatency prints a table for each rate of traffic, the contestants in turns.
func measureLatency(ctx context.Context, b *bench) error {
	l, err := b.newBacklog(ctx, usual("latency", 1), 0)
	if err != nil {
		return err
	}
	rows := [][]string{{"events/s", "contestant", "p50 ms", "p99 ms", "p99.9 ms", "max ms"}}
	for _, rate := range b.rates {
		results := map[string][]delay{}
		if err := l.latencies(ctx, rate, results); err != nil {
			return errors.Join(err, l.drop(ctx))
		}
		for _, c := range b.live() {
			rows = append(rows, delayRow(fmt.Sprint(rate), c.name, results[c.name]))
		}
		rows = append(rows, ratioRow(fmt.Sprint(rate), results))
	}
	b.printf("\nlatency from INSERT to a consumer, medians of %d rounds of %v\n\n", b.rounds, b.seconds)
	b.table(rows)
	return l.drop(ctx)
}

func (l *backlog) latencies(ctx context.Context, rate int, results map[string][]delay) error {
	all := l.bench.live()
	for round := range l.bench.rounds {
		for i := range all {
			c := all[(i+round)%len(all)]
			d, err := l.latency(ctx, c, &traffic{rate: rate, lasts: warmUp + l.bench.seconds})
			if err != nil {
				return fmt.Errorf("%d events/s, %s: %w", rate, c.name, err)
			}
			l.bench.printf("  %6d/s  %-22s p50 %6.2f  p99 %6.2f  p99.9 %6.2f  max %6.2f ms\n", rate, c.name, d.p50, d.p99, d.p999, d.most)
			results[c.name] = append(results[c.name], d)
		}
	}
	return nil
}

// latency streams from the log's end on.
func (l *backlog) latency(ctx context.Context, c contestant, t *traffic) (delay, error) {
	_, err := l.conn.Exec(ctx, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", l.slot)
	if err != nil {
		return delay{}, fmt.Errorf("move the slot to the end: %w", err)
	}
	seen, err := l.streamed(ctx, c, t, 0)
	if err != nil {
		return delay{}, err
	}
	from := seen.first().Add(warmUp)
	return newDelay(seen.delays(from, from.Add(farFuture))), nil
}

// streamed is a run of a contestant on a copy of the slot.
func (l *backlog) streamed(ctx context.Context, c contestant, t *traffic, old int) (*consumer, error) {
	h := l.newHeat(c)
	err := h.prepare(ctx)
	var seen *consumer
	if err == nil {
		seen, err = h.stream(ctx, t, old)
	}
	return seen, errors.Join(err, h.clear(ctx))
}

func delayRow(first, name string, all []delay) []string {
	row := []string{first, name}
	for _, get := range quantiles() {
		row = append(row, fmt.Sprintf("%.1f", median(all, get)))
	}
	return row
}

func quantiles() []func(delay) float64 {
	return []func(delay) float64{
		func(d delay) float64 { return d.p50 },
		func(d delay) float64 { return d.p99 },
		func(d delay) float64 { return d.p999 },
		func(d delay) float64 { return d.most },
	}
}

// ratioRow is ours to the bare loop's: the median of the rounds' ratios.
func ratioRow(first string, results map[string][]delay) []string {
	row := []string{first, "ratio"}
	mine, other := results[ours], results[bare]
	for _, get := range quantiles() {
		var pairs []float64
		for i := range min(len(mine), len(other)) {
			pairs = append(pairs, get(mine[i])/get(other[i]))
		}
		row = append(row, orDash(median(pairs, func(x float64) float64 { return x }), "%.2f"))
	}
	return row
}

// measureHandover lets a backlog be drained while traffic comes, and looks at the
// events inserted from the moment the last of the backlog had arrived: when the reader
// goes from large reads to immediate ones, none of them may wait for company.
func measureHandover(ctx context.Context, b *bench) error {
	l, err := b.newBacklog(ctx, usual("hand-over", 1), max(1, b.events/5))
	if err != nil {
		return err
	}
	results := map[string][]delay{}
	all := b.live()
	old := l.events
	for round := range b.rounds {
		for i := range all {
			c := all[(i+round)%len(all)]
			seen, err := l.streamed(ctx, c, &traffic{rate: 1_000, lasts: b.seconds}, old)
			if err != nil {
				return errors.Join(fmt.Errorf("hand-over, %s: %w", c.name, err), l.drop(ctx))
			}
			old += len(seen.arrivals)
			d := newDelay(seen.delays(seen.oldDone, seen.oldDone.Add(farFuture)))
			b.printf("  hand-over %-22s p50 %6.2f  p99 %6.2f  p99.9 %6.2f  max %6.2f ms\n", c.name, d.p50, d.p99, d.p999, d.most)
			results[c.name] = append(results[c.name], d)
		}
	}
	rows := [][]string{{"events/s", "contestant", "p50 ms", "p99 ms", "p99.9 ms", "max ms"}}
	for _, c := range all {
		rows = append(rows, delayRow("1000", c.name, results[c.name]))
	}
	b.printf("\nlatency of events inserted after a backlog of %d was drained, medians of %d rounds\n\n", l.events, b.rounds)
	b.table(append(rows, ratioRow("1000", results)))
	return l.drop(ctx)
}
