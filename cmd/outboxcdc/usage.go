package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

const description = `A service inserts a row into its outbox table in the transaction that changes its
data. outboxcdc reads those inserts from the database's log and hands them to the
broker: every committed one, none that was rolled back, in order per aggregate.

Try it:

   outboxcdc init   --slot orders --database-url postgres://cdc@db/shop
   outboxcdc check  --slot orders --database-url postgres://cdc@db/shop --sink kafka://b1:9092,b2:9092
   outboxcdc stream --slot orders --database-url postgres://cdc@db/shop --sink kafka://b1:9092,b2:9092

Every flag can be set in the environment instead: --slot is OUTBOXCDC_SLOT. That is
the place for a URL with a password in it, since others may read a command line.
"outboxcdc stream --help" shows the flags of a command.

` + exitCodes

const exitCodes = `Exit codes:

   0  done, or stopped by a signal with everything sent confirmed
   1  something is away that may come back; stream itself waits and never gives it
   2  a bug of outboxcdc
   3  something in Postgres, the broker or the setup must be mended; the text says how
   4  a row cannot be published
   5  the command line is wrong
   6  stopped before everything sent was confirmed; it is sent again at the next start`

// badFlag answers a flag that does not parse. The library gives a text only, and
// repeats values in it, in quotes or behind the equals sign: one may be a password.
func badFlag(c *cli.Context, err error, _ bool) error {
	text, _, _ := strings.Cut(quoted().ReplaceAllString(err.Error(), "…"), "=")
	text = oneDash().ReplaceAllString(text, " --$1")
	advice := helpAdvice(c)
	if _, word, found := strings.Cut(text, "not defined: --"); found {
		if meant := nearest(word, flagNames(c)); meant != "" {
			advice = "do you mean --" + meant + "?"
		}
	}
	return fault.NewUsage(errors.New(text), advice)
}

// flagNames are the flags of the command.
func flagNames(c *cli.Context) []string {
	names := make([]string, len(c.Command.Flags))
	for i, f := range c.Command.Flags {
		names[i] = f.Names()[0]
	}
	return names
}

// quoted is what %q prints.
func quoted() *regexp.Regexp { return regexp.MustCompile(`"(\\.|[^"\\])*"`) }

func helpAdvice(c *cli.Context) string {
	return fmt.Sprintf("%q shows what there is", c.Command.HelpName+" --help")
}

// oneDash is how the library writes flags.
func oneDash() *regexp.Regexp { return regexp.MustCompile(` -(\w)`) }

// noCommand answers a command line without a command that we know.
func (p *program) noCommand(c *cli.Context) error {
	if c.NArg() == 0 {
		return cli.ShowAppHelp(c)
	}
	commands := c.App.VisibleCommands()
	names := make([]string, len(commands))
	for i, command := range commands {
		names[i] = command.Name
	}
	advice := "the commands are " + listed(commands)
	if meant := nearest(c.Args().First(), names); meant != "" {
		advice = "do you mean " + meant + "? " + advice
	}
	return fault.NewUsage(fmt.Errorf("%q is not a command", c.Args().First()), advice)
}

// noSubcommand answers a command that needs another word behind it.
func noSubcommand(c *cli.Context, words string) error {
	return fault.NewUsage(fmt.Errorf("%s takes one more word", c.Command.HelpName), "add "+words)
}

func listed(commands []*cli.Command) string {
	names := make([]string, len(commands))
	for i, command := range commands {
		names[i] = command.Name
	}
	return strings.Join(names, ", ")
}

// noArguments refuses words that are no flags, without repeating them: a value that
// was not quoted ends up here, password and all.
func noArguments(c *cli.Context) error {
	if c.NArg() == 0 {
		return nil
	}
	return fault.NewUsage(errors.New("the command line has a word that belongs to no flag"),
		"put quotes around a value that holds spaces; "+helpAdvice(c))
}

// noSuchCommand answers a word behind a command that has others below it, and shows
// what there is when there is no word.
func noSuchCommand(name, commands string) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.NArg() == 0 {
			return cli.ShowSubcommandHelp(c)
		}
		return fault.NewUsage(errors.New("the word behind "+name+" is no command"), "the commands are "+commands)
	}
}
