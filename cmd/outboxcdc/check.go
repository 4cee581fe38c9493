package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

func (p *program) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "look at everything that streaming depends on",
		Description: `Looks at the server, the tables, the publication, the slot and the broker, and
changes nothing. Each finding comes with its fix. It exits with 3 when one of them
keeps the stream from starting.

Examples:

   outboxcdc check --slot orders --sink kafka://b1:9092,b2:9092
   outboxcdc check --slot orders --sink kafka://b1:9092 --json

` + exitCodes,
		HideHelpCommand: true,
		Flags: slices.Concat(databaseFlags(), mappingFlags(), brokerFlags(), errorFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "json", EnvVars: []string{twin("json")}, Usage: "print the findings as JSON"},
		}, logFlags()),
		OnUsageError: badFlag,
		Action:       p.check,
	}
}

func (p *program) check(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, flagErr := pipelineConfig(c)
	config.Logger = logger
	runner, configErr := pipeline.New(config)
	if err := errors.Join(flagErr, configErr, logErr); err != nil {
		return err
	}
	config = runner.Config()
	ctx, done := p.untilSignal(c.Context)
	defer done()
	findings := append(lookAtDatabase(ctx, config), lookAtBroker(ctx, config)...)
	if ctx.Err() != nil {
		return interrupted(ctx, ctx.Err())
	}
	show := printFindings
	if c.Bool("json") {
		show = printJSON
	}
	return errors.Join(show(p.out, findings), verdict(findings))
}

func lookAtDatabase(ctx context.Context, config pipeline.Config) []fault.Finding {
	conn, err := wal.Connect(ctx, config.Wal)
	if err != nil {
		return []fault.Finding{asFinding("database.unreachable", "database", err)}
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	findings, err := pipeline.CheckDatabase(ctx, config, conn)
	if err != nil {
		return []fault.Finding{asFinding("database.unreadable", "database", err)}
	}
	return findings
}

func lookAtBroker(ctx context.Context, config pipeline.Config) []fault.Finding {
	return sink.Check(ctx, config.Sink, config.SinkOptions)
}

// asFinding is what kept us from looking.
func asFinding(code, subject string, err error) fault.Finding {
	f := fault.Finding{Code: code, Severity: fault.Failure, Subject: subject, Problem: err.Error()}
	if classified, ok := errors.AsType[*fault.Error](err); ok {
		f.Problem, f.Fix = classified.Err.Error(), classified.Advice
	}
	return f
}

// printFindings prints a block for each finding, the fix below the problem.
func printFindings(out io.Writer, findings []fault.Finding) error {
	for _, f := range findings {
		if _, err := fmt.Fprintf(out, "%-8s %s: %s\n", f.Severity, f.Subject, f.Problem); err != nil {
			return err
		}
		if f.Fix == "" {
			continue
		}
		if _, err := fmt.Fprintf(out, "         fix: %s\n", f.Fix); err != nil {
			return err
		}
	}
	return nil
}

// finding is the JSON form of a fault.Finding.
type finding struct {
	Code     string `json:"code,omitempty"`
	Severity string `json:"severity"`
	Subject  string `json:"subject"`
	Problem  string `json:"problem"`
	Fix      string `json:"fix,omitempty"`
}

// printJSON prints an array.
func printJSON(out io.Writer, findings []fault.Finding) error {
	all := make([]finding, len(findings))
	for i, f := range findings {
		all[i] = finding{Code: f.Code, Severity: f.Severity.String(), Subject: f.Subject, Problem: f.Problem, Fix: f.Fix}
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}

// verdict is the error of a check that found something to mend. What that is has
// been printed.
func verdict(findings []fault.Finding) error {
	failures := 0
	for _, f := range findings {
		if f.Severity == fault.Failure {
			failures++
		}
	}
	if failures == 0 {
		return nil
	}
	return fault.NewOperator(fmt.Errorf("%d of %d findings keep the stream from starting", failures, len(findings)),
		"apply their fixes and check again")
}
