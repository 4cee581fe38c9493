package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func (p *program) completionCommand() *cli.Command {
	shell := func(name, usage string, script func() (string, error)) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, HideHelpCommand: true, OnUsageError: badFlag,
			Action: func(c *cli.Context) error {
				if err := noArguments(c); err != nil {
					return err
				}
				text, err := script()
				if err == nil {
					_, err = fmt.Fprint(p.out, text)
				}
				return err
			},
		}
	}
	return &cli.Command{
		Name:  "completion",
		Usage: "print what lets a shell complete the command line",
		Description: `Examples:

   outboxcdc completion bash > /etc/bash_completion.d/outboxcdc
   outboxcdc completion zsh > /usr/share/zsh/site-functions/_outboxcdc
   outboxcdc completion fish > ~/.config/fish/completions/outboxcdc.fish`,
		HideHelpCommand: true,
		OnUsageError:    badFlag,
		Action:          func(c *cli.Context) error { return noSubcommand(c, "bash, zsh or fish") },
		Subcommands: []*cli.Command{
			shell("bash", "for bash", func() (string, error) { return bashCompletion(p.app().Commands), nil }),
			shell("zsh", "for zsh", func() (string, error) {
				return "#compdef outboxcdc\nautoload -U +X bashcompinit && bashcompinit\n" + bashCompletion(p.app().Commands), nil
			}),
			shell("fish", "for fish", func() (string, error) { return p.app().ToFishCompletion() }),
		},
	}
}

func (p *program) manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print the manual page, for man -l -",
		HideHelpCommand: true, OnUsageError: badFlag,
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			app := p.app()
			app.Description = setApart(app.Description)
			text, err := app.ToManWithSection(1)
			if err == nil {
				_, err = fmt.Fprintln(p.out, text)
			}
			return err
		},
	}
}

// setApart makes what is indented for the help stand line by line in the manual, which is
// made by way of Markdown: three columns are a paragraph to it, four are not.
func setApart(text string) string { return strings.ReplaceAll(text, "\n   ", "\n    ") }

// bashCompletion completes commands and flags. It asks nothing of the program, so that
// an old one on the PATH does not answer for a new one.
func bashCompletion(commands []*cli.Command) string {
	var cases strings.Builder
	addCases(&cases, "", commands)
	return fmt.Sprintf(`_outboxcdc() {
  local word="${COMP_WORDS[COMP_CWORD]}" path="" i words
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ "${COMP_WORDS[i]}" == -* ]] && break
    path="${path:+$path }${COMP_WORDS[i]}"
  done
  case "$path" in
%s  *) return ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ ${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=($(compgen -f -- "$word"))
}
complete -F _outboxcdc outboxcdc
`, cases.String())
}

// addCases gives, for what stands on the command line, the words that may follow.
func addCases(out *strings.Builder, path string, commands []*cli.Command) {
	words := make([]string, 0, len(commands)+1)
	for _, command := range commands {
		words = append(words, command.Name)
	}
	if len(words) > 0 {
		fmt.Fprintf(out, "  %q) words=%q ;;\n", path, strings.Join(append(words, "--help"), " "))
	}
	for _, command := range commands {
		below := strings.TrimSpace(path + " " + command.Name)
		if len(command.Subcommands) > 0 {
			addCases(out, below, command.Subcommands)
			continue
		}
		var flags []string
		for _, f := range command.Flags {
			flags = append(flags, "--"+f.Names()[0])
		}
		fmt.Fprintf(out, "  %q) words=%q ;;\n", below, strings.Join(append(flags, "--help"), " "))
	}
}
