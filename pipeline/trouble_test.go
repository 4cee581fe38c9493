package pipeline

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

func TestTroublesAreToldWhileEventsShouldFlow(t *testing.T) {
	silent := Stats{State: Streaming, Waiting: longestWait + time.Second, Unreached: "dial tcp: connection refused", Slot: wal.Slot{SafeBytes: -1}}
	full := Stats{State: Streaming, Slot: wal.Slot{Name: "orders", SafeBytes: 3 << 20, RetainedBytes: 4 << 20}}
	for name, c := range map[string]struct {
		stats Stats
		want  []string // a text of each
	}{
		"none":                       {Stats{State: Streaming, Waiting: longestWait, Slot: wal.Slot{SafeBytes: -1}}, nil},
		"a slot not looked at":       {Stats{State: Streaming}, nil},
		"a silent broker":            {silent, []string{"not acked for 16s: dial tcp: connection refused"}},
		"a broker that asks to wait": {Stats{State: Streaming, Stalled: "low on memory"}, []string{"low on memory"}},
		"log near its limit":         {full, []string{"4 MiB of log are kept for slot orders, and it is lost when 3 MiB more"}},
		"log beyond its limit":       {Stats{State: Streaming, Slot: wal.Slot{WALStatus: "unreserved", SafeBytes: -5, RetainedBytes: 1 << 30}}, []string{"lost when 0 MiB more"}},
		"both":                       {Stats{State: Streaming, Stalled: "low on memory", Slot: full.Slot}, []string{"low on memory", "3 MiB more"}},
		"rows that are parked":       {Stats{State: Streaming, ParkedRows: 12, ParkedAggregates: 3}, []string{"12 rows of 3 aggregates"}},
		"in another state":           {Stats{State: Retrying, Waiting: time.Hour, Slot: full.Slot}, nil},
	} {
		troubles := c.stats.Troubles()
		if len(troubles) != len(c.want) {
			t.Errorf("%s: %+v, want %d", name, troubles, len(c.want))
			continue
		}
		for i, trouble := range troubles {
			if !strings.Contains(trouble.Problem, c.want[i]) || trouble.Fix == "" {
				t.Errorf("%s: %+v, want %q and a way out", name, trouble, c.want[i])
			}
		}
	}
}

func TestTroubleIsLoggedWhenItBeginsAndWhenItIsOver(t *testing.T) {
	var log bytes.Buffer
	r := &Runner{logger: slog.New(slog.NewTextHandler(&log, nil))}
	told := map[string]bool{}
	r.board.set(Streaming, "")
	for _, stalled := range []string{"", "low on memory", "low on memory", "low on disk", "", ""} {
		r.board.stalled = func() string { return stalled }
		r.tell(told)
	}
	if begun, over := strings.Count(log.String(), "msg=trouble "), strings.Count(log.String(), "trouble is over"); begun != 1 || over != 1 {
		t.Errorf("trouble was told of %d times and its end %d times, want once each:\n%s", begun, over, &log)
	}
}
