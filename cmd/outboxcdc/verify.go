package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/pipeline/verify"
	"github.com/outboxcdc/outboxcdc/sink"
)

// defaultVerifyWait is longer than a healthy stream takes to its next confirm: idle,
// and with its positions in the database, that is a minute.
const defaultVerifyWait = 90 * time.Second

func (p *program) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "compare the outbox tables with what the topics hold",
		Description: `Reads the tables, or a range of their rows, and the topics, and says of every row
whether its event is there, as the row says, and behind the earlier events of its
aggregate. It works while a stream runs and when there is none, and changes nothing:
the role needs SELECT on the tables, the broker's user Read and Describe on the
topics. Give --table and all that says how rows become events as the stream has it.

It exits with 0 when every row's event is there, in order; with 3 when one is
missing, altered or out of order; with 1 when that cannot be told yet, because the
slot has not confirmed the rows, or rows are parked. Redelivered events are what "at least once" means
and no fault.

A row that was deleted is not looked for. A row from before the slot was made was
never in its stream: leave it out with --from-seq or --since. A row that retention or
compaction may have removed from the topic counts as expired: leave it out alike.

The comparison takes about 184 bytes an event of the disk, in --temp-dir, and little
memory. When rows are not there and the stream is idle, 80 KB are written to the log
(pg_logical_emit_message), which moves the slot past them.

Examples:

   outboxcdc verify --slot orders --sink kafka://b1:9092
   outboxcdc verify --slot orders --sink kafka://b1:9092 --since 24h --json
   outboxcdc verify --slot orders --sink kafka://b1:9092 --from-seq 1000000 --to-seq 2000000

` + exitCodes,
		HideHelpCommand: true,
		Flags:           slices.Concat(flagsNamed(slices.Concat(databaseFlags(), brokerFlags()), "slot", "database-url", "table", "sink"), mappingFlags(), verifyFlags(), logFlags()),
		OnUsageError:    badFlag,
		Action:          p.verify,
	}
}

func verifyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.Int64Flag{Name: "from-seq", EnvVars: []string{twin("from-seq")}, Usage: "compare rows from this `NUMBER` of their column seq on"},
		&cli.Int64Flag{Name: "to-seq", EnvVars: []string{twin("to-seq")}, Usage: "compare rows up to this `NUMBER`"},
		text("since", "", "compare rows that were created since this `TIME`: 2026-01-31T12:00:00Z, or 24h for as long ago"),
		&cli.DurationFlag{
			Name: "wait", EnvVars: []string{twin("wait")}, Value: defaultVerifyWait,
			Usage: "how `LONG` to wait for the slot when rows are not there yet",
		},
		text("temp-dir", "", "`DIRECTORY` for the temporary files; empty is the system's"),
		&cli.BoolFlag{Name: "json", EnvVars: []string{twin("json")}, Usage: "print the result as JSON"},
	}
}

// flagsNamed gives those of flags that have one of the names.
func flagsNamed(flags []cli.Flag, names ...string) []cli.Flag {
	return slices.DeleteFunc(flags, func(f cli.Flag) bool { return !slices.Contains(names, f.Names()[0]) })
}

func (p *program) verify(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := verifyConfig(c, time.Now())
	config.Logger, config.Wal.Logger, config.SinkOptions.Logger = logger, logger, logger
	if err := errors.Join(flagErr, sink.CheckURL(config.Sink), config.Wal.Validate(), logErr); err != nil {
		return err
	}
	ctx, done := p.untilSignal(c.Context)
	defer done()
	progress, wipe := p.progress()
	config.Progress = progress
	report, err := verify.Run(ctx, config)
	wipe()
	if err != nil {
		return interrupted(ctx, err)
	}
	show := printReport
	if c.Bool("json") {
		show = printReportJSON
	}
	return errors.Join(show(p.out, report), report.Err())
}

func verifyConfig(c *cli.Context, now time.Time) (verify.Config, error) {
	source, sourceErr := walConfig(c)
	source.Publication = defaultPublication // which is not looked at
	url, sinkErr := required(c, "sink", "stdout://")
	mapping, mappingErr := outboxConfig(c, source.Tables)
	since, sinceErr := parseTime("since", c.String("since"), now)
	var rangeErr error
	if from, to := c.Int64("from-seq"), c.Int64("to-seq"); from < 0 || to < 0 || to != 0 && to < from {
		rangeErr = fault.NewUsage(errors.New("--from-seq and --to-seq are no range"), "give positive numbers, the smaller one first")
	}
	return verify.Config{
		Wal:       source,
		Sink:      url,
		Outbox:    mapping,
		FromSeq:   c.Int64("from-seq"),
		ToSeq:     c.Int64("to-seq"),
		Since:     since,
		Wait:      c.Duration("wait"),
		Directory: c.String("temp-dir"),
	}, errors.Join(sourceErr, sinkErr, mappingErr, sinceErr, rangeErr)
}

// progress shows how far the comparison is, on a terminal only; wipe takes the line
// away again.
func (p *program) progress() (show func(verify.Progress), wipe func()) {
	file, ok := p.err.(*os.File)
	if !ok || !terminal(file) {
		return nil, func() {}
	}
	show = func(at verify.Progress) {
		text := fmt.Sprintf("%d rows", at.Rows)
		if at.Goal > 0 {
			text += fmt.Sprintf(", %d of %d records", at.Records, at.Goal)
		}
		fmt.Fprintf(file, "\r\x1b[K%s", text) //nolint:errcheck // it is only for the eye
	}
	return show, func() { fmt.Fprint(file, "\r\x1b[K") } //nolint:errcheck // as above
}

func terminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func printReportJSON(out io.Writer, report *verify.Report) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

// printReport prints a line for each number, then what limits them and where to
// look.
func printReport(out io.Writer, r *verify.Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%12d rows up to %s\n%12d records\n", r.Rows, r.Snapshot, r.Records)
	for _, line := range []struct {
		count int64
		text  string
	}{
		{r.Present, "rows whose event is there"},
		{r.Missing, "rows missing"},
		{r.Altered, "rows whose event is another than the row says"},
		{r.Parked, "rows that are parked, not there"},
		{r.Dropped, "rows that were parked and dropped on request, not there"},
		{r.Disordered, "records out of order within their aggregate"},
		{r.Unmappable, "rows that no event can be made of"},
		{r.Unsettled, "rows not there, and not confirmed by the slot either"},
		{r.Expired, "rows not there, perhaps removed by the broker"},
		{r.Redelivered, "records delivered again, at the same position"},
		{r.Duplicates, "records of an event that is there at another position"},
		{r.Rowless, "events without a row: deleted, or outside of the range"},
		{r.Foreign, "records that outboxcdc did not write"},
	} {
		if line.count > 0 {
			fmt.Fprintf(&b, "%12d %s\n", line.count, line.text)
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	for i := range r.Examples {
		fmt.Fprintf(&b, "%s: %s\n", r.Examples[i].Kind, exampleText(&r.Examples[i]))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// exampleText says where an example is.
func exampleText(e *verify.Example) string {
	if e.Table == "" {
		text := fmt.Sprintf("topic %s, partition %d, offset %d", e.Topic, e.Partition, e.Offset)
		if e.Position != "" {
			text += ", position " + e.Position
		}
		return text
	}
	text := "table " + e.Table
	if e.Seq != 0 {
		text += fmt.Sprintf(", seq %d", e.Seq)
	}
	if e.Row != "" {
		text += ", id " + e.Row
	}
	return text
}
