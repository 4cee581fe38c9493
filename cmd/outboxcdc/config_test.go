package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// file writes a file and gives its path.
func file(tb testing.TB, name, content string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// settings is what config print shows, by name: the value, a space, and the source.
func settings(tb testing.TB, env []string, args ...string) map[string]string {
	tb.Helper()
	got := outboxcdc(tb, env, append([]string{"config", "print"}, args...)...)
	if got.exit != 0 || got.err != "" {
		tb.Fatalf("config print %q: exit %d\n%s", args, got.exit, got.err)
	}
	shown := make(map[string]string)
	for line := range strings.Lines(got.out) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
		shown[name] = strings.Replace(rest, " # ", " ", 1)
	}
	return shown
}

func TestTheCommandLineWinsOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	path := file(t, "orders.yaml", `
slot: fromfile
publication: fromfile
topic: fromfile
sink: stdout://
create-topics: true
drain-timeout: 7s
table: [sales.outbox, 'billing."Out,box"']
http: ""
print-sql: true # of another command
`)
	env := []string{"OUTBOXCDC_SLOT=fromenv", "OUTBOXCDC_PUBLICATION=fromenv", "OUTBOXCDC_TOPIC=", "OUTBOXCDC_CONFIG=" + path}
	got := settings(t, env, "--slot", "fromflag")
	for name, want := range map[string]string{
		"slot":          "fromflag command line",
		"publication":   "fromenv OUTBOXCDC_PUBLICATION",
		"topic":         "[fromfile] " + path,
		"sink":          `"stdout://" ` + path,
		"create-topics": "true " + path,
		"drain-timeout": "7s " + path,
		"table":         `[sales.outbox, "billing.\"Out,box\""] ` + path,
		"checkpoint":    "database default",
		"log-level":     "info default",
	} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
}

func TestVariablesAreExpandedInTheFile(t *testing.T) {
	path := file(t, "orders.yaml", `
slot: ${SLOT_NAME}
publication: p${NOTHING:-}_${OTHER:-other}
http: $${SLOT_NAME}$
`)
	got := settings(t, []string{"SLOT_NAME=orders"}, "--config", path)
	want := map[string]string{"slot": "orders", "publication": "p_other", "http": `"${SLOT_NAME}$"`}
	for name, value := range want {
		if shown, _, _ := strings.Cut(got[name], " "); shown != value {
			t.Errorf("%s is %s, want %s", name, shown, value)
		}
	}
	unset := file(t, "unset.yaml", "\nslot: ${NO_SUCH_NAME}\n")
	lint := outboxcdc(t, nil, "config", "lint", "--config", unset)
	if lint.exit != fault.ExitUsage || !strings.Contains(lint.err, ":2: ${NO_SUCH_NAME} is not set") {
		t.Errorf("a variable that is not set: exit %d\n%s", lint.exit, lint.err)
	}
}

func TestSecretsComeFromFilesAndAreNotPrinted(t *testing.T) {
	database := file(t, "database", "postgres://cdc:"+secret+"@db/shop\r\nmore\n")
	sink := file(t, "sink", "kafka://b1:9092?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.username=cdc&sasl.password="+secret)
	path := file(t, "orders.yaml", "slot: orders\nsink-file: "+sink+"\n")
	got := settings(t, []string{"OUTBOXCDC_DATABASE_URL_FILE=" + database}, "--config", path)
	want := map[string]string{
		"database-url": `"postgres://cdc:…@db/shop" OUTBOXCDC_DATABASE_URL_FILE`,
		"sink":         `"kafka://b1:9092?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.username=cdc&sasl.password=…" ` + path,
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %s, want %s", name, got[name], value)
		}
	}
	tokens := "kafka://b1:9092?security.protocol=SASL_SSL&sasl.mechanism=OAUTHBEARER&sasl.oauthbearer.token.endpoint.url=https://idp/t&sasl.oauthbearer.client.credentials.client.id=u&sasl.oauthbearer.client.credentials.client.secret="
	if got := settings(t, nil, "--sink", tokens+secret)["sink"]; got != strconv.Quote(tokens+"…")+" command line" {
		t.Errorf("sink is %s", got)
	}
	if lint := outboxcdc(t, []string{"OUTBOXCDC_DATABASE_URL_FILE=" + database}, "config", "lint", "--config", path); lint.exit != 0 {
		t.Errorf("lint: exit %d\n%s", lint.exit, lint.err)
	}
}

func TestNoFormOfASecretIsPrinted(t *testing.T) {
	for _, value := range []string{
		"postgres://u:" + secret + "@h/d", "postgres://u:a@" + secret + "@h/d", "postgres://h/d?user=u&password=" + secret,
		"host=h password=" + secret, "host=h password = '" + secret + "'", "host=h password='x host=" + secret + "'",
		"password=" + secret + " host=h", "amqps://u:" + secret + "@h:5671/v?x=y", "kafka://h?sasl.password=" + secret,
		"kafka://h?sasl.jaas.config=a%20" + secret,
		"kafka://h?sasl.oauthbearer.client.credentials.client.secret=" + secret, "kafka://h?SASL.Password=" + secret, "u:" + secret + "@h://x",
	} {
		for _, name := range []string{"database-url", "sink", "checkpoint"} {
			got := outboxcdc(t, []string{twin(name) + "=" + value}, "config", "print")
			if strings.Contains(got.out+got.err, secret) {
				t.Errorf("--%s %s is shown as:\n%s%s", name, value, got.out, got.err)
			}
		}
	}
}

func TestEveryProblemOfAFileIsReportedWithItsPlace(t *testing.T) {
	cases := map[string]struct{ content, want string }{
		"unknown name":   {"slott: x\n", `:1: "slott" is not a setting`},
		"underscores":    {"\ndatabase_url: x\n", ":2: \"database_url\" is not a setting: do you mean database-url?"},
		"twice":          {"slot: a\nslot: b\n", ":2: slot is set twice"},
		"value and file": {"sink: stdout://\nsink-file: x\n", ":2: sink is set twice"},
		"not YAML":       {"slot: [" + secret + "\n", "is not YAML"},
		"no mapping":     {"- slot\n", "holds no settings"},
		"list for one":   {"slot: [a, b]\n", ":1: slot takes one value"},
		"nested list":    {"table: [[a]]\n", ":1: an entry of table is not a single value"},
		"bad duration":   {"drain-timeout: " + secret + "\n", ":1: the value of drain-timeout cannot be used"},
		"config itself":  {"config: other.yaml\n", ":1: \"config\" is not a setting"},
		"missing file":   {"sink-file: /nowhere/at/all\n", ":1: sink-file: read /nowhere/at/all"},
		"empty secret":   {"sink-file: " + file(t, "empty", "\n") + "\n", "is empty"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := file(t, "orders.yaml", c.content)
			got := outboxcdc(t, nil, "stream", "--config", path)
			if got.exit != fault.ExitUsage || !strings.Contains(got.err, c.want) {
				t.Errorf("exit %d, want %d and %q:\n%s", got.exit, fault.ExitUsage, c.want, got.err)
			}
			if strings.Contains(got.err, secret) {
				t.Errorf("a value of the file is shown:\n%s", got.err)
			}
		})
	}
	two := file(t, "two.yaml", "slott: x\nsinkk: y\n")
	if got := outboxcdc(t, nil, "stream", "--config", two); strings.Count(got.err, "\n") != 2 {
		t.Errorf("two problems are told as:\n%s", got.err)
	}
	missing := outboxcdc(t, nil, "stream", "--config", "/nowhere/orders.yaml")
	if diff := cmp.Diff("outboxcdc: --config: read /nowhere/orders.yaml: no such file or directory: name a file that this user may read\n", missing.err); diff != "" {
		t.Errorf("a file that is not there (-want +got):\n%s", diff)
	}
}

func TestASecretThatIsGivenTwiceIsRefused(t *testing.T) {
	env := []string{"OUTBOXCDC_SINK=stdout://", "OUTBOXCDC_SINK_FILE=" + file(t, "sink", "stdout://")}
	got := outboxcdc(t, env, "config", "lint", "--slot", "x")
	if got.exit != fault.ExitUsage || !strings.Contains(got.err, "OUTBOXCDC_SINK and OUTBOXCDC_SINK_FILE are both set") {
		t.Errorf("exit %d\n%s", got.exit, got.err)
	}
}

func TestLintFindsWhatStreamWouldRefuse(t *testing.T) {
	got := outboxcdc(t, nil, "config", "lint", "--slot", "My Slot", "--sink", "ftp://b", "--http", "here")
	if got.exit != fault.ExitUsage || strings.Count(got.err, "\n") != 3 {
		t.Errorf("exit %d, want %d with three lines:\n%s", got.exit, fault.ExitUsage, got.err)
	}
}
