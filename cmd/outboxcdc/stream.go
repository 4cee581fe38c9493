package main

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
)

// startOver is when a stream has long begun, unless it waits for something.
const startOver = 15 * time.Second

func (p *program) streamCommand() *cli.Command {
	return &cli.Command{
		Name:  "stream",
		Usage: "stream events until a signal says stop",
		Description: `Connects and streams for as long as it takes: when Postgres or the broker goes
away, it waits and goes on. Another instance on the same slot stands by and takes
over. At the first start it makes the publication and the slot when they are
missing; later it refuses to go on when they are.

The first SIGTERM or SIGINT drains: what was sent is confirmed, then it exits with
0. The second exits at once.

Examples:

   outboxcdc stream --slot orders --sink kafka://b1:9092,b2:9092
   outboxcdc stream --slot orders --sink stdout:// --checkpoint memory://
   outboxcdc stream --slot orders --sink kafka://b1:9092 --table sales.outbox --table billing.outbox

` + exitCodes,
		HideHelpCommand: true,
		Flags:           slices.Concat(databaseFlags(), mappingFlags(), brokerFlags(), errorFlags(), streamFlags(), logFlags()),
		OnUsageError:    badFlag,
		Action:          p.stream,
	}
}

func (p *program) stream(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	address, httpErr := httpAddress(c)
	config, flagErr := pipelineConfig(c)
	config.Logger = logger
	defer traceSends(c.Context, &config.SinkOptions, logger)()
	runner, runnerErr := pipeline.New(config)
	if err := errors.Join(flagErr, runnerErr, httpErr, logErr); err != nil {
		return err
	}
	if address != "" {
		hangUp, err := serve(c.Context, address, newSampler(config.Wal.Slot, runner.Stats), logger)
		if err != nil {
			return err
		}
		defer hangUp()
	}
	defer tellSystemd(c.Context, runner.Stats, logger)()
	defer time.AfterFunc(startOver, func() {
		if err := giveBack(); err != nil {
			logger.Debug("what the start used stays mapped", slog.String("error", err.Error()))
		}
	}).Stop()
	if err := p.runToTheEnd(c.Context, runner, logger); err != nil {
		return err
	}
	logger.Info("stopped", slog.String("confirmed", runner.Stats().Confirmed.String()))
	return nil
}
