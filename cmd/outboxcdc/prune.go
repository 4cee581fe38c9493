package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func (p *program) pruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "delete old rows that the broker holds",
		Description: `Deletes from the outbox tables the rows that the broker holds for sure, by the
delivered snapshot, and that are older by created_at. It deletes a few pages a
transaction and may run beside a stream; what it does not finish, the next run does.
Rows that may never have been sent stay. The tables need the columns xid and
created_at of a table that init makes; the role needs SELECT and DELETE on them.

Examples:

   outboxcdc prune --slot orders --older-than 72h
   outboxcdc prune --slot orders --older-than 720h --drop-partitions

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), []cli.Flag{
			checkpointFlag(),
			&cli.DurationFlag{
				Name: "older-than", EnvVars: []string{twin("older-than")},
				Usage: "how `OLD` rows must be, such as 72h; required",
			},
			&cli.BoolFlag{
				Name: "drop-partitions", EnvVars: []string{twin("drop-partitions")},
				Usage: "drop a partition whose range of created_at has ended and of which all rows may go; the role must own the table",
			},
		}, logFlags()),
		OnUsageError: badFlag,
		Action:       p.prune,
	}
}

func (p *program) prune(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := positionConfig(c)
	config.Logger = logger
	age, ageErr := olderThan(c)
	if err := errors.Join(flagErr, ageErr, logErr); err != nil {
		return err
	}
	ctx, stop := p.untilSignal(c.Context)
	defer stop()
	done, err := pipeline.Prune(ctx, config, age, c.Bool("drop-partitions"))
	for _, t := range done {
		for _, partition := range t.Partitions {
			fmt.Fprintf(p.out, "%-9s %s\n", "dropped", partition) //nolint:errcheck // the work is done, whoever hears of it
		}
		fmt.Fprintf(p.out, "%-9s %d rows of %s\n", "deleted", t.Rows, t.Table) //nolint:errcheck // as above
	}
	return interrupted(ctx, err)
}

// olderThan has no default: whoever deletes says what.
func olderThan(c *cli.Context) (time.Duration, error) {
	switch age := c.Duration("older-than"); {
	case age > 0:
		return age, nil
	case c.IsSet("older-than"):
		return 0, fault.NewUsage(fmt.Errorf("--older-than %v leaves nothing that is younger", age), "give a duration such as 72h")
	default:
		return 0, fault.NewUsage(errors.New("--older-than is missing"), "give the flag or set "+twin("older-than"))
	}
}
