package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// documents are the pages that people read, and what is in them.
func documents(tb testing.TB) map[string]string {
	tb.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*.md"} {
		paths, err := filepath.Glob("../../" + pattern)
		if err != nil {
			tb.Fatal(err)
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				tb.Fatal(err)
			}
			pages[path] = string(content)
		}
	}
	if len(pages) < 15 {
		tb.Fatalf("only %d pages are found", len(pages))
	}
	return pages
}

// fence is a block of code, with or without its language.
var fence = regexp.MustCompile("(?s)\\n *```([a-z]*)\\n(.*?\\n) *```")

// anchors are the names under which a page's headings are reached, as GitHub makes them.
func anchors(page string) []string {
	var names []string
	unfit := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for line := range strings.Lines(fence.ReplaceAllString(page, "")) {
		if text, found := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); found && strings.HasPrefix(line, "#") {
			name := unfit.ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), "")
			names = append(names, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return names
}

func TestEveryLinkOfThePagesLeadsSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	pages := documents(t)
	for path, page := range pages {
		for _, found := range link.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(found[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			content, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); statErr != nil || err != nil && !info.IsDir() {
				t.Errorf("%s links to %s, which is not there", path, found[1])
			} else if anchor != "" && !slices.Contains(anchors(string(content)), anchor) {
				t.Errorf("%s links to %s, and there is no such heading", path, found[1])
			}
		}
	}
}

func TestTheIndexNamesEveryPage(t *testing.T) {
	pages := documents(t)
	for path := range pages {
		name := filepath.Base(path)
		if filepath.Base(filepath.Dir(path)) == "docs" && name != "README.md" && !strings.Contains(pages["../../docs/README.md"], name) {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}

// commandLines are those of a page that call outboxcdc: in blocks, with continued lines
// joined, without prompts and what a shell does with the output; and inline ones.
func commandLines(page string) []string {
	var lines []string
	for _, block := range fence.FindAllStringSubmatch(page, -1) {
		joined := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(block[2], " ")
		for line := range strings.Lines(joined) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			if rest, found := strings.CutPrefix(line, "outboxcdc "); found && !strings.HasPrefix(rest, "unknown") {
				lines = append(lines, rest)
			}
			if _, rest, found := strings.Cut(line, " outboxcdc:local "); found && strings.HasPrefix(line, "docker run ") {
				lines = append(lines, rest)
			}
		}
	}
	for _, inline := range regexp.MustCompile("`outboxcdc ([a-z][^`]* --[^`]*)`").FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		lines = append(lines, strings.ReplaceAll(inline[1], "\n", " "))
	}
	return lines
}

// words are those of a command line, as far as a shell would hand them to a command.
func words(line string) []string {
	line = regexp.MustCompile(`\s(#|>|\|).*$`).ReplaceAllString(line, "")
	var all []string
	for _, word := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(line, -1) {
		if word == "…" && (len(all) == 0 || !strings.HasPrefix(all[len(all)-1], "--")) {
			continue // and so on
		}
		all = append(all, strings.Trim(word, "'"))
	}
	return all
}

// parseOnly lets the commands of an app read their flags and do nothing. Those that are
// named take a name as well.
func parseOnly(commands []*cli.Command, named bool) {
	for _, command := range commands {
		command.Before = nil
		command.Action = func(c *cli.Context) error {
			if c.NArg() == 1 && named {
				return nil
			}
			return noArguments(c)
		}
		if len(command.Subcommands) > 0 {
			command.Action = func(c *cli.Context) error { return noSubcommand(c, "which") }
			parseOnly(command.Subcommands, command.Name == "bookmark")
		}
	}
}

// parse is what the program says of the words of a command line, without doing anything.
func parse(words []string) error {
	p := &program{out: &strings.Builder{}, err: &strings.Builder{}}
	app := p.app()
	parseOnly(app.Commands, false)
	return app.Run(nameLast(append([]string{"outboxcdc"}, words...)))
}

func TestEveryCommandOfThePagesIsOneThatTheProgramTakes(t *testing.T) {
	clearEnv(t)
	all := 0
	for path, page := range documents(t) {
		for _, line := range commandLines(page) {
			all++
			if err := parse(words(line)); err != nil {
				t.Errorf("%s: outboxcdc %s: %v", path, line, err)
			}
		}
	}
	if all < 40 {
		t.Errorf("only %d commands are found in the pages", all)
	}
}

// Metrics that are not described, and descriptions of what there is not, both mislead.
func TestThePageOfMetricsNamesThemAll(t *testing.T) {
	page, golden := documents(t)["../../docs/operations.md"], contentOf(t, "testdata/metrics.txt")
	names := regexp.MustCompile(`outboxcdc_[a-z_]+`)
	described := names.FindAllString(page, -1)
	for _, found := range regexp.MustCompile(`# TYPE (outboxcdc_[a-z_]+)`).FindAllStringSubmatch(golden, -1) {
		if !slices.Contains(described, found[1]) {
			t.Errorf("docs/operations.md does not describe %s", found[1])
		}
	}
	for _, name := range described {
		if !strings.Contains(golden, name) && name != "outboxcdc_build_info" {
			t.Errorf("docs/operations.md describes %s, which there is not", name)
		}
	}
}

func contentOf(tb testing.TB, path string) string {
	tb.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(content)
}
