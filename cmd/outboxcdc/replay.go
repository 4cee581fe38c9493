package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func (p *program) replayCommand() *cli.Command {
	return &cli.Command{
		Name:  "replay",
		Usage: "send events again that were sent before",
		Description: `Sends events again, from a position or a time up to what the slot has confirmed
when the replay is planned. It says first where it takes them from: a bookmark or the
replay window, which give exactly what was committed, in the order of the commits, at
the same positions; else the outbox table, which gives more than that, in the order
of seq and without positions; else it says which position is the oldest possible.

The stream may run meanwhile or not: its slot and its saved position are not touched.
Each event has the header outboxcdc-replay with the name of the run. A replay that
is interrupted goes on with --run; what was in flight is then sent once more.

Examples:

   outboxcdc replay --slot orders --sink kafka://b1:9092 --from-lsn 0/16B3748 --dry-run
   outboxcdc replay --slot orders --sink kafka://b1:9092 --from-bookmark before_release --topic repaired
   outboxcdc replay --slot orders --sink kafka://b1:9092 --from-time 2h --aggregate order --id 42
   outboxcdc replay --slot orders --sink kafka://b1:9092 --run 20260131T120000-k3x9qa --rate 500

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), mappingFlags(), brokerFlags(), []cli.Flag{
			text("from-lsn", "", "begin with what commits at or behind this `POSITION`"),
			text("from-bookmark", "", "begin where this bookmark `NAME` stands"),
			text("from-time", "", "begin with what was committed at this `TIME`: 2026-01-31T12:00:00Z, or 24h for as long ago"),
			text("to-lsn", "", "end before what commits at or behind this `POSITION`; without it, what the slot has confirmed"),
			text("aggregate", "", "send only events of this aggregate `TYPE`"),
			text("id", "", "send only events of the aggregate with this `ID`"),
			&cli.IntFlag{Name: "rate", EnvVars: []string{twin("rate")}, Usage: "send at most this `NUMBER` of events a second"},
			text("run", "", "go on with this `RUN`"),
			&cli.BoolFlag{Name: "dry-run", EnvVars: []string{twin("dry-run")}, Usage: "say where the events come from and how many they are, and send nothing"},
		}, flagsNamed(streamFlags(), "drain-timeout"), logFlags()),
		OnUsageError: badFlag,
		Action:       p.replay,
	}
}

func (p *program) replay(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := replayConfig(c, time.Now())
	config.Logger = logger
	if err := errors.Join(flagErr, logErr); err != nil {
		return err
	}
	progress, wipe := p.bar()
	config.Progress = progress
	opening, done := p.untilSignal(c.Context)
	replay, err := pipeline.OpenReplay(opening, config)
	if err != nil {
		done()
		return interrupted(opening, err)
	}
	defer replay.Close()
	if err := p.printPlan(replay.Plan); err != nil || c.Bool("dry-run") {
		if err == nil {
			err = p.count(opening, replay)
			wipe()
		}
		done()
		return interrupted(opening, err)
	}
	done()
	err = p.runToTheEnd(c.Context, replay, logger)
	wipe()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "sent %d events\n", replay.Sent())
	return err
}

func (p *program) count(ctx context.Context, replay *pipeline.Replay) error {
	rows, err := replay.Count(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "would send %d events\n", rows)
	return err
}

func replayConfig(c *cli.Context, now time.Time) (pipeline.ReplayConfig, error) {
	config, err := pipelineConfig(c)
	from, fromErr := lsnOf(c, "from-lsn")
	to, toErr := lsnOf(c, "to-lsn")
	since, sinceErr := parseTime("from-time", c.String("from-time"), now)
	return pipeline.ReplayConfig{
		Config: config, From: from, To: to, Since: since, Bookmark: c.String("from-bookmark"),
		Filter: pipeline.Filter{AggregateType: c.String("aggregate"), AggregateID: c.String("id")},
		Rate:   c.Int("rate"), Run: c.String("run"),
	}, errors.Join(err, fromErr, toErr, sinceErr)
}

func (p *program) printPlan(plan *pipeline.Plan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "run     %s\nfrom    %v\nto      %v\nsource  %s\n", plan.Run, plan.From, plan.To, plan.Source)
	if !plan.Since.IsZero() {
		fmt.Fprintf(&b, "since   %s\n", plan.Since.UTC().Format(time.RFC3339))
	}
	if plan.Filter.AggregateType != "" {
		fmt.Fprintf(&b, "only    aggregates of type %s\n", printable(plan.Filter.AggregateType))
	}
	if plan.Filter.AggregateID != "" {
		fmt.Fprintf(&b, "only    aggregate %s\n", printable(plan.Filter.AggregateID))
	}
	for _, note := range plan.Notes {
		fmt.Fprintf(&b, "note    %s\n", note)
	}
	_, err := fmt.Fprint(p.out, b.String())
	return err
}

// bar shows how far a replay is, on a terminal only; wipe takes the line away again.
func (p *program) bar() (show func(pipeline.ReplayProgress), wipe func()) {
	file, ok := p.err.(*os.File)
	if !ok || !terminal(file) {
		return nil, func() {}
	}
	show = func(at pipeline.ReplayProgress) {
		fmt.Fprintf(file, "\r\x1b[K%s", barText(at)) //nolint:errcheck // it is only for the eye
	}
	return show, func() { fmt.Fprint(file, "\r\x1b[K") } //nolint:errcheck // as above
}

func barText(at pipeline.ReplayProgress) string {
	const width = 40
	full := int(at.Part * width)
	text := fmt.Sprintf("[%s%s] %3.0f%%  %d events", strings.Repeat("#", full), strings.Repeat(".", width-full), at.Part*100, at.Rows)
	if at.Goal > 0 {
		text += fmt.Sprintf(" of %d", at.Goal)
	}
	return text
}

// parseTime reads a time, or how long ago it was.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fault.NewUsage(fmt.Errorf("--%s is no time", flag), "write 2026-01-31T12:00:00Z, or 24h for as long ago")
	}
	return at, nil
}
