package main

import (
	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
)

// errorFlags say what becomes of rows that cannot be sent.
func errorFlags() []cli.Flag {
	return []cli.Flag{
		text("on-error", string(pipeline.OnErrorHalt), "what to do with a row that cannot be sent, a `POLICY`: halt, or skip it, which is counted and logged"),
	}
}

// onError reads errorFlags into config.
func onError(c *cli.Context, config *pipeline.Config) error {
	var err error
	config.OnError, err = pipeline.ParseOnError(c.String("on-error"))
	return err
}
