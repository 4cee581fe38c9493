// Command outboxcdc streams outbox tables of Postgres to a message broker.
//
// It turns flags and environment into configuration, and errors into exit codes.
// What the program does is done by the packages beside it.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	signal.Ignore(syscall.SIGPIPE) // a reader of stdout:// that leaves is an error of ours to tell
	p := &program{in: os.Stdin, out: os.Stdout, err: os.Stderr, signals: signals}
	os.Exit(p.run(context.Background(), os.Args))
}

// program is one run of the command and what it may touch.
type program struct {
	in      io.Reader        // answers
	out     io.Writer        // results
	err     io.Writer        // logs and errors
	signals <-chan os.Signal // requests to stop

	logger *slog.Logger // of the command that runs; nil until it has one

	args    []string          // of the command line, with the command's name first
	sources map[string]string // where settings came from, for those that came from a file
}

// run gives the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	args = nameLast(args)
	p.args, p.sources = args, make(map[string]string)
	err := fault.Guard(func() error { return p.app().RunContext(ctx, args) })
	if fault.Classify(err) == fault.Bug {
		err = &fault.Error{Class: fault.Bug, Err: err, Advice: "please report this line and what `outboxcdc version` prints, " +
			"then start it again: what is not confirmed is sent again"}
	}
	if err != nil {
		p.report(err)
	}
	return fault.ExitCode(err)
}

// report says why the program ends: a line for each problem, or one record where
// the logs are read by machines.
func (p *program) report(err error) {
	if p.logger != nil {
		p.logger.Error("ended", slog.String("error", err.Error()),
			slog.String("class", fault.Classify(err).String()), slog.Int("exit", fault.ExitCode(err)))
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(p.err, "outboxcdc:", strings.TrimRight(line, "\n")) //nolint:errcheck // the exit code says it too
	}
}

// app describes the command line.
func (p *program) app() *cli.App {
	return &cli.App{
		Name:                      "outboxcdc",
		HelpName:                  "outboxcdc",
		Usage:                     "stream outbox tables of Postgres to a message broker",
		Description:               description,
		Commands:                  p.commands(),
		HideVersion:               true,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true, // a table's name may hold a comma
		Writer:                    p.out,
		ErrWriter:                 p.err,
		Action:                    p.noCommand,
		OnUsageError:              badFlag,
		ExitErrHandler:            func(*cli.Context, error) {}, // run reports, once
	}
}

// commands are what there is to do, in the order in which help shows it.
func (p *program) commands() []*cli.Command {
	return p.addConfig([]*cli.Command{
		p.initCommand(), p.checkCommand(), p.streamCommand(), p.statusCommand(), p.pruneCommand(), p.verifyCommand(), p.topCommand(),
		p.migrateCommand(), p.replayCommand(), p.recoverCommand(), p.bookmarkCommand(), p.peekCommand(), p.skipCommand(), p.dlqCommand(), p.dropCommand(),
		p.configCommand(), p.completionCommand(), p.manCommand(), p.versionCommand(),
	})
}
