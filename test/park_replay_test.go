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
	p, s := bookmarkedParkLine(t)
	p.event(t, "p-0", true)
	behind := p.end(t)
	p.event(t, "p-0", false)
	p.event(t, "p-1", false)
	eventually(t, time.Minute, "two rows are parked", func() bool { return p.parked(t) == 2 })
	p.settled(t)
	s.wantStop(t)
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

// bookmarkedParkLine is one whose stream has sent the first event of p-0, with the
// bookmark "here" behind it.
func bookmarkedParkLine(t *testing.T) (*parkLine, *streamer) {
	t.Helper()
	p := newParkLine(t)
	s := p.stream(t)
	p.event(t, "p-0", false)
	p.settled(t)
	mustRun(t, slices.Concat([]string{"bookmark", "create", "here"}, p.base)...)
	return p, s
}

// TestAReplayLeavesDroppedRowsOut replays log with a row that no message can be made of and
// that somebody dropped for that.
func TestAReplayLeavesDroppedRowsOut(t *testing.T) {
	t.Parallel()
	p, s := bookmarkedParkLine(t)
	p.event(t, "p-0", true)
	eventually(t, time.Minute, "the row is parked", func() bool { return p.parked(t) == 1 })
	p.dlq(t, "drop", "--yes", "--all", "--wait", "1m")
	p.event(t, "p-0", false)
	p.settled(t)
	s.wantStop(t)
	mustRun(t, slices.Concat([]string{"replay", "--sink", "kafka://" + strings.Join(p.kafka.Bootstrap(), ","), "--topic", p.topic, "--from-bookmark", "here"}, p.base)...)
	var numbers []int64
	for _, r := range p.kafka.Records(t, p.topic) {
		if string(r.Key) == "p-0" {
			numbers = append(numbers, numberOf(t, r))
		}
	}
	if !slices.Equal(numbers, []int64{1, 3, 3}) {
		t.Errorf("the events of p-0 are %v, want 1, and 3 once more by the replay", numbers)
	}
}
