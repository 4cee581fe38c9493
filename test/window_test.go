package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// windowed keeps a replay window and looks at it often.
func windowed(w pipeline.Window) func(*pipeline.Config) {
	return func(c *pipeline.Config) { c.ReplayWindow, c.TrailInterval = w, 100*time.Millisecond }
}

// fill writes log, a mebibyte at a time, that belongs to nobody.
func (l *line) fill(tb testing.TB, mebibytes int) {
	tb.Helper()
	for range mebibytes {
		l.exec(tb, "select pg_logical_emit_message(false, 'filler', repeat('x', 1 << 20))")
	}
}

func TestTheReplayWindowTrailsBehindTheStreamAndServesReplays(t *testing.T) {
	t.Parallel()
	// In a log of its own, or what others write moves the window on.
	l := newLine(t, servers.Postgres(t).Database(t), servers.SharedKafka(t))
	const window = 4 << 20
	r := l.run(t, windowed(pipeline.Window{Bytes: window}))
	trail := l.slot + "__replay"
	distance := func() (bytes int64) {
		l.ask(t, `select coalesce(max(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), confirmed_flush_lsn)), -1)::bigint
			from pg_replication_slots where slot_name = $1`, &bytes, trail)
		return bytes
	}
	eventually(t, time.Minute, "the window's slot is made", func() bool { return distance() >= 0 })
	l.insert(t, "a", "1")
	l.settle(t)
	l.fill(t, 2*window>>20)
	l.insert(t, "a", "2")
	l.settle(t)
	eventually(t, time.Minute, "the slot has followed to the end of the window", func() bool { return distance() < window+1<<20 })
	if d := distance(); d < window/2 {
		t.Errorf("the slot trails %d bytes behind, want about %d", d, window)
	}
	var from string
	l.ask(t, "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1", &from, trail)
	out := mustRun(t, l.replayArgs(l.topic, "--from-lsn", from, "--dry-run")...)
	if !strings.Contains(printed(t, out, "source"), "the replay window") || !strings.Contains(out, "would send 2 events") {
		t.Errorf("the plan is:\n%s", out)
	}
	if list := mustRun(t, slices.Concat([]string{"bookmark", "list"}, l.flags)...); !strings.Contains(list, "(replay window)") {
		t.Errorf("the list is:\n%s", list)
	}
	r.drain(t)
}

func TestTheReplayWindowIsGivenUpBeforeTheServerWouldLoseLog(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t, servers.Setting("max_slot_wal_keep_size", "96MB"),
		servers.Setting("min_wal_size", "32MB"), servers.Setting("max_wal_size", "32MB"))
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	r := l.run(t, windowed(pipeline.Window{Age: time.Hour, Bytes: pipeline.DefaultWindowBytes}))
	eventually(t, time.Minute, "log was written until the window was given up", func() bool {
		l.fill(t, 4)
		l.exec(t, "checkpoint")
		l.settle(t)
		var lost int
		l.ask(t, "select count(*) from pg_replication_slots where wal_status = 'lost'", &lost)
		if lost > 0 {
			t.Fatalf("%d slots are lost", lost)
		}
		return strings.Contains(r.log.String(), "__replay was dropped")
	})
	l.insert(t, "a", "1")
	l.awaitValues(t, "a", "1")
	r.drain(t)
}
