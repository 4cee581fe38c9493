package test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// The rows of the fault matrix that ask how much memory the stream takes. They measure
// the process that is shipped, without the race detector, which takes memory of its
// own, and let the system limit it where it can. `make memory` runs the long form.
var (
	memoryOutage = flag.Duration("memory.outage", 20*time.Second, "how long the broker is away in the test of memory")
	memoryRows   = flag.Int("memory.rows", 200_000, "rows of the largest transaction")
	memoryLarge  = flag.Int("memory.large", 300, "rows of a megabyte")
)

// memoryLimit is what a small container gives.
const memoryLimit = 128 << 20

// streamWithin starts the streamer in a container of its own, as far as memory goes.
func (l *line) streamWithin(tb testing.TB, bytes int) *streamer {
	tb.Helper()
	path, err := builtToDie() // with failpoints that nobody arms
	if err != nil {
		tb.Fatalf("build outboxcdc: %v", err)
	}
	args := append([]string{path, "stream", "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","), "--topic", l.topic, "--http", "off"}, l.flags...)
	if group := memoryGroup(tb, bytes); group != "" {
		args = append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(group, "cgroup.procs")}, args...)
	}
	return begin(tb, exec.Command(args[0], args[1:]...))
}

// memoryGroup makes a control group whose processes the system kills when they take
// more, where this user may: it is empty where not, and the test then only measures.
func memoryGroup(tb testing.TB, bytes int) (dir string) {
	tb.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		tb.Logf("NOT LIMITED, only measured: %v", err)
		return ""
	}
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // cgroups(7)
		root, limit := "", ""
		switch {
		case len(parts) != 3:
			continue
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			root, limit = "/sys/fs/cgroup/memory"+parts[2], "memory.limit_in_bytes"
		case parts[0] == "0":
			root, limit = "/sys/fs/cgroup"+parts[2], "memory.max"
		}
		dir = filepath.Join(root, walName("outboxcdc"))
		if root == "" || os.Mkdir(dir, 0o755) != nil {
			continue
		}
		tb.Cleanup(func() { os.Remove(dir) }) //nolint:errcheck // an empty group takes nothing
		if err = os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(bytes)), 0o644); err == nil {
			return dir
		}
	}
	tb.Logf("NOT LIMITED, only measured: no control group for memory can be made here")
	return ""
}

// endBefore is the end of the log before one more event: without that event it may lie
// in idle log, which is confirmed in strides only.
func (l *line) endBefore(tb testing.TB, aggregate string) string {
	tb.Helper()
	end := l.end(tb)
	l.event(tb, aggregate)
	return end
}

// awaitAlive waits until the slot is confirmed up to lsn, by a streamer that lives.
func (l *line) awaitAlive(tb testing.TB, s *streamer, lsn string) {
	tb.Helper()
	eventually(tb, 15*time.Minute, "the slot is confirmed past the last event", func() bool {
		if s.over() {
			tb.Fatalf("it ended with %v:\n%s", s.cmd.ProcessState, s.log)
		}
		return !l.behind(tb, lsn)
	})
}

// memoryOf is what the system says of a process' memory: what it holds now, and the
// most that it ever held.
func memoryOf(tb testing.TB, s *streamer) (now, peak int) {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		tb.Fatalf("%v:\n%s", err, s.log)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			now = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			peak = kib << 10
		}
	}
	if now == 0 || peak == 0 {
		tb.Fatalf("the system does not say how much memory the process holds:\n%s", s.log)
	}
	return now, peak
}

// wantPeak checks the most memory that the process ever held.
func wantPeak(tb testing.TB, s *streamer, what string) {
	tb.Helper()
	_, peak := memoryOf(tb, s)
	tb.Logf("%s: at most %d MiB, of %d", what, peak>>20, memoryLimit>>20)
	if peak > memoryLimit {
		tb.Errorf("memory peaked at %d bytes, want at most %d", peak, memoryLimit)
	}
}

func TestMemoryDoesNotGrowWithTheTransaction(t *testing.T) {
	t.Parallel()
	const payload = 600
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	s := l.streamWithin(t, memoryLimit)
	l.exec(t, `insert into outbox (aggregate_type, aggregate_id, event_type, payload)
		select 'order', 'k' || i % 100, 'raised', jsonb_build_object('n', i, 'text', repeat('x', $2)) from generate_series(1, $1::int) i`, *memoryRows, payload)
	l.awaitAlive(t, s, l.endBefore(t, "last"))
	wantPeak(t, s, fmt.Sprintf("a transaction of %d rows of %d bytes", *memoryRows, payload))
	s.wantStop(t)
	newest, arrived := map[string]int64{}, 0
	for _, r := range l.kafka.Records(t, l.topic) {
		if string(r.Key) == "last" {
			continue
		}
		arrived++
		n := numberOf(t, r)
		if n <= newest[string(r.Key)] {
			t.Fatalf("event %d of %s came after %d", n, r.Key, newest[string(r.Key)])
		}
		newest[string(r.Key)] = n
	}
	if arrived != *memoryRows {
		t.Errorf("%d events arrived, want %d, each once", arrived, *memoryRows)
	}
}

// Rows as large as a broker takes, which do not compress, in transactions of one and of
// many. All of them wait when the stream begins, so that it goes as fast as it can.
func TestRowsOfAMegabyteFitIntoASmallLimit(t *testing.T) {
	t.Parallel()
	const payload, each = 1_000_000, 30
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	for from := 0; from < *memoryLarge; from += each {
		many := from/each%2 == 0
		l.largeRows(t, from, min(each, *memoryLarge-from), payload, many)
	}
	last := l.endBefore(t, "last")
	s := l.streamWithin(t, memoryLimit)
	l.awaitAlive(t, s, last)
	wantPeak(t, s, fmt.Sprintf("%d rows of %d bytes", *memoryLarge, payload))
	if s.says("another follows")() {
		t.Errorf("a session broke:\n%s", s.log)
	}
	s.wantStop(t)
	if n := l.arrived(t, "large"); n != *memoryLarge {
		t.Errorf("%d large rows arrived, want %d, each once", n, *memoryLarge)
	}
}

// largeRows inserts rows of random text, in one transaction or one each.
func (l *line) largeRows(t *testing.T, from, n, payload int, together bool) {
	t.Helper()
	const insert = `insert into outbox (aggregate_type, aggregate_id, event_type, payload)
		select 'order', 'large', 'raised', to_jsonb((select string_agg(md5(random()::text || i::text || j::text), '') from generate_series(1, $3::int / 32) j))
		from generate_series($1::int, $1 + $2 - 1) i`
	if together {
		l.exec(t, insert, from, n, payload)
		return
	}
	for i := range n {
		l.exec(t, insert, from+i, 1, payload)
	}
}

// The broker goes away under load. What is on its way then is held, and nothing more:
// from the time at which the buffers are full, memory does not grow.
func TestMemoryDoesNotGrowWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	const perSecond, payload, slack = 1000, 2000, 16 << 20
	kafka := servers.Kafka(t)
	l := newLine(t, servers.SharedPostgres(t), kafka)
	s := l.streamWithin(t, memoryLimit)
	stop := l.steadily(t, perSecond, payload)
	eventually(t, time.Minute, "events flow", func() bool { return l.arrived(t, "steady") > perSecond })
	kafka.Stop(t)
	var first, second int // most of either half
	began := time.Now()
	clock := time.NewTicker(500 * time.Millisecond)
	defer clock.Stop()
	for time.Since(began) < *memoryOutage {
		<-clock.C
		now, _ := memoryOf(t, s)
		if time.Since(began) < *memoryOutage/2 {
			first = max(first, now)
		} else {
			second = max(second, now)
		}
	}
	kafka.Start(t)
	written := stop()
	t.Logf("broker away for %v under %d rows a second: %d MiB in the first half, %d MiB in the second", *memoryOutage, perSecond, first>>20, second>>20)
	if grown := second - first; grown > slack {
		t.Errorf("memory grew by %d bytes from %d while the broker was away", grown, first)
	}
	l.awaitAlive(t, s, l.endBefore(t, "last"))
	wantPeak(t, s, fmt.Sprintf("broker away for %v", *memoryOutage))
	if n := l.arrived(t, "steady"); n != written {
		t.Errorf("%d events arrived, want %d, each once", n, written)
	}
	s.wantStop(t)
}

// steadily inserts so many rows a second, all of one aggregate, until stop is called,
// which gives how many there are.
func (l *line) steadily(t *testing.T, perSecond, payload int) (stop func() int) {
	t.Helper()
	conn := l.db.Server.Conn(t, l.db.Name)
	enough, written := make(chan struct{}), make(chan int, 1)
	const beats = 20
	go func() {
		clock := time.NewTicker(time.Second / beats)
		defer clock.Stop()
		n := 0
		for {
			select {
			case <-clock.C:
				tag, err := conn.Exec(context.Background(), `insert into outbox (aggregate_type, aggregate_id, event_type, payload)
					select 'order', 'steady', 'raised', jsonb_build_object('n', i, 'text', repeat('x', $2)) from generate_series(1, $1::int) i`, perSecond/beats, payload)
				if err != nil {
					t.Errorf("the load: %v", err)
				}
				n += int(tag.RowsAffected())
			case <-enough:
				written <- n
				return
			}
		}
	}()
	return func() int { close(enough); return <-written }
}
