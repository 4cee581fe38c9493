package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func (p *program) dropCommand() *cli.Command {
	return &cli.Command{
		Name:  "drop",
		Usage: "remove a stream's slot, publication and saved position",
		Description: `Removes the slot with its bookmarks and its replay window, the publication unless
another slot of the database may read with it, and the saved position with its
history, and says so. It asks for the slot's name first. Tables and topics stay.
What the slot held and was not sent is in no stream any more.

Examples:

   outboxcdc drop --slot orders
   outboxcdc drop --slot orders --yes orders

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), flagsNamed(brokerFlags(), "checkpoint"), []cli.Flag{
			&cli.StringFlag{Name: "yes", Usage: "the slot's `NAME` once more, instead of being asked for it"},
		}, logFlags()),
		OnUsageError: badFlag,
		Action:       p.drop,
	}
}

func (p *program) drop(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	source, flagErr := walConfig(c)
	config := pipeline.Config{Wal: source, Checkpoint: c.String("checkpoint"), Logger: logger}
	yes := c.String("yes")
	var yesErr error
	if yes != "" && yes != config.Wal.Slot {
		yesErr = fault.NewUsage(errors.New("--yes and --slot name different slots"), "give the slot's name to both")
	}
	if err := errors.Join(flagErr, yesErr, config.Wal.Validate(), logErr); err != nil {
		return err
	}
	ctx, done := p.untilSignal(c.Context)
	defer done()
	approve := func(goes, stays []string) error {
		if yes == "" {
			for _, name := range goes {
				fmt.Fprintf(p.out, "there is %s\n", name) //nolint:errcheck // the question fails then too
			}
		}
		for _, sentence := range stays {
			fmt.Fprintln(p.out, sentence) //nolint:errcheck // as above, or the answer does not hang on it
		}
		if yes != "" {
			return nil
		}
		return p.ask("to remove it, type the slot's name: ", config.Wal.Slot)
	}
	err := pipeline.Drop(ctx, config, approve, func(removed string) {
		fmt.Fprintf(p.out, "removed %s\n", removed) //nolint:errcheck // the work is done, whoever hears of it
	})
	return interrupted(ctx, err)
}
