package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline"
)

func (p *program) configCommand() *cli.Command {
	flags := func() []cli.Flag {
		return slices.Concat(databaseFlags(), mappingFlags(), brokerFlags(), errorFlags(), streamFlags(), logFlags())
	}
	return &cli.Command{
		Name:  "config",
		Usage: "check or show the settings of a stream, without touching a server",
		Description: `A setting comes from the command line, else from the environment, else from the file
that --config names, else it has its default. The file is YAML, with the names of the
flags:

   slot: orders
   database-url: postgres://cdc:${DB_PASSWORD}@db/shop
   sink-file: /run/secrets/sink
   table: [sales.outbox, billing.outbox]

${NAME} is a variable of the environment, and ${NAME:-text} has a default. A name that
ends in -file takes the first line of a file, and so does a variable that ends in
_FILE, such as OUTBOXCDC_DATABASE_URL_FILE. A file may hold the settings of all
commands.`,
		HideHelpCommand: true,
		OnUsageError:    badFlag,
		Action:          func(c *cli.Context) error { return noSubcommand(c, "lint, print or schema") },
		Subcommands: []*cli.Command{
			{
				Name: "lint", Usage: "find what is wrong with the settings; exit 5 when something is",
				HideHelpCommand: true, Flags: flags(), OnUsageError: badFlag, Action: p.lintConfig,
			},
			{
				Name: "print", Usage: "print each setting and where it comes from, without passwords",
				HideHelpCommand: true, Flags: flags(), OnUsageError: badFlag, Action: p.printConfig,
			},
			{
				Name: "schema", Usage: "print the JSON schema of a --config file, for editors",
				HideHelpCommand: true, OnUsageError: badFlag, Action: p.printSchema,
			},
		},
	}
}

// lintConfig judges as stream does before it connects.
func (p *program) lintConfig(c *cli.Context) error {
	_, logErr := p.openLog(c)
	_, httpErr := httpAddress(c)
	config, flagErr := pipelineConfig(c)
	_, runnerErr := pipeline.New(config)
	if err := errors.Join(flagErr, runnerErr, httpErr, logErr); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.out, "the settings are sound; \"outboxcdc check\" looks at the servers")
	return err
}

// printConfig writes YAML that could be a --config, but for what is secret.
func (p *program) printConfig(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	var out strings.Builder
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if name == "help" || name == "config" {
			continue
		}
		fmt.Fprintf(&out, "%s: %s # %s\n", name, p.shown(c, name), p.source(c, name))
	}
	_, err := fmt.Fprint(p.out, out.String())
	return err
}

func (p *program) shown(c *cli.Context, name string) string {
	if list, ok := c.Value(name).(cli.StringSlice); ok {
		values := filled(list.Value())
		if len(values) == 0 {
			return defaultOf(c, name)
		}
		quoted := make([]string, len(values))
		for i, value := range values {
			quoted[i] = quotedYAML(value)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return quotedYAML(redacted(name, fmt.Sprint(c.Value(name))))
}

// source is where a setting comes from.
func (p *program) source(c *cli.Context, name string) string {
	isFlag := func(arg string) bool {
		flag, _, _ := strings.Cut(arg, "=")
		return flag == "--"+name || flag == "-"+name
	}
	switch {
	case slices.ContainsFunc(p.args, isFlag):
		return "command line"
	case p.sources[name] != "":
		return p.sources[name]
	case os.Getenv(twin(name)) != "" && c.IsSet(name):
		return twin(name)
	default:
		return "default"
	}
}

// defaultOf is what help shows as the default of a list.
func defaultOf(c *cli.Context, name string) string {
	for _, f := range c.Command.Flags {
		if list, ok := f.(*cli.StringSliceFlag); ok && list.Name == name && list.DefaultText != "" {
			return "[" + quotedYAML(list.DefaultText) + "]"
		}
	}
	return "[]"
}
