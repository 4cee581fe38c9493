package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// The history is what recover and replay go by: entries of what was delivered when.
const (
	flagHistoryInterval = "history-interval"
	flagHistoryKeep     = "history-keep"
)

func historyIntervalFlag() cli.Flag {
	return &cli.DurationFlag{
		Name: flagHistoryInterval, EnvVars: []string{twin(flagHistoryInterval)}, Value: checkpoint.DefaultHistoryInterval,
		Usage: "how `OFTEN` what is delivered is added to the history that replays begin by",
	}
}

func historyKeepFlag() cli.Flag {
	return &cli.DurationFlag{
		Name: flagHistoryKeep, EnvVars: []string{twin(flagHistoryKeep)}, Value: checkpoint.DefaultHistoryAge,
		Usage: "how `LONG` the history is kept",
	}
}

// history reads both. Commands that have not the flags leave them at their defaults.
func history(c *cli.Context) (interval, keep time.Duration, err error) {
	interval, keep = c.Duration(flagHistoryInterval), c.Duration(flagHistoryKeep)
	var errs []error
	for name, value := range map[string]time.Duration{flagHistoryInterval: interval, flagHistoryKeep: keep} {
		if c.IsSet(name) && value == 0 {
			errs = append(errs, fault.NewUsage(fmt.Errorf("--%s 0s keeps no history", name), "give a duration such as 1m, or leave it out"))
		}
	}
	return interval, keep, errors.Join(errs...)
}
