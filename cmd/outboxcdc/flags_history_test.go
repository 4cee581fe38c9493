package main

import (
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func TestAHistoryThatCannotBeKeptIsRefused(t *testing.T) {
	for _, c := range []struct {
		flags string
		want  string // empty when the settings are sound
	}{
		{"", ""},
		{"--history-interval 5s --history-keep 24h", ""},
		{"--history-keep 8760h --history-interval 10m", ""},
		{"--history-interval 0s", "--history-interval 0s"},
		{"--history-keep 0s", "--history-keep 0s"},
		{"--history-interval 10ms", "is below 1s"},
		{"--history-interval -1m", "is below 1s"},
		{"--history-interval 1h --history-keep 1m", "cannot be kept"},
		{"--history-interval 1s", "more than 100000 entries"},
	} {
		got := outboxcdc(t, nil, append([]string{"config", "lint", "--slot", "orders", "--sink", "stdout://"}, strings.Fields(c.flags)...)...)
		switch {
		case c.want == "" && got.exit != 0:
			t.Errorf("%q: exit %d:\n%s", c.flags, got.exit, got.err)
		case c.want != "" && (got.exit != fault.ExitUsage || linesWith(got.err, c.want) != 1):
			t.Errorf("%q: exit %d, want %d and one line with %q:\n%s", c.flags, got.exit, fault.ExitUsage, c.want, got.err)
		}
	}
}
