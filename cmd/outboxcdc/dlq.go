package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func (p *program) dlqCommand() *cli.Command {
	choose := []cli.Flag{
		text("aggregate-id", "", "rows of the aggregate with this `ID`"),
		text("aggregate-type", "", "of aggregates of this `TYPE`, where types have topics of their own"),
		text("position", "", "the row at this `POSITION`, as list and the header outboxcdc-position show it"),
	}
	all := &cli.BoolFlag{Name: "all", Usage: "all that is parked"}
	wait := &cli.DurationFlag{
		Name: "wait", EnvVars: []string{twin("wait")}, Value: defaultWait,
		Usage: "how `LONG` to wait for the stream to do it",
	}
	return &cli.Command{
		Name:  "dlq",
		Usage: "look at parked rows, send them again or drop them",
		Description: `With --on-error park a stream puts a row aside that it cannot send, and what follows
of the same aggregate behind it. This is for those rows. Mend the cause first: make
the topic, raise a limit, start the stream with another mapping.

retry and drop leave a request in the database. The running stream does it within a
second, in the order of the log, and lets the aggregate flow again once nothing of
it is parked; without a stream it is done when one starts. retry sends all that is
parked of an aggregate, drop drops the rows that are named.

Examples:

   outboxcdc dlq list --slot orders
   outboxcdc dlq show --slot orders --position 00000000016B3748/0
   outboxcdc dlq retry --slot orders --aggregate-id o-17
   outboxcdc dlq drop --slot orders --position 00000000016B3748/0

` + exitCodes,
		HideHelpCommand: true,
		OnUsageError:    badFlag,
		Action:          noSuchCommand("dlq", "list, show, retry and drop"),
		Subcommands: []*cli.Command{
			p.dlqAction("list", "list parked rows, the oldest first", p.listParked, append(slices.Clone(choose), limitFlag(),
				&cli.BoolFlag{Name: "json", EnvVars: []string{twin("json")}, Usage: "print a JSON object a line"})),
			p.dlqAction("show", "show parked rows with all that they hold", p.showParked, append(slices.Clone(choose), limitFlag())),
			p.dlqAction("retry", "send parked aggregates, in their order", p.retryParked, append(slices.Clone(choose), all, wait)),
			p.dlqAction("drop", "drop parked rows for good", p.dropParked, append(slices.Clone(choose), all, wait,
				&cli.BoolFlag{Name: "yes", Usage: "do not ask"})),
		},
	}
}

const defaultWait = 15 * time.Second

func limitFlag() cli.Flag {
	return &cli.IntFlag{Name: "limit", EnvVars: []string{twin("limit")}, Value: 100, Usage: "at most so many `ROWS`"}
}

func (p *program) dlqAction(name, usage string, action func(ctx context.Context, c *cli.Context, d *dlq) error, flags []cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, UsageText: "outboxcdc dlq " + name + " --slot SLOT [options]",
		HideHelpCommand: true, OnUsageError: badFlag,
		Flags:  slices.Concat(flagsNamed(databaseFlags(), "slot", "database-url"), flags, logFlags()),
		Action: func(c *cli.Context) error { return p.dlq(c, action) },
	}
}

// dlq is a command's view of the parked rows.
type dlq struct {
	*pipeline.ParkedRows

	filter wal.ParkedFilter
}

// dlq reads the flags that all commands have, connects and runs one of them.
func (p *program) dlq(c *cli.Context, action func(ctx context.Context, c *cli.Context, d *dlq) error) error {
	logger, logErr := p.openLog(c)
	config, configErr := bookmarkConfig(c, 0)
	config.Logger = logger
	filter, filterErr := parkedFilter(c)
	if err := errors.Join(configErr, filterErr, logErr); err != nil {
		return err
	}
	ctx, done := p.untilSignal(c.Context)
	defer done()
	rows, err := pipeline.OpenParkedRows(ctx, config)
	if err != nil {
		return interrupted(ctx, err)
	}
	err = action(ctx, c, &dlq{rows, filter})
	return interrupted(ctx, errors.Join(err, rows.Close()))
}

// parkedFilter reads which rows are meant. A command that changes something must be
// told, if only --all.
func parkedFilter(c *cli.Context) (wal.ParkedFilter, error) {
	var f wal.ParkedFilter
	for name, to := range map[string]**string{"aggregate-id": &f.ID, "aggregate-type": &f.Type} {
		if value := c.String(name); value != "" {
			*to = &value
		}
	}
	if text := c.String("position"); text != "" {
		place, err := wal.ParsePlace(text)
		if err != nil {
			return f, err
		}
		f.Place = &place
	}
	chosen := f != wal.ParkedFilter{}
	switch changes := c.Command.Name == "retry" || c.Command.Name == "drop"; {
	case changes && !chosen && !c.Bool("all"):
		return f, fault.NewUsage(errors.New("no rows are named"), "give --aggregate-id, --aggregate-type, --position or --all")
	case chosen && c.Bool("all"):
		return f, fault.NewUsage(errors.New("--all is given and some rows are named"), "give one of the two")
	default:
		return f, nil
	}
}

// parkedForm is a parked row in JSON.
type parkedForm struct {
	Position  string    `json:"position"`
	Table     string    `json:"table"`
	Type      string    `json:"aggregate_type,omitempty"`
	ID        string    `json:"aggregate_id,omitempty"`
	Event     string    `json:"id,omitempty"`
	Cause     string    `json:"cause"`
	Reason    string    `json:"reason"`
	Committed time.Time `json:"committed_at"`
	Parked    time.Time `json:"parked_at"`
	Asked     string    `json:"asked,omitempty"`
}

func (p *program) listParked(ctx context.Context, c *cli.Context, d *dlq) error {
	limit := c.Int("limit")
	rows, err := d.List(ctx, d.filter, limit)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		encoder := json.NewEncoder(p.out)
		encoder.SetEscapeHTML(false)
		for i := range rows {
			r := &rows[i]
			form := parkedForm{
				r.String(), r.Source(), string(r.Type), string(r.ID), string(r.Event), r.Cause, r.Reason, r.Time, r.ParkedAt, r.Asked,
			}
			if err := encoder.Encode(form); err != nil {
				return err
			}
		}
		return nil
	}
	count, _, err := d.Count(ctx)
	if err != nil {
		return err
	}
	return printParked(p.out, rows, count)
}

func printParked(out io.Writer, rows []wal.ParkedRow, count wal.ParkedCount) error {
	if len(rows) > 0 {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "POSITION\tAGGREGATE\tPARKED\tCAUSE\tREASON") //nolint:errcheck // Flush tells
		for i := range rows {
			r := &rows[i]
			cause := r.Cause
			if r.Asked != "" {
				cause += ", " + r.Asked + " is asked for"
			}
			//nolint:errcheck // as above
			fmt.Fprintf(w, "%v\t%s\t%s\t%s\t%s\n", r.Place, printable(aggregateName(r)), r.ParkedAt.Format(time.RFC3339), cause, r.Reason)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%d rows of %d aggregates are parked\n", count.Rows, count.Aggregates)
	return err
}

// aggregateName is an aggregate for people.
func aggregateName(r *wal.ParkedRow) string {
	switch {
	case len(r.ID) == 0:
		return "(none)"
	case len(r.Type) == 0:
		return string(r.ID)
	default:
		return string(r.Type) + "/" + string(r.ID)
	}
}

func (p *program) showParked(ctx context.Context, c *cli.Context, d *dlq) error {
	rows, err := d.Show(ctx, d.filter, c.Int("limit"))
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errNotParked()
	}
	for i := range rows {
		if err := printParkedRow(p.out, &rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func errNotParked() error {
	return fault.NewOperator(errors.New("no such row is parked"), "outboxcdc dlq list shows those that are")
}

// printParkedRow prints a row over several lines.
func printParkedRow(out io.Writer, r *wal.ParkedRow) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%v of transaction %d, committed at %s, in %s\n", r.Place, r.XID, r.Time.Format(time.RFC3339Nano), r.Source())
	for i, column := range r.Columns {
		value := "null"
		if column != nil {
			value = printable(string(column))
		}
		fmt.Fprintf(&b, "    %-15s %s\n", r.Names[i], value)
	}
	fmt.Fprintf(&b, "    parked at %s (%s): %s\n", r.ParkedAt.Format(time.RFC3339), r.Cause, r.Reason)
	_, err := io.WriteString(out, b.String())
	return err
}

func (p *program) retryParked(ctx context.Context, c *cli.Context, d *dlq) error {
	n, err := d.AskRetry(ctx, d.filter)
	if err != nil {
		return err
	}
	if n == 0 {
		return errNotParked()
	}
	if err := p.awaitParked(ctx, c, d, fmt.Sprintf("asked for a retry of %d rows", n)); err != nil {
		return err
	}
	left, err := d.List(ctx, d.filter, 1)
	if err == nil && len(left) > 0 && left[0].Asked == "" {
		return fault.NewData(fmt.Errorf("the row at %v cannot be sent still: %s", left[0].Place, left[0].Reason), "mend the cause and ask again, or drop the row")
	}
	return err
}

func (p *program) dropParked(ctx context.Context, c *cli.Context, d *dlq) error {
	rows, err := d.List(ctx, d.filter, 1<<30)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errNotParked()
	}
	if !c.Bool("yes") {
		for i := range rows[:min(len(rows), 20)] {
			fmt.Fprintf(p.out, "%v  %s\n", rows[i].Place, printable(aggregateName(&rows[i]))) //nolint:errcheck // the question fails then too
		}
		if err := p.ask(fmt.Sprintf("drop %d rows, so that they are never sent? Type yes: ", len(rows)), "yes"); err != nil {
			return err
		}
	}
	n, err := d.AskDrop(ctx, d.filter)
	if err != nil {
		return err
	}
	return p.awaitParked(ctx, c, d, fmt.Sprintf("asked for a drop of %d rows", n))
}

// awaitParked says what was asked for and what became of it.
func (p *program) awaitParked(ctx context.Context, c *cli.Context, d *dlq, asked string) error {
	done, left, err := d.Await(ctx, c.Duration("wait"))
	if err != nil {
		return err
	}
	state := "and it is done"
	if !done {
		state = "which a stream with --on-error park does as soon as it runs"
	}
	_, err = fmt.Fprintf(p.out, "%s, %s; %d rows of %d aggregates are parked now\n", asked, state, left.Rows, left.Aggregates)
	return err
}
