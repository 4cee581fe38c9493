package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// TestAReplayLeavesParkedRowsAside replays log with rows that were never sent: they wait for
// those before them.
func TestAReplayLeavesParkedRowsAside(t *testing.T) {
	t.Parallel()
	p := newParkLine(t)
	s := p.stream(t)
	p.event(t, "p-0", false)
	p.settled(t)
	mustRun(t, slices.Concat([]string{"bookmark", "create", "here"}, p.base)...)
	p.event(t, "p-0", true)
	behind := p.end(t)
	p.event(t, "p-0", false)
	p.event(t, "p-1", false)
	eventually(t, time.Minute, "two rows are parked", func() bool { return p.parked(t) == 2 })
	p.settled(t)
	if status := s.stop(t); status != 0 {
		t.Fatalf("exit status %d, want 0:\n%s", status, s.log)
	}
	replay := func(args ...string) answer {
		return command(t, nil, slices.Concat([]string{"replay", "--sink", "kafka://" + strings.Join(p.kafka.Bootstrap(), ","), "--topic", p.topic}, p.base, args)...)
	}
	for _, from := range [][]string{{"--from-lsn", behind}, {"--from-bookmark", "here"}} {
		if got := replay(from...); got.exit != 0 {
			t.Errorf("%s ended with %d:\n%s%s", from, got.exit, got.out, got.errors)
		}
	}
	mustRun(t, slices.Concat([]string{"bookmark", "drop", "here"}, p.base)...)
	wantRefusal(t, replay("--from-lsn", behind), fault.ExitOperator, "rows are parked")
	p.dlq(t, "retry", "--all", "--wait", "0s")
	p.flags = append(p.flags, "--column", mended)
	s = p.stream(t)
	eventually(t, time.Minute, "nothing is parked any more", func() bool { return p.parked(t) == 0 })
	p.settled(t)
	p.wantAll(t)
	s.stop(t)
}
