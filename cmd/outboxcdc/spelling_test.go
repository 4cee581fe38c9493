package main

import (
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func TestWhatIsMisspeltIsAnsweredWithWhatIsMeant(t *testing.T) {
	sound := []string{"OUTBOXCDC_SLOT=orders", "OUTBOXCDC_SINK=stdout://"}
	with := func(entry string) []string { return append([]string{entry}, sound...) }
	for name, c := range map[string]struct {
		env  []string
		args []string
		want string // empty: it is left alone
	}{
		"flag":               {sound, []string{"config", "lint", "--drain-timout", "5s"}, "do you mean --drain-timeout?"},
		"command":            {sound, []string{"strem"}, "do you mean stream?"},
		"file":               {sound, []string{"config", "lint", "--config", file(t, "a.yaml", "drain-timuot: 5s\n")}, "do you mean drain-timeout?"},
		"variable":           {with("OUTBOXCDC_DATABSE_URL=x"), []string{"config", "lint"}, "OUTBOXCDC_DATABSE_URL is not a setting: do you mean OUTBOXCDC_DATABASE_URL?"},
		"variable of a file": {with("OUTBOXCDC_SINK_FLIE=/x"), []string{"config", "lint"}, "do you mean OUTBOXCDC_SINK_FILE?"},
		"variable of theirs": {with("OUTBOXCDC_PORT_9180_TCP=x"), []string{"config", "lint"}, ""},
		"port of theirs":     {with("OUTBOXCDC_PORT=tcp://10.0.0.1:9180"), []string{"config", "lint"}, ""},
		"service of theirs":  {with("OUTBOXCDC_SERVICE_HOST=10.0.0.1"), []string{"config", "lint"}, ""},
	} {
		got := outboxcdc(t, c.env, c.args...)
		switch {
		case c.want == "" && got.exit != 0:
			t.Errorf("%s: exit %d, want it left alone:\n%s", name, got.exit, got.err)
		case c.want != "" && (got.exit != fault.ExitUsage || !strings.Contains(got.err, c.want)):
			t.Errorf("%s: exit %d, want %d and %q:\n%s", name, got.exit, fault.ExitUsage, c.want, got.err)
		}
	}
}

func TestWhatIsNearIsAsNearAsASlipOfTheFinger(t *testing.T) {
	names := []string{"slot", "sink", "drain-timeout", "database-url"}
	for word, want := range map[string]string{
		"slto": "slot", "slots": "slot", "sinc": "sink", "darin-timeot": "drain-timeout", "database_url": "database-url",
		"": "", "slurp": "", "port": "", "drain": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%q is taken for %q, want %q", word, got, want)
		}
	}
}
