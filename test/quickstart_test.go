package test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// blocks are the blocks of code of a page in a language; empty is that of commands.
func blocks(tb testing.TB, path, language string) (found []string) {
	tb.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)\n *```([a-z]*)\n(.*?\n) *```").FindAllStringSubmatch(string(page), -1) {
		if block[1] == language {
			found = append(found, block[2])
		}
	}
	return found
}

// The quickstart as printed. What differs is where the servers are and, since they are
// shared, the slot's name; the consumer of its last step is ours.
func TestTheQuickstartLeadsToTheFirstEvent(t *testing.T) {
	t.Parallel()
	db, kafka := servers.SharedPostgres(t), servers.SharedKafka(t)
	kafka.CreateTopic(t, "outbox.event.order", 1, nil) // so that it can be read before it is sent to
	slot := walName("quick")
	var env []string
	run := map[string][]string{}
	for _, block := range blocks(t, "../docs/quickstart.md", "") {
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if setting, found := strings.CutPrefix(line, "export OUTBOXCDC_"); found {
				env = append(env, "OUTBOXCDC_"+setting)
			}
			if words := strings.Fields(line); len(words) > 1 && words[0] == "outboxcdc" {
				run[words[1]] = strings.Fields(strings.ReplaceAll(line, "--slot orders", "--slot "+slot))[1:]
			}
		}
	}
	here := map[string]string{"OUTBOXCDC_DATABASE_URL": db.URL, "OUTBOXCDC_SINK": sinkURL(kafka)}
	for i, entry := range env {
		if name, _, _ := strings.Cut(entry, "="); here[name] != "" {
			env[i] = name + "=" + here[name]
			delete(here, name)
		}
	}
	if len(here) > 0 || run["init"] == nil || run["check"] == nil || run["stream"] == nil {
		t.Fatalf("the page does not set %v, or runs only %v", here, run)
	}
	for _, step := range []string{"init", "check"} {
		if got := command(t, env, run[step]...); got.exit != 0 {
			t.Fatalf("%s: exit %d\n%s%s", step, got.exit, got.out, got.errors)
		}
	}
	cmd := exec.CommandContext(t.Context(), binaryPath(t), append(run["stream"], "--http", "127.0.0.1:0")...)
	cmd.Env = append(os.Environ(), env...)
	s := begin(t, cmd)
	eventually(t, time.Minute, "it streams", func() bool { return strings.Contains(s.log.String(), "msg=streaming") })
	for _, sql := range blocks(t, "../docs/quickstart.md", "sql") {
		db.Exec(t, sql)
	}
	arrived := func() bool {
		for _, r := range kafka.Records(t, "outbox.event.order") {
			if string(r.Key) == "42" && string(r.Value) == `{"total": 12.50}` {
				return true
			}
		}
		return false
	}
	eventually(t, time.Minute, "the event is on its topic", arrived)
	if exit := s.stop(t); exit != 0 {
		t.Errorf("the stream ended with %d:\n%s", exit, s.log)
	}
	status := command(t, append(env, "OUTBOXCDC_SLOT="+slot), "status")
	if status.exit != 0 || !strings.Contains(status.out, "resumable") {
		t.Errorf("status afterwards: exit %d\n%s%s", status.exit, status.out, status.errors)
	}
}
