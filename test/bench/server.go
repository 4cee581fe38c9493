package main

import (
	"context"
	"os/exec"
)

// lean is a publication of those columns alone that the default mapping reads.
const lean = "lean"

// measureServer asks what the walsender spends on the form of what it sends. Nobody
// decodes it: pg_recvlogical listens, and throws away.
func measureServer(ctx context.Context, b *bench) error {
	if b.recv == "" {
		b.printf("what the server spends takes pg_recvlogical, which is not installed\n")
		return nil
	}
	all := []contestant{
		listener("all columns, text", "", false),
		listener("all columns, binary", "", true),
		listener("six columns of nine, text", lean, false),
		listener("six columns, binary", lean, true),
	}
	for _, s := range mainShapes() {
		s.publish = "CREATE PUBLICATION " + lean + " FOR TABLE outbox (id, aggregate_type, aggregate_id, event_type, payload, headers)" +
			" WITH (publish = 'insert')"
		results, n, err := b.contest(ctx, s, b.events/2, all)
		if err != nil {
			return err
		}
		rows := [][]string{{"asked for", "k events/s", "of the first", "walsender µs an event"}}
		for _, c := range all {
			mine := results[c.name]
			rows = append(rows, []string{
				c.name,
				shown(mine, thousands, "%.0f"),
				orDash(ratio(mine, results[all[0].name]), "%.2f"),
				shown(mine, func(r result) float64 { return 1e6 * r.sender / r.rate }, "%.2f"),
			})
		}
		b.printf("\n%s, %d events, medians of %d rounds\n\n", s.name, n, b.rounds)
		b.table(rows)
	}
	return nil
}

// listener is pg_recvlogical that asks for columns in some form.
func listener(name, publication string, binary bool) contestant {
	return contestant{name: name, run: func(ctx context.Context, b *bench, e entry) *exec.Cmd {
		e.publication = publication
		options := []string(nil)
		if binary {
			options = []string{"--option", "binary=true"}
		}
		return runRecvlogical(ctx, b, e, options...)
	}}
}
