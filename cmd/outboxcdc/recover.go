package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
)

func (p *program) recoverCommand() *cli.Command {
	return &cli.Command{
		Name:  "recover",
		Usage: "replace a slot that was lost, without a gap",
		Description: `Drops what is left of the slot, makes it anew, and sends from the outbox table what
lies between: rows that were not delivered for sure and that the new slot will not
give. None is missing; what was in flight when the slot was lost is sent twice. When
it has ended, start the stream. It may be interrupted at any moment and run again;
until it has ended, a stream is refused. Rows that were deleted from the table
meanwhile cannot be sent.

After pg_upgrade, which gives the database another cluster, --upgraded says so.

It waits for every transaction of the cluster that is running when it makes the slot.

Examples:

   outboxcdc recover --slot orders --sink kafka://b1:9092
   outboxcdc recover --slot orders --sink kafka://b1:9092 --everything

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), mappingFlags(), brokerFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "anew", EnvVars: []string{twin("anew")}, Usage: "replace the slot although it is sound"},
			&cli.BoolFlag{Name: "everything", EnvVars: []string{twin("everything")}, Usage: "send every row of the tables, whatever was delivered"},
			&cli.BoolFlag{Name: "upgraded", EnvVars: []string{twin("upgraded")}, Usage: "pg_upgrade made this cluster of the one that the position is of"},
		}, flagsNamed(streamFlags(), "drain-timeout"), logFlags()),
		OnUsageError: badFlag,
		Action:       p.recover,
	}
}

// recovering lets recover end as a stream does.
type recovering struct {
	config pipeline.RecoverConfig
	done   *pipeline.Recovery
}

// Run is runner's.
func (r *recovering) Run(ctx context.Context, stop <-chan struct{}) (err error) {
	r.done, err = pipeline.Recover(ctx, stop, r.config)
	return err
}

func (p *program) recover(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := pipelineConfig(c)
	config.Logger = logger
	if err := errors.Join(flagErr, logErr); err != nil {
		return err
	}
	r := &recovering{config: pipeline.RecoverConfig{Config: config, Anew: c.Bool("anew"), Everything: c.Bool("everything"), Upgraded: c.Bool("upgraded")}}
	if err := p.runToTheEnd(c.Context, r, logger); err != nil {
		return err
	}
	from := fmt.Sprintf("that were not delivered for sure at %v (%s)", r.done.From.At, r.done.From.Time.UTC().Format(time.RFC3339))
	if !r.done.From.Known() {
		from = "that there were"
	}
	missing := fmt.Sprintf("rows deleted from the table between the commit of the last event sent, about %v, and %v were not sent", r.done.Lost, r.done.At)
	if config.Wal.MessagePrefix != "" {
		missing += "\nlogical messages that were written between them are in no table, and were not sent"
	}
	_, err := fmt.Fprintf(p.out, `made slot %s anew at %v
sent %d rows of the table %s, with the header outboxcdc-replay: %s
%s
start the stream: it goes on from %v
`, config.Wal.Slot, r.done.At, r.done.Sent, from, r.done.Run, missing, r.done.At)
	return err
}
