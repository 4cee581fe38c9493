package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/outbox/debezium"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// debeziumFormat reads --debezium.
func debeziumFormat(c *cli.Context) (outbox.Format, error) {
	var options []debezium.Option
	var errs []error
	for _, text := range mappingValues(c, "debezium") {
		name, value, found := strings.Cut(text, "=")
		if !found {
			errs = append(errs, fault.NewUsage(errors.New("--debezium has no equals sign"), "write OPTION=VALUE such as value.converter=string"))
			continue
		}
		options = append(options, debezium.Option{Name: strings.TrimSpace(name), Value: value})
	}
	o, err := debezium.ParseOptions(options)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	format, err := debezium.New(o, runID())
	if err != nil {
		return nil, err
	}
	return format, nil
}

// describeBy asks the catalog over an ordinary connection, for the commands that read
// no stream.
func describeBy(c *cli.Context, tables []wal.Table) func(schema, table string) ([]wal.ColumnFacts, error) {
	return func(schema, table string) (columns []wal.ColumnFacts, err error) {
		ctx, cancel := context.WithTimeout(c.Context, time.Minute)
		defer cancel()
		catalog, err := wal.OpenTables(ctx, wal.Config{
			Database: c.String("database-url"), Slot: stringOf(c, "slot", "describe"),
			Publication: stringOf(c, "publication", defaultPublication), Tables: tables,
		})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, catalog.Close(ctx)) }()
		return catalog.Describe(ctx, schema, table)
	}
}

// runID names this run of the program, as Debezium names a run of its task.
func runID() string {
	id, err := uuid.NewV7()
	if err != nil { // the system's random numbers are never missing
		return ""
	}
	return id.String()
}

// notWithDebezium refuses the flags that --debezium takes the place of. The topics that
// may be sent to are for either.
func notWithDebezium(c *cli.Context, m *outbox.Mapping) error {
	var errs []error
	if c.String("message-prefix") != "" {
		errs = append(errs, fault.NewUsage(errors.New("--message-prefix is not for --format debezium, which has a form for rows of tables only"),
			"stream messages with a slot of their own and another --format, or take --message-prefix away"))
	}
	for _, flag := range mappingFlags() {
		name := flag.Names()[0]
		if _, isList := flag.(*cli.StringSliceFlag); !isList || name == "debezium" {
			continue
		}
		for _, value := range mappingValues(c, name) {
			if name != "topic-allow" {
				errs = append(errs, fault.NewUsage(fmt.Errorf("--%s is not for --format debezium", name),
					"use --debezium with the option of the connector; docs/debezium.md lists them"))
				break
			}
			errs = append(errs, apply(m, mappingValue{name, value, false}))
		}
	}
	return errors.Join(errs...)
}
