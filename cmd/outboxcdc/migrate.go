package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/connector"
	"github.com/outboxcdc/outboxcdc/outbox/debezium"
	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func (p *program) migrateCommand() *cli.Command {
	return &cli.Command{
		Name:            "migrate",
		Usage:           "move here from another program",
		HideHelpCommand: true,
		Subcommands:     []*cli.Command{p.migrateDebeziumCommand()},
		OnUsageError:    badFlag,
		Action: func(*cli.Context) error {
			return fault.NewUsage(errors.New("migrate from what is missing"), "use outboxcdc migrate debezium")
		},
	}
}

func (p *program) migrateDebeziumCommand() *cli.Command {
	return &cli.Command{
		Name:  "debezium",
		Usage: "move here from a Debezium connector with the Outbox Event Router",
		Description: `Reads the configuration of a connector, as Connect's REST interface takes it, as it
answers GET /connectors/NAME, or as a .properties file of Connect or Debezium Server,
and prints settings for --config of the other commands, with what has no equivalent,
what differs and what is not needed. It prints no password.

With --take-over it also takes the connector's slot over, once the connector has
stopped: it looks at slot, publication and tables, and saves as the position of the
stream where the slot stands. outboxcdc stream goes on from there: no event is
missing, none is out of order, and some of the last are sent twice.

Examples:

   outboxcdc migrate debezium --connector orders.json > outboxcdc.yaml
   outboxcdc migrate debezium --connector orders.json --take-over
   outboxcdc stream --config outboxcdc.yaml

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat([]cli.Flag{
			text("connector", "", "`FILE` with the connector's configuration; - is the standard input"),
			&cli.BoolFlag{Name: "take-over", EnvVars: []string{twin("take-over")}, Usage: "take over the connector's slot, which has stopped"},
			&cli.BoolFlag{Name: "accept-missing", EnvVars: []string{twin("accept-missing")}, Usage: "take over though something of the configuration has no equivalent"},
			text("database-url", "", "`URL` or key=value string of the database; without it, the connector's, with the PG* variables for the password"),
			list("table", "", "outbox table `SCHEMA.NAME`; without it, those of table.include.list"),
			text("checkpoint", pipeline.DefaultCheckpoint, "where positions are saved, a `URL`: database or file:///path"),
		}, logFlags()),
		OnUsageError: badFlag,
		Action:       p.migrateDebezium,
	}
}

func (p *program) migrateDebezium(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	path, pathErr := required(c, "connector", "-")
	if err := errors.Join(noArguments(c), logErr, pathErr); err != nil {
		return err
	}
	file, err := p.readFile(path)
	if err != nil {
		return err
	}
	config, err := connector.Read(file)
	if err != nil {
		return err
	}
	t, err := connector.Translate(config)
	if err != nil {
		return err
	}
	tables := c.StringSlice("table")
	if len(tables) == 0 {
		tables = t.Tables
	}
	if !c.Bool("take-over") {
		return printTranslation(p.out, config.Name, &t, tables)
	}
	if !t.Settled() && !c.Bool("accept-missing") {
		return fault.NewOperator(errors.Join(slices.Insert(missing(&t), 0, errors.New("something of the configuration has no equivalent"))...),
			"run outboxcdc migrate debezium without --take-over to read all of it; --accept-missing takes over all the same")
	}
	source, err := takeoverConfig(c, &t, tables)
	if err != nil {
		return err
	}
	source.Logger = logger
	ctx, done := p.untilSignal(c.Context)
	defer done()
	return interrupted(ctx, p.takeOver(ctx, source))
}

// readFile reads a file that the user names, or the standard input.
func (p *program) readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(p.in, 2<<20))
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user names it on purpose
	if err != nil {
		return nil, fault.NewUsage(err, "check the path of --connector")
	}
	return text, nil
}

// missing are the remarks that keep from taking over.
func missing(t *connector.Translation) []error {
	var errs []error
	for _, r := range t.Remarks {
		if r.Fate == connector.Missing {
			errs = append(errs, fmt.Errorf("%s: %s", r.Option, r.Text))
		}
	}
	return errs
}

// takeoverConfig is the stream that goes on from the connector's slot. Its sink is not
// touched.
func takeoverConfig(c *cli.Context, t *connector.Translation, names []string) (pipeline.Config, error) {
	var config pipeline.Config
	tables, tableErr := parseTables(names)
	if len(names) == 0 {
		tableErr = fault.NewUsage(errors.New("no outbox table is known: the connector has no table.include.list"), "name it with --table")
	}
	options, formatErr := debezium.ParseOptions(t.Format)
	if err := errors.Join(tableErr, formatErr); err != nil {
		return config, err
	}
	format, err := debezium.New(options, runID())
	if err != nil {
		return config, err
	}
	config = pipeline.Config{
		Wal:        wal.Config{Database: stringOf(c, "database-url", t.DatabaseURL), Slot: t.Slot, Publication: t.Publication, Tables: tables},
		Sink:       "stdout://",
		Checkpoint: c.String("checkpoint"),
	}
	config.Outbox.Format, config.Outbox.Default = format, format.Mapping()
	return config, nil
}

func (p *program) takeOver(ctx context.Context, config pipeline.Config) error {
	position, err := pipeline.TakeOver(ctx, config)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "took over slot %s at %v: outboxcdc stream goes on from there.\n"+
		"Do not start the connector again while it streams.\n", position.Slot, position.LSN)
	return err
}

// printTranslation prints settings in YAML, with what becomes of each option as comments.
func printTranslation(out io.Writer, name string, t *connector.Translation, tables []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Settings for outboxcdc --config, made from the Debezium connector %s.\n", inQuotes(name))
	printRemarks(&b, t, connector.Missing, "NO EQUIVALENT: settle each of these before you move")
	printRemarks(&b, t, connector.Differs, "Different here")
	setting := func(name, value, unless string) {
		if value == "" {
			fmt.Fprintf(&b, "# %s: %s\n", name, unless)
			return
		}
		fmt.Fprintf(&b, "%s: %s\n", name, inQuotes(value))
	}
	b.WriteString("\n")
	setting("slot", t.Slot, "")
	setting("publication", t.Publication, "")
	setting("database-url", t.DatabaseURL, "the connector's configuration names no host")
	b.WriteString("# The password belongs into PGPASSWORD, a PGPASSFILE or OUTBOXCDC_DATABASE_URL.\n")
	if t.Sink == "kafka:" || strings.HasPrefix(t.Sink, "kafka:?") {
		setting("sink", "", "kafka://BROKER:9092 with the brokers of the Connect worker (bootstrap.servers)"+strings.TrimPrefix(t.Sink, "kafka:"))
	} else {
		setting("sink", t.Sink, "")
	}
	printList(&b, "table", tables, "the connector has no table.include.list: name the outbox table")
	setting("format", "debezium", "")
	options := make([]string, len(t.Format))
	for i, o := range t.Format {
		options[i] = o.Name + "=" + o.Value
	}
	printList(&b, "debezium", options, "all options have their defaults")
	printRemarks(&b, t, connector.Kept, "The same here")
	printRemarks(&b, t, connector.Needless, "Not needed")
	_, err := io.WriteString(out, b.String())
	return err
}

func printList(b *strings.Builder, name string, values []string, unless string) {
	if len(values) == 0 {
		fmt.Fprintf(b, "# %s: %s\n", name, unless)
		return
	}
	fmt.Fprintf(b, "%s:\n", name)
	for _, value := range values {
		fmt.Fprintf(b, "  - %s\n", inQuotes(value))
	}
}

func printRemarks(b *strings.Builder, t *connector.Translation, fate connector.Fate, title string) {
	first := true
	for _, r := range t.Remarks {
		if r.Fate != fate {
			continue
		}
		if first {
			fmt.Fprintf(b, "\n# %s:\n", title)
			first = false
		}
		fmt.Fprintf(b, "#   %s: %s\n", oneLine(r.Option), oneLine(r.Text))
	}
}

// oneLine keeps what a file holds within a comment.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, text)
}

// inQuotes is a text in YAML's single quotes, in which a quote alone is special; and
// what would be a variable of the environment in the file stays as it is.
func inQuotes(text string) string {
	return "'" + strings.NewReplacer("'", "''", "${", "$${").Replace(oneLine(text)) + "'"
}
