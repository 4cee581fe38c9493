package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// The documents that are made from the flags, and are in the repository for readers.
const (
	referenceFile = "../../docs/configuration.md"
	schemaFile    = "../../docs/outboxcdc.schema.json"
)

func document(tb testing.TB, path, got string) {
	tb.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		tb.Errorf("%s is not what the flags say (-file +flags); run the test with -update:\n%s", filepath.Base(path), diff)
	}
}

func TestTheReferenceHasEveryFlag(t *testing.T) {
	document(t, referenceFile, reference(&program{}))
}

func TestTheSchemaHasEveryFlag(t *testing.T) {
	got := outboxcdc(t, nil, "config", "schema")
	document(t, schemaFile, got.out)
}

// reference is docs/configuration.md.
func reference(p *program) string {
	var out strings.Builder
	out.WriteString(`# Configuration reference

This page is made from the program: ` + "`go test ./cmd/outboxcdc -run Reference -update`" + `.

A setting has one name in three places: ` + "`--drain-timeout`" + ` on the command line,
` + "`OUTBOXCDC_DRAIN_TIMEOUT`" + ` in the environment, ` + "`drain-timeout`" + ` in the YAML file that
` + "`--config`" + ` names. The first of them that has it counts. A setting that is a text may be read from
a file: ` + "`OUTBOXCDC_SINK_FILE`" + ` in the environment, ` + "`sink-file`" + ` in YAML. In YAML, ` + "`${NAME}`" + ` is a
variable of the environment, ` + "`${NAME:-text}`" + ` has a default, and a setting that may be repeated is
a list. [outboxcdc.schema.json](outboxcdc.schema.json) describes the file to an editor:

` + "```yaml\n# yaml-language-server: $schema=outboxcdc.schema.json\nslot: orders\nsink: kafka://b1:9092,b2:9092\n```\n")
	users := commandsByFlag(p.app().Commands, "")
	flags := p.knownFlags()
	out.WriteString("\n| setting | variable | default | commands | meaning |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		f := flags[name]
		value := placeholderOf(f)
		if value != "" {
			value = " " + value
		}
		preset := defaultText(f)
		if preset != "" {
			preset = "`" + preset + "`"
		}
		fmt.Fprintf(&out, "| `--%s%s` | `%s` | %s | %s | %s |\n", name, value, twin(name), preset,
			strings.Join(users[name], ", "), strings.ReplaceAll(usageOf(f), "|", "\\|"))
	}
	return out.String()
}

// commandsByFlag gives the commands that take each flag.
func commandsByFlag(commands []*cli.Command, above string) map[string][]string {
	users := make(map[string][]string)
	for _, command := range commands {
		name := strings.TrimSpace(above + " " + command.Name)
		for _, f := range command.Flags {
			users[f.Names()[0]] = append(users[f.Names()[0]], name)
		}
		for flag, below := range commandsByFlag(command.Subcommands, name) {
			users[flag] = append(users[flag], below...)
		}
	}
	return users
}

func TestTheSchemaTellsGoodFilesFromBad(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	described, err := jsonschema.UnmarshalJSON(strings.NewReader(outboxcdc(t, nil, "config", "schema").out))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiler.AddResource("settings.json", described); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("settings.json")
	if err != nil {
		t.Fatal(err)
	}
	for content, good := range map[string]bool{
		"slot: orders\ntable: [a.b]\ndrain-timeout: 1m30s\ncreate-topics: true\nsink-file: /x\n": true,
		"drain-timeout: ${TIMEOUT}\ntable: a.b\n":                                                true,
		"slott: x\n":              false,
		"slot: [a]\n":             false,
		"drain-timeout: soon\n":   false,
		"table: [[a]]\n":          false,
		"config: other.yaml\n":    false,
		"create-topics: [true]\n": false,
	} {
		var value any
		if err := yaml.Unmarshal([]byte(content), &value); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiled.Validate(instance); (err == nil) != good {
			t.Errorf("%q: the schema says %v, want it taken: %v", content, err, good)
		}
	}
}

func TestShellsCompleteEveryCommandAndFlag(t *testing.T) {
	bash := outboxcdc(t, nil, "completion", "bash").out
	fish := outboxcdc(t, nil, "completion", "fish").out
	for name := range (&program{}).knownFlags() {
		if !strings.Contains(bash, "--"+name) || !strings.Contains(fish, "-l "+name) {
			t.Errorf("--%s is not completed", name)
		}
	}
	for line, want := range map[string]string{
		"outboxcdc str":               "stream",
		"outboxcdc stream --drain":    "--drain-timeout",
		"outboxcdc config li":         "lint",
		"outboxcdc config lint --pub": "--publication",
	} {
		words := strings.Fields(line)
		script := fmt.Sprintf("%s\nCOMP_WORDS=(%s); COMP_CWORD=%d; _outboxcdc; echo \"${COMPREPLY[*]}\"", bash, line, len(words)-1)
		out, err := exec.CommandContext(t.Context(), "bash", "-c", script).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("bash completes %q to %q (%v), want %q", line, got, err, want)
		}
	}
}

func TestTheManualHasEveryCommandAndFlag(t *testing.T) {
	manual := outboxcdc(t, nil, "man").out
	if !strings.HasPrefix(manual, ".nh") && !strings.HasPrefix(manual, ".TH") {
		t.Errorf("the manual begins with %.40q, which is no manual page", manual)
	}
	if !regexp.MustCompile(`(?m)^0 {2}done, .*\n1 {2}something`).MatchString(manual) {
		t.Error("the manual runs the exit codes together")
	}
	for name := range (&program{}).knownFlags() {
		if !strings.Contains(manual, strings.ReplaceAll(name, "-", `\-`)) && !strings.Contains(manual, name) {
			t.Errorf("--%s is not in the manual", name)
		}
	}
}
