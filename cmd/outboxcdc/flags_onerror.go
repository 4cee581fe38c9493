package main

import (
	"errors"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

const defaultParkLimit = "10000,1000,256MB"

// errorFlags say what becomes of rows that cannot be sent.
func errorFlags() []cli.Flag {
	return []cli.Flag{
		text("on-error", string(pipeline.OnErrorHalt), "what to do with a row that cannot be sent, a `POLICY`: halt, park it with what follows of its aggregate, or skip it"),
		text("dead-letter-topic", pipeline.DefaultDeadLetterTopic, "`TOPIC` for copies of parked rows"),
		text("park-limit", defaultParkLimit, "`ROWS,AGGREGATES,BYTES` that may be parked before the stream halts"),
	}
}

// onError reads errorFlags into config.
func onError(c *cli.Context, config *pipeline.Config) error {
	var policyErr, limitErr error
	config.OnError, policyErr = pipeline.ParseOnError(c.String("on-error"))
	config.DeadLetterTopic = c.String("dead-letter-topic")
	config.ParkLimit, limitErr = parkLimit(c.String("park-limit"))
	if policyErr == nil && config.OnError != pipeline.OnErrorPark && (c.IsSet("dead-letter-topic") || c.IsSet("park-limit")) {
		policyErr = fault.NewUsage(errors.New("--dead-letter-topic and --park-limit are of use with --on-error park only"), "give all of them or none")
	}
	return errors.Join(policyErr, limitErr)
}

// parkLimit reads rows, aggregates and bytes; empty is the default.
func parkLimit(text string) (pipeline.ParkLimit, error) {
	bad := fault.NewUsage(errors.New("--park-limit is no limit"), "write rows, aggregates and bytes, such as "+defaultParkLimit)
	if text == "" {
		text = defaultParkLimit
	}
	parts := strings.Split(text, ",")
	if len(parts) != 3 {
		return pipeline.ParkLimit{}, bad
	}
	rows, rowsErr := strconv.Atoi(parts[0])
	aggregates, aggregatesErr := strconv.Atoi(parts[1])
	bytes, bytesErr := parkBytes(parts[2])
	if rowsErr != nil || aggregatesErr != nil || bytesErr != nil || rows < 1 || aggregates < 1 || bytes < 1 {
		return pipeline.ParkLimit{}, bad
	}
	return pipeline.ParkLimit{Rows: rows, Aggregates: aggregates, Bytes: bytes}, nil
}

// parkBytes reads 1000, 64KB, 256MB or 1GB, each unit being 1024 of the one before.
func parkBytes(text string) (int, error) {
	shift := 0
	for i, unit := range []string{"KB", "MB", "GB"} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			text, shift = number, 10*(i+1)
		}
	}
	n, err := strconv.Atoi(text)
	if err == nil && n > 1<<40>>shift {
		err = strconv.ErrRange
	}
	return n << shift, err
}
