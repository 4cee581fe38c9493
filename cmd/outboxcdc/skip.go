package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func (p *program) skipCommand() *cli.Command {
	return &cli.Command{
		Name:  "skip",
		Usage: "pass one transaction that cannot be sent",
		Description: `Passes the transaction at which a stream has halted, after showing it and asking.
The stream names the position; peek shows it too. Everything before must have been
sent, and nothing else is passed. The transaction's rows are never sent by the
stream: insert them anew, corrected, when they are needed. The history of the saved
position keeps a line about it. Then start the stream.

Example:

   outboxcdc skip --slot orders --lsn 0/16B3748

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), mappingFlags(), flagsNamed(brokerFlags(), "checkpoint"), []cli.Flag{
			text("lsn", "", "`POSITION` of the transaction's commit"),
			&cli.BoolFlag{Name: "yes", Usage: "do not ask"},
		}, logFlags()),
		OnUsageError: badFlag,
		Action:       p.skip,
	}
}

func (p *program) skip(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := readConfig(c)
	config.Logger = logger
	lsn, lsnErr := lsnOf(c, "lsn")
	if c.String("lsn") == "" {
		_, lsnErr = required(c, "lsn", "")
	}
	if err := errors.Join(flagErr, lsnErr, config.Wal.Validate(), logErr); err != nil {
		return err
	}
	ctx, done := p.untilSignal(c.Context)
	defer done()
	err := pipeline.Skip(ctx, config, lsn, func(poison pipeline.Poison) error {
		if err := p.printPoison(poison); err != nil || c.Bool("yes") {
			return err
		}
		return p.ask("skip it? Type yes: ", "yes")
	})
	if err != nil {
		return interrupted(ctx, err)
	}
	_, err = fmt.Fprintf(p.out, "skipped; the stream goes on behind it\n")
	return err
}

func (p *program) printPoison(poison pipeline.Poison) error {
	for i := range poison.Rows {
		if err := printRow(p.out, poison.Rows[i]); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("transaction %d at %v has %d rows\n", poison.XID, poison.Commit, poison.Count)
	if poison.Hidden != "" {
		text = fmt.Sprintf("transaction %d at %v cannot be shown: %s\n", poison.XID, poison.Commit, poison.Hidden)
	}
	_, err := fmt.Fprint(p.out, text)
	return err
}

// errDeclined is an answer other than the one that was asked for.
var errDeclined = errors.New("not confirmed, nothing was changed")

// ask prints a question and wants one answer.
func (p *program) ask(question, want string) error {
	if _, err := fmt.Fprint(p.out, question); err != nil {
		return err
	}
	answer, err := bufio.NewReader(p.in).ReadString('\n')
	if strings.TrimSpace(answer) != want {
		if err != nil { // nobody is there to answer
			fmt.Fprintln(p.out) //nolint:errcheck // it only ends the line
		}
		return fault.NewOperator(errDeclined, "answer the question, or give --yes")
	}
	return nil
}
