package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// secret is a password that no output may hold.
const secret = "hunter2"

// result is what a command line gave.
type result struct {
	exit     int
	out, err string
}

// outboxcdc runs a command line with an environment of env alone, as NAME=value.
func outboxcdc(tb testing.TB, env []string, args ...string) result {
	tb.Helper()
	clearEnv(tb)
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		tb.Setenv(name, value)
	}
	var out, err bytes.Buffer
	p := &program{out: &out, err: &err}
	exit := p.run(tb.Context(), append([]string{"outboxcdc"}, args...))
	return result{exit: exit, out: out.String(), err: err.String()}
}

// clearEnv takes away what would configure the command or the driver.
func clearEnv(tb testing.TB) {
	tb.Helper()
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "OUTBOXCDC_") || strings.HasPrefix(name, "PG") {
			tb.Setenv(name, value) // puts it back in the end
			os.Unsetenv(name)      //nolint:errcheck // the name was there
		}
	}
}

func TestHelpSaysWhatThereIs(t *testing.T) {
	for _, command := range []string{
		"", "init", "check", "stream", "status", "prune", "verify", "config", "config lint", "config print", "config schema", "completion", "man", "top",
		"replay", "recover", "bookmark", "bookmark create", "peek", "skip", "dlq", "dlq list", "dlq retry", "dlq drop", "drop", "version",
	} {
		args := append(strings.Fields(command), "--help")
		got := outboxcdc(t, nil, args...)
		if got.exit != 0 || got.err != "" {
			t.Fatalf("%q gave exit %d and %q on stderr", args, got.exit, got.err)
		}
		golden(t, "help"+strings.ReplaceAll(command, " ", "")+".txt", got.out)
	}
}

func TestWithoutACommandTheHelpIsShown(t *testing.T) {
	got := outboxcdc(t, nil)
	if want := outboxcdc(t, nil, "--help"); got != want {
		t.Errorf("no command (-help +got):\n%s", cmp.Diff(want.out, got.out))
	}
}

// golden compares got with a file in testdata.
func golden(tb testing.TB, name, got string) {
	tb.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		tb.Fatalf("%v; run the test with -update to make it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		tb.Errorf("%s (-want +got); run the test with -update to accept it:\n%s", name, diff)
	}
}

func TestEveryProblemOfACommandLineIsReportedAtOnce(t *testing.T) {
	got := outboxcdc(t, []string{"OUTBOXCDC_TABLE=outbox"}, "stream",
		"--slot", "My Slot", "--sink", "ftp://broker", "--topic", "a b", "--checkpoint", "tape://1",
		"--http", "here", "--log-level", "loud", "--log-format", "xml", "--database-url", "mysql://db", "--drain-timeout", "-1s")
	if got.exit != fault.ExitUsage || got.out != "" {
		t.Errorf("exit %d with %q on stdout, want %d and nothing", got.exit, got.out, fault.ExitUsage)
	}
	for _, about := range []string{
		`"My Slot"`, "--table", `topic template "a b"`, "sink", "checkpoint URL", "--http", "--log-level", "--log-format",
		"database URL", "drain timeout",
	} {
		if n := linesWith(got.err, about); n != 1 {
			t.Errorf("%d lines are about %s, want 1; all:\n%s", n, about, got.err)
		}
	}
	if lines := strings.Count(got.err, "\n"); lines != 10 {
		t.Errorf("%d lines, want 10:\n%s", lines, got.err)
	}
}

func linesWith(text, part string) int {
	n := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "outboxcdc: ") && strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func TestWhatIsMissingIsNamedWithItsTwin(t *testing.T) {
	for command, want := range map[string][]string{
		"init":   {"OUTBOXCDC_SLOT"},
		"check":  {"OUTBOXCDC_SLOT", "OUTBOXCDC_SINK"},
		"stream": {"OUTBOXCDC_SLOT", "OUTBOXCDC_SINK"},
	} {
		got := outboxcdc(t, nil, command)
		if got.exit != fault.ExitUsage || strings.Count(got.err, "\n") != len(want) {
			t.Errorf("%s: exit %d and:\n%s", command, got.exit, got.err)
		}
		for _, name := range want {
			if !strings.Contains(got.err, name) {
				t.Errorf("%s does not name %s:\n%s", command, name, got.err)
			}
		}
	}
}

func TestAWrongCommandLineIsAUsageErrorOfOneLine(t *testing.T) {
	for _, args := range [][]string{
		{"strem"},
		{"--slot", "x", "stream"},
		{"stream", "--slott", "x"},
		{"stream", "orders"},
		{"stream", "help"},
		{"stream", "--slot"},
		{"version", "now"},
		{"init", "--print-sql=perhaps", "--slot", "x"},
		{"stream", "--drain-timeout", "soon"},
	} {
		got := outboxcdc(t, []string{"OUTBOXCDC_SLOT=x", "OUTBOXCDC_SINK=stdout://"}, args...)
		if got.exit != fault.ExitUsage || got.out != "" || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%q: exit %d, stdout %q, stderr:\n%s", args, got.exit, got.out, got.err)
		}
	}
}

func TestMappingFlagsThatContradictAreRefusedInASentence(t *testing.T) {
	for _, c := range []struct{ command, flags, say string }{
		{"stream", "--message-prefix y --format debezium", "--message-prefix is not for --format debezium"},
		{"stream", "--table none", "--table none stands without --message-prefix"},
		{"verify", "--table none", "--table none stands without --message-prefix"},
		{"prune", "--table none --message-prefix y --older-than 1h", "no table to prune"},
		{"recover", "--table none --message-prefix y", "no table to recover from"},
		{"verify", "--format cloudevents", "never compare equal"},
		{"stream", "--cloudevents-mode binary", "--cloudevents-mode is given without --format cloudevents"},
		{"stream", "--format cloudevents --cloudevents-mode both", "--cloudevents-mode is not a mode"},
		{"stream", "--format cloudevents --cloudevents-source :", "--cloudevents-source is no URI"},
		{"stream", "--partition-column p --sink amqp://h", "the sink has no partitions"},
		{"stream", "--format debezium --debezium table.fields.additional.placement=p:partition --sink amqp://h", "the sink has no partitions"},
		{"stream", "--sink amqp://h?exchange=&routing_key={key}", "a row could name any"},
		{"stream", "--topic positions --checkpoint kafka://127.0.0.1:1/positions", "reserved"},
		{"stream", "--format json", "--format is not a format"},
	} {
		args := slices.Concat([]string{c.command, "--slot", "x"}, strings.Fields(c.flags))
		got := outboxcdc(t, []string{"OUTBOXCDC_SINK=kafka://127.0.0.1:1"}, args...)
		if got.exit != fault.ExitUsage || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, c.say) {
			t.Errorf("%s %s: exit %d, want %d and a line that says %q:\n%s", c.command, c.flags, got.exit, fault.ExitUsage, c.say, got.err)
		}
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	url := "postgres://app:" + secret + "@127.0.0.1:1/shop"
	broken := "postgres://app:" + secret + "@db@host:port/shop"
	env := []string{"OUTBOXCDC_DATABASE_URL=" + url, "OUTBOXCDC_SINK=kafka://u:" + secret + "@127.0.0.1:1", "PGPASSWORD=" + secret}
	for _, args := range [][]string{
		{"--help"},
		{"init", "--help"},
		{"check", "--help"},
		{"stream", "--help"},
		{"stream", "---database-url=" + url},
		{"stream", "--create-topics=" + secret},
		{"stream", "--drain-timeout", secret},
		{"stream", "--database-urll=" + url},
		{"stream", url},
		{"stream", "--slot", "x", "user=app", "password=" + secret},
		{"init", "--slot", "x", "--database-url", broken},
		{"init", "--slot", "x", "--database-url", "host=a password='" + secret},
		{"init", "--slot", "x", "--database-url", "host=a password=" + secret + " sslmod=x"},
		{"init", "--slot", "x"},
		{"check", "--slot", "x"},
		{"check", "--slot", "x", "--sink", "kafka://u:" + secret + "@b:1:2/%zz"},
		{"stream", "--slot", "x", "--checkpoint", "tape://u:" + secret + "@h"},
		{"stream", "--slot", "x", "--http", "http://u:" + secret + "@h"},
	} {
		got := outboxcdc(t, env, args...)
		if strings.Contains(got.out+got.err, secret) {
			t.Errorf("%q shows the password:\n%s%s", args, got.out, got.err)
		}
	}
}

func TestEveryFlagHasATwin(t *testing.T) {
	p := &program{}
	for _, command := range p.app().Commands {
		for _, f := range command.Flags {
			name := f.Names()[0]
			if name == "yes" { // is said for one command and not set for all
				continue
			}
			visible, ok := f.(cli.DocGenerationFlag)
			if !ok {
				t.Fatalf("--%s has no documentation", name)
			}
			if diff := cmp.Diff([]string{twin(name)}, visible.GetEnvVars()); diff != "" {
				t.Errorf("%s --%s (-want +got):\n%s", command.Name, name, diff)
			}
			if visible.GetUsage() == "" {
				t.Errorf("%s --%s says nothing about itself", command.Name, name)
			}
		}
	}
}

func TestTheFlagWinsOverItsTwinAndEmptyIsNotSet(t *testing.T) {
	env := []string{
		"OUTBOXCDC_SLOT=fromenv", "OUTBOXCDC_TABLE=sales.outbox,billing.\"Out,box\"", "OUTBOXCDC_PUBLICATION=",
		"OUTBOXCDC_PRINT_SQL=true", "OUTBOXCDC_LOG_LEVEL=", "OUTBOXCDC_LOG_FORMAT=", "OUTBOXCDC_DATABASE_URL=",
	}
	got := outboxcdc(t, env, "init", "--slot", "fromflag")
	if got.exit != 0 {
		t.Fatalf("exit %d:\n%s", got.exit, got.err)
	}
	for part, want := range map[string]bool{
		"'fromflag'": true, "fromenv": false, `"sales"."outbox"`: true, `"billing"."Out,box"`: true, `"public"`: false,
		`PUBLICATION "outboxcdc"`: true,
	} {
		if strings.Contains(got.out, part) != want {
			t.Errorf("the SQL holds %s: %v, want %v", part, !want, want)
		}
	}
	if got := outboxcdc(t, []string{"OUTBOXCDC_TABLE="}, "init", "--slot", "x", "--print-sql"); !strings.Contains(got.out, `"public"."outbox"`) {
		t.Errorf("an empty OUTBOXCDC_TABLE is not the default:\n%s%s", got.out, got.err)
	}
}

func TestPrintedSQLMakesThePublicationBeforeTheSlot(t *testing.T) {
	got := outboxcdc(t, nil, "init", "--slot", "orders", "--print-sql")
	if got.exit != 0 || got.err != "" {
		t.Fatalf("exit %d:\n%s", got.exit, got.err)
	}
	last := -1
	for _, part := range []string{
		"CREATE TABLE IF NOT EXISTS outboxcdc.checkpoint", `CREATE TABLE IF NOT EXISTS "public"."outbox"`,
		"CREATE PUBLICATION", "pg_create_logical_replication_slot('orders'",
	} {
		at := strings.Index(got.out, part)
		if at <= last {
			t.Errorf("%q stands at %d, want it after %d", part, at, last)
		}
		last = at
	}
}

func TestVersionIsOneLine(t *testing.T) {
	got := outboxcdc(t, nil, "version")
	if got.exit != 0 || !strings.HasPrefix(got.out, "outboxcdc ") || strings.Count(got.out, "\n") != 1 {
		t.Errorf("exit %d: %q", got.exit, got.out)
	}
}

func TestJSONLogsStayJSONToTheEnd(t *testing.T) {
	got := outboxcdc(t, nil, "stream", "--log-format", "json")
	if got.exit != fault.ExitUsage || !strings.HasPrefix(got.err, "{") || strings.Count(got.err, "\n") != 1 {
		t.Errorf("exit %d, stderr:\n%s", got.exit, got.err)
	}
}
