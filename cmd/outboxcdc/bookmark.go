package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func (p *program) bookmarkCommand() *cli.Command {
	return &cli.Command{
		Name:  "bookmark",
		Usage: "hold the log back where the slot stands, for a replay",
		Description: `A bookmark is a copy of the slot that stays where the slot is now. A replay can
begin there, exactly, in the order of the commits. Until it is dropped it keeps the
log from there on, and the server cannot clean up its catalog: look at the list.

Examples:

   outboxcdc bookmark create before_release --slot orders
   outboxcdc bookmark list --slot orders
   outboxcdc bookmark drop before_release --slot orders

` + exitCodes,
		HideHelpCommand: true,
		OnUsageError:    badFlag,
		Action:          noSuchCommand("bookmark", "create, list and drop"),
		Subcommands: []*cli.Command{
			p.bookmarkAction("create", "make a bookmark `NAME` where the slot stands", p.createBookmark),
			p.bookmarkAction("list", "list the bookmarks and what each keeps", p.listBookmarks,
				&cli.BoolFlag{Name: "json", EnvVars: []string{twin("json")}, Usage: "print the list as JSON"}),
			p.bookmarkAction("drop", "remove a bookmark", p.dropBookmark),
		},
	}
}

func (p *program) bookmarkAction(name, usage string, action cli.ActionFunc, more ...cli.Flag) *cli.Command {
	argument := " NAME"
	if name == "list" {
		argument = ""
	}
	return &cli.Command{
		Name: name, Usage: usage, UsageText: "outboxcdc bookmark " + name + argument + " --slot SLOT [options]",
		HideHelpCommand: true, OnUsageError: badFlag, Action: action,
		Flags: slices.Concat(flagsNamed(databaseFlags(), "slot", "database-url"), more, logFlags()),
	}
}

// nameLast puts the name of a bookmark behind the flags, where the library looks for
// words: it reads no flags behind the first word that is none.
func nameLast(args []string) []string {
	const at = 3
	if len(args) <= at || args[1] != "bookmark" || (args[2] != "create" && args[2] != "drop") || args[at] == "" || args[at][0] == '-' {
		return args
	}
	return append(slices.Delete(slices.Clone(args), at, at+1), args[at])
}

// bookmarkConfig reads what a bookmark needs; names is how many words it takes.
func bookmarkConfig(c *cli.Context, names int) (wal.Config, error) {
	slot, slotErr := required(c, "slot", "slot")
	var nameErr error
	if c.NArg() != names {
		nameErr = fault.NewUsage(fmt.Errorf("the command line has %d words that belong to no flag, want %d", c.NArg(), names), helpAdvice(c))
	}
	config := wal.Config{
		Database: c.String("database-url"), Slot: slot, Publication: defaultPublication,
		Tables: []wal.Table{{Schema: "public", Name: "outbox"}}, // which is not looked at
	}
	return config, errors.Join(slotErr, nameErr, config.Validate())
}

func (p *program) createBookmark(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, err := bookmarkConfig(c, 1)
	if err := errors.Join(err, logErr); err != nil {
		return err
	}
	config.Logger = logger
	ctx, done := p.untilSignal(c.Context)
	defer done()
	b, err := pipeline.CreateBookmark(ctx, config, c.Args().First())
	if err != nil {
		return interrupted(ctx, err)
	}
	_, err = fmt.Fprintf(p.out, "bookmark %s stands at %v; it keeps the log from there on until it is dropped\n", b.Name, b.Slot.Confirmed)
	return err
}

func (p *program) dropBookmark(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, err := bookmarkConfig(c, 1)
	if err := errors.Join(err, logErr); err != nil {
		return err
	}
	config.Logger = logger
	ctx, done := p.untilSignal(c.Context)
	defer done()
	if err := pipeline.DropBookmark(ctx, config, c.Args().First()); err != nil {
		return interrupted(ctx, err)
	}
	_, err = fmt.Fprintf(p.out, "dropped bookmark %s\n", c.Args().First())
	return err
}

// bookmarkForm is a bookmark in JSON.
type bookmarkForm struct {
	Name     string `json:"name"` // empty for the replay window
	Slot     string `json:"slot"`
	LSN      string `json:"lsn"`
	Retained int64  `json:"retained_bytes"`
	Safe     int64  `json:"safe_bytes"` // -1 without a limit
	Lost     bool   `json:"lost"`
}

func (p *program) listBookmarks(c *cli.Context) error {
	logger, logErr := p.openLog(c)
	config, err := bookmarkConfig(c, 0)
	if err := errors.Join(err, logErr); err != nil {
		return err
	}
	config.Logger = logger
	ctx, done := p.untilSignal(c.Context)
	defer done()
	all, err := pipeline.Bookmarks(ctx, config)
	if err != nil {
		return interrupted(ctx, err)
	}
	if c.Bool("json") {
		forms := make([]bookmarkForm, len(all))
		for i := range all {
			b := &all[i]
			forms[i] = bookmarkForm{b.Name, b.Slot.Name, b.Slot.Confirmed.String(), b.Slot.RetainedBytes, b.Slot.SafeBytes, b.Lost()}
		}
		encoder := json.NewEncoder(p.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(forms)
	}
	return printBookmarks(p.out, all)
}

func printBookmarks(out io.Writer, all []pipeline.Bookmark) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BOOKMARK\tSTANDS AT\tKEEPS\tSTATE") //nolint:errcheck // Flush tells
	for i := range all {
		b := &all[i]
		name, state := b.Name, b.Slot.WALStatus
		if name == "" {
			name = "(replay window)"
		}
		if b.Lost() {
			state = "lost: drop it"
		}
		//nolint:errcheck // as above
		fmt.Fprintf(w, "%s\t%v\t%.1f MiB\t%s\n", name, b.Slot.Confirmed, float64(b.Slot.RetainedBytes)/(1<<20), state)
	}
	return w.Flush()
}
