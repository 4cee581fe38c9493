package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

const defaultPeekLimit = 10

func (p *program) peekCommand() *cli.Command {
	return &cli.Command{
		Name:  "peek",
		Usage: "show the rows that wait in the slot",
		Description: `Shows what the slot holds and has not been confirmed, the oldest first, with all
that the rows hold, and says of each whether it can be sent. It reads a temporary
copy of the slot: nothing is confirmed or moved, and a stream may run meanwhile.

Examples:

   outboxcdc peek --slot orders
   outboxcdc peek --slot orders --limit 1000 --json

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), mappingFlags(), []cli.Flag{
			&cli.IntFlag{Name: "limit", EnvVars: []string{twin("limit")}, Value: defaultPeekLimit, Usage: "show at most this `NUMBER` of rows"},
			text("from-lsn", "", "begin at this `POSITION` of the log instead of where the slot stands"),
			&cli.BoolFlag{Name: "json", EnvVars: []string{twin("json")}, Usage: "print a JSON object a line"},
		}, logFlags()),
		OnUsageError: badFlag,
		Action:       p.peek,
	}
}

func (p *program) peek(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := readConfig(c)
	config.Logger = logger
	from, fromErr := lsnOf(c, "from-lsn")
	limit := c.Int("limit")
	var limitErr error
	if limit < 1 {
		limitErr = fault.NewUsage(errors.New("--limit is no number of rows"), "give 1 or more")
	}
	if err := errors.Join(flagErr, fromErr, limitErr, config.Wal.Validate(), logErr); err != nil {
		return err
	}
	ctx, done := p.untilSignal(c.Context)
	defer done()
	out := bufio.NewWriter(p.out)
	show := func(row pipeline.WaitingRow) error { return printRow(out, row) }
	if c.Bool("json") {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		show = func(row pipeline.WaitingRow) error { return encoder.Encode(row) }
	}
	more, err := pipeline.Peek(ctx, config, from, limit, show)
	if err == nil && more && !c.Bool("json") {
		fmt.Fprintf(out, "there are more than these %d\n", limit) //nolint:errcheck // Flush tells
	}
	return errors.Join(interrupted(ctx, err), out.Flush())
}

// readConfig is pipelineConfig for commands that send nothing. Flags that the command
// does not have are empty.
func readConfig(c *cli.Context) (pipeline.Config, error) {
	source, err := walConfig(c)
	mapping, mappingErr := outboxConfig(c, source.Tables)
	return pipeline.Config{Wal: source, Outbox: mapping, Checkpoint: c.String("checkpoint")}, errors.Join(err, mappingErr)
}

// lsnOf reads a flag that holds a position; 0 when it is not given.
func lsnOf(c *cli.Context, name string) (wal.LSN, error) {
	text := c.String(name)
	if text == "" {
		return 0, nil
	}
	lsn, err := wal.ParseLSN(text)
	if err == nil && lsn == 0 {
		err = errors.New("0/0 is no position")
	}
	if err != nil {
		return 0, fault.NewUsage(fmt.Errorf("--%s: %w", name, err), "logs and status print positions in that form")
	}
	return lsn, nil
}

// printRow prints a row over several lines.
func printRow(out io.Writer, row pipeline.WaitingRow) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s row %d of transaction %d, committed at %s, in %s\n",
		row.LSN, row.Index, row.XID, row.Time.UTC().Format(time.RFC3339Nano), row.Table)
	for _, column := range row.Columns {
		value := "null"
		if column.Value != nil {
			value = printable(*column.Value)
		}
		fmt.Fprintf(&b, "    %-15s %s\n", column.Name, value)
	}
	if row.Topic != "" {
		fmt.Fprintf(&b, "    it goes to topic %s\n", row.Topic)
	}
	if row.Problem != "" {
		fmt.Fprintf(&b, "    it cannot be sent: %s\n", row.Problem)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// maxPrinted bounds what is printed of a value for people.
const maxPrinted = 4000

// printable keeps a value on its line, and control characters off the terminal.
func printable(value string) string {
	more := ""
	if len(value) > maxPrinted {
		more = fmt.Sprintf(" … (%d bytes)", len(value))
		value = strings.ToValidUTF8(value[:maxPrinted], "")
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || r >= 0x80 && r < 0xA0 {
			return '·'
		}
		return r
	}, value) + more
}
