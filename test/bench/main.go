// Command bench measures outboxcdc on a real Postgres and a real Kafka of this
// machine, beside what bounds it: pg_recvlogical, which only listens, and bareloop,
// which only reads and sends. What counts are medians of interleaved runs and their
// ratios; a rate by itself says more about the machine.
//
//	make bench
//	make bench PARTS=drain ROUNDS=3 EVENTS=200000
//
// Each contestant is a process of its own on a copy of one slot, so that all read the
// same log, and writes to a topic of its own, whose records are counted at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	done()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan is what to measure, and how thoroughly.
type plan struct {
	parts    []string
	rounds   int
	events   int      // of a backlog
	binary   string   // outboxcdc; empty builds it
	beside   []string // other builds of outboxcdc
	contests []string
	rates    []int         // of live traffic, events a second
	seconds  time.Duration // that it lasts
	idleTime time.Duration
}

// part is one of the measurements.
type part struct {
	name    string
	measure func(context.Context, *bench) error
}

// parts are all that there are, in the order in which they are run.
func parts() []part {
	return []part{
		{"drain", measureDrains},
		{"latency", measureLatency},
		{"handover", measureHandover},
		{"idle", measureIdle},
		{"shapes", measureShapes},
		{"growth", measureGrowth},
		{"split", measureSplit},
		{"server", measureServer},
		{"ways", measureWays},
		{"profile", measureProfile},
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	p, err := parsePlan(args)
	if err != nil {
		return err
	}
	b, err := open(ctx, p, out)
	if err != nil {
		return err
	}
	for _, part := range parts() {
		if err == nil && slices.Contains(p.parts, part.name) {
			err = part.measure(ctx, b)
		}
	}
	return errors.Join(err, b.close())
}

func parsePlan(args []string) (plan, error) {
	var p plan
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	names := make([]string, 0, len(parts()))
	for _, part := range parts() {
		names = append(names, part.name)
	}
	chosen := flags.String("parts", "drain,latency,handover,idle", "what to measure, of "+strings.Join(names, ","))
	contests := flags.String("contestants", "", "who takes part, such as outboxcdc,coalesced; all when empty")
	flags.IntVar(&p.rounds, "rounds", 5, "`times` that each is measured")
	flags.IntVar(&p.events, "events", 1_000_000, "`number` of events of a backlog")
	flags.StringVar(&p.binary, "outboxcdc", "", "the outboxcdc `binary`; built when empty")
	beside := flags.String("beside", "", "other `builds` of outboxcdc that drain as well, separated by commas")
	rates := flags.String("rates", "100,1000,5000,20000", "events a second of live traffic")
	flags.DurationVar(&p.seconds, "traffic", 5*time.Second, "how `long` a run of live traffic is")
	flags.DurationVar(&p.idleTime, "idle", time.Minute, "how `long` to look at an idle process")
	if err := flags.Parse(args); err != nil {
		return p, err
	}
	p.parts = strings.Split(*chosen, ",")
	for _, name := range p.parts {
		if !slices.Contains(names, name) {
			return p, fmt.Errorf("there is no part %q, only %s", name, strings.Join(names, ", "))
		}
	}
	if *beside != "" {
		p.beside = strings.Split(*beside, ",")
	}
	if *contests != "" {
		p.contests = strings.Split(*contests, ",")
	}
	for text := range strings.SplitSeq(*rates, ",") {
		rate, err := strconv.Atoi(text)
		if err != nil || rate < 1 {
			return p, fmt.Errorf("-rates: %q is no number of events a second", text)
		}
		p.rates = append(p.rates, rate)
	}
	if p.rounds < 1 || p.events < 1 {
		return p, errors.New("rounds and events must be positive")
	}
	return p, nil
}
