package main

import (
	"context"
	"fmt"
)

// fewer is the part of the events that each of many measurements gets.
const fewer = 5

// measureShapes is a table for each of the workloads beside the main ones.
func measureShapes(ctx context.Context, b *bench) error {
	large := usual("payloads of 4 KiB, one a transaction", 1)
	large.payload = 4 << 10
	others := usual("10 events a transaction, 90 % of the log written by other tables", 10)
	others.setup = "CREATE TABLE others (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)"
	others.extra = "INSERT INTO others (note) SELECT repeat(md5(i::text), 9) FROM generate_series(1, 90) AS i;"
	deleted := usual("10 events a transaction, deleted in it", 10)
	deleted.extra = "DELETE FROM outbox WHERE seq > lastval() - 1000;"
	for _, s := range []shape{usual("10,000 events a transaction", 10_000), large, others, deleted} {
		if err := b.measureShape(ctx, s, b.events/fewer); err != nil {
			return err
		}
	}
	return nil
}

// growth is one thing that grows while all else is as usual.
type growth struct {
	what   string
	events int
	shape  shape
}

func (b *bench) growths() []growth {
	var all []growth
	add := func(what string, events int, change func(*shape)) {
		s := usual(what, 10)
		change(&s)
		all = append(all, growth{what, events, s})
	}
	n := b.events / fewer
	for _, factor := range []int{1, 2, 5, 10} {
		events := b.events / 10 * factor
		add(fmt.Sprintf("backlog of %d", events), events, func(*shape) {})
	}
	for _, topics := range []int{1, 10, 100, 1000} {
		add(fmt.Sprintf("topics of one partition: %d", topics), n, func(s *shape) { s.types, s.partitions = topics, 1 })
	}
	for _, partitions := range []int{12, 60, 600} {
		add(fmt.Sprintf("partitions of one topic: %d", partitions), n, func(s *shape) { s.partitions = partitions })
	}
	for _, aggregates := range []int{1, 100, 10_000} {
		add(fmt.Sprintf("aggregates: %d", aggregates), n, func(s *shape) { s.aggregates = aggregates })
	}
	return all
}

// measureGrowth is a table of ours alone: what grows, and what that costs.
func measureGrowth(ctx context.Context, b *bench) error {
	rows := [][]string{{"10 events a transaction", "k events/s", "CPU µs an event", "peak MiB"}}
	mine := b.contestants()[:1]
	growths := b.growths()
	for i := range growths {
		g := &growths[i]
		b.printf("%s\n", g.what)
		results, _, err := b.contest(ctx, g.shape, g.events, mine)
		if err != nil {
			return err
		}
		all := results[mine[0].name]
		rows = append(rows, []string{
			g.what,
			fmt.Sprintf("%.0f", median(all, func(r result) float64 { return r.rate / 1e3 })),
			fmt.Sprintf("%.2f", median(all, func(r result) float64 { return r.cpu })),
			fmt.Sprintf("%.0f", median(all, func(r result) float64 { return r.peak })),
		})
	}
	b.printf("\nhow the cost of %s grows, medians of %d rounds\n\n", mine[0].name, b.rounds)
	b.table(rows)
	return nil
}
