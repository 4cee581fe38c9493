package main

import (
	"fmt"
	"slices"
	"strings"
)

// median is the middle of what get finds in all.
func median[T any](all []T, get func(T) float64) float64 {
	if len(all) == 0 {
		return 0
	}
	values := make([]float64, len(all))
	for i, one := range all {
		values[i] = get(one)
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// table prints columns that line up, as Markdown.
func (b *bench) table(rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for i, row := range rows {
		b.printf("|")
		for j, cell := range row {
			b.printf(" %s%s |", cell, strings.Repeat(" ", widths[j]-len([]rune(cell))))
		}
		b.printf("\n")
		if i == 0 {
			b.printf("|")
			for _, w := range widths {
				b.printf("%s|", strings.Repeat("-", w+2))
			}
			b.printf("\n")
		}
	}
	b.printf("\n")
}

// printTable gives medians, and rates as ratios of those in the same round.
func (b *bench) printTable(all []contestant, results map[string][]result) {
	rows := [][]string{{
		"contestant", "k events/s", "of pg_recvlogical", "of coalesced loop", "CPU µs an event", "peak MiB", "allocations an event", "TCP segments an event", "walsender busy",
	}}
	for _, c := range all {
		mine := results[c.name]
		rows = append(rows, []string{
			c.name,
			shown(mine, thousands, "%.0f"),
			orDash(ratio(mine, results[recvlogical]), "%.2f"),
			orDash(ratio(mine, results[coalesced]), "%.2f"),
			shown(mine, func(r result) float64 { return r.cpu }, "%.2f"),
			shown(mine, func(r result) float64 { return r.peak }, "%.0f"),
			shown(mine, func(r result) float64 { return r.allocations }, "%.2f"),
			shown(mine, func(r result) float64 { return r.segments }, "%.2f"),
			shown(mine, busy, "%.0f %%"),
		})
	}
	b.table(rows)
}

// shown is the median of what get finds, as a cell.
func shown(mine []result, get func(result) float64, format string) string {
	return orDash(median(mine, get), format)
}

// thousands of events a second.
func thousands(r result) float64 { return r.rate / 1e3 }

// busy is the part of a core that the walsender took, in percent.
func busy(r result) float64 { return 100 * r.sender }

// ratio is the median, over the rounds, of one's rate to the other's.
func ratio(mine, other []result) float64 {
	n := min(len(mine), len(other))
	pairs := make([]float64, n)
	for i := range n {
		pairs[i] = mine[i].rate / other[i].rate
	}
	return median(pairs, func(x float64) float64 { return x })
}

// orDash leaves out what is not known.
func orDash(value float64, format string) string {
	if value == 0 {
		return "–"
	}
	return fmt.Sprintf(format, value)
}
