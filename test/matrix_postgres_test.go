package test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// The rows of the fault matrix in which one Postgres goes down, comes back, or
// holds the stream up.

// text gives what a query answers, as text.
func (l *line) text(tb testing.TB, query string, args ...any) (answer string) {
	tb.Helper()
	if err := l.sql.QueryRow(walContext(tb), query, args...).Scan(&answer); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return answer
}

// event inserts one event of an aggregate of its own.
func (l *line) event(tb testing.TB, aggregate string) {
	tb.Helper()
	l.exec(tb, "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', $1, 'raised', '{\"n\": 1}')", aggregate)
}

// arrived says how often an aggregate is on the topic.
func (l *line) arrived(tb testing.TB, aggregate string) (n int) {
	tb.Helper()
	for _, r := range l.kafka.Records(tb, l.topic) {
		if string(r.Key) == aggregate {
			n++
		}
	}
	return n
}

// The slot's own position survives a crash only as far as the last checkpoint wrote
// it. What we saved ourselves is later.
func TestACrashOfPostgresRepeatsNothingThatWasSaved(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t, servers.Setting("checkpoint_timeout", "1h"))
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	s := l.stream(t)
	eventually(t, time.Minute, "it streams", s.says("streaming"))
	// The server writes the slot down at other times too, and then a crash proves nothing.
	for crashes, forgot := 0, false; !forgot; crashes++ {
		if crashes == 5 {
			t.Fatalf("the slot forgot nothing in %d crashes, and this proves nothing", crashes)
		}
		if err := l.w.write(walContext(t), 2000, 2); err != nil {
			t.Fatal(err)
		}
		l.delivered(t)
		last := l.lastSent(t)
		eventually(t, time.Minute, "all that was sent is saved", func() bool { return lsn(t, l.saved(t)) > last })
		before := lsn(t, l.slotText(t, "confirmed_flush_lsn"))
		s.kill(t)
		server.Kill9(t)
		server.Start(t)
		l.reconnect(t)
		forgot = lsn(t, l.slotText(t, "confirmed_flush_lsn")) < before
		s = l.stream(t)
	}
	if err := l.w.write(walContext(t), 1000, 2); err != nil {
		t.Fatal(err)
	}
	if d := l.delivered(t); d.duplicates > 0 {
		t.Errorf("%d events were sent again, want none", d.duplicates)
	}
	s.wantStop(t)
}

func TestARestartOfPostgresUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	s := l.stream(t)
	for range 3 {
		written := make(chan error, 1)
		before := l.w.written.Load()
		go func() { written <- l.w.write(walContext(t), 1<<40, 4) }()
		eventually(t, time.Minute, "the service writes", func() bool { return l.w.written.Load() > before+1000 })
		server.Stop(t, servers.Fast)
		if err := <-written; err == nil {
			t.Fatal("the service noticed nothing of the restart")
		}
		server.Start(t)
	}
	l.reconnect(t)
	l.recount(t)
	l.delivered(t)
	s.wantStop(t)
}

// recount asks the tables what was committed: a service that is cut off in a commit
// does not know.
func (l *line) recount(tb testing.TB) {
	tb.Helper()
	var events int64
	if err := l.sql.QueryRow(walContext(tb), "select sum(n)::bigint from aggregate").Scan(&events); err != nil {
		tb.Fatal(err)
	}
	l.w.written.Store(events)
}

// pg_upgrade refuses a cluster with a slot that has something left to decode
// (slotfuncs.c, binary_upgrade_logical_slot_has_caught_up). So the way is: the
// services stop, the stream stops, the server stops.
func TestAStopInOrderLeavesNothingToDecode(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t, servers.Major(failoverMajor)) // earlier ones forget on the way down
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	s := l.stream(t)
	if err := l.w.write(walContext(t), 2000, 2); err != nil {
		t.Fatal(err)
	}
	l.delivered(t)
	s.wantStop(t)
	server.Restart(t, servers.Fast)
	l.reconnect(t)
	if n := l.text(t, "select count(*)::text from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', 'outboxcdc')", l.slot); n != "0" {
		t.Errorf("%s messages are left to decode, want none", n)
	}
}

func TestATerminatedWalsenderIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	s := l.stream(t)
	d := l.under(t, 10_000, func() {
		for range 3 {
			before := l.w.written.Load()
			eventually(t, time.Minute, "the walsender is terminated", func() bool {
				return l.text(t, "select count(pg_terminate_backend(active_pid))::text from pg_replication_slots where slot_name = $1 and active_pid is not null", l.slot) == "1"
			})
			eventually(t, time.Minute, "the service goes on writing", func() bool { return l.w.written.Load() > before+500 || l.w.written.Load() > 10_000 })
		}
	})
	t.Logf("%d events, %d sent again", d.events, d.duplicates)
	s.wantStop(t)
}

// The server spills a large transaction into files beside the slot. Here the first
// of them is on a disk that is full, until the walsender that failed is gone and the
// next one clears them away.
func TestAFullDiskOfPostgresIsOutlasted(t *testing.T) {
	t.Parallel()
	// On a shared server the log of other tests may pass the segments that are looked for.
	l := newLine(t, servers.Postgres(t).Database(t), servers.SharedKafka(t))
	s := stream(t, "--slot", l.slot, "--database-url", l.spilling(t), "--topic", l.topic, "--http", "off",
		"--sink", "kafka://"+strings.Join(l.kafka.Bootstrap(), ","))
	eventually(t, time.Minute, "it streams", s.says("streaming"))
	l.exec(t, "begin")
	l.fillDisk(t)
	l.exec(t, "insert into outbox (aggregate_type, aggregate_id, event_type, payload) select 'order', 'big', 'raised', jsonb_build_object('n', i) from generate_series(1, 5000) i")
	l.exec(t, "commit")
	eventually(t, time.Minute, "the full disk is told of", s.says("53100"))
	l.event(t, "after")
	l.settle(t)
	if big, after := l.arrived(t, "big"), l.arrived(t, "after"); big != 5000 || after != 1 {
		t.Errorf("%d and %d events arrived, want 5000 and 1, each once", big, after)
	}
	s.wantStop(t)
}

// spilling is the database's URL for sessions with the least memory to decode in.
func (l *line) spilling(tb testing.TB) string {
	tb.Helper()
	at, err := url.Parse(l.db.URL)
	if err != nil {
		tb.Fatal("the test database has no URL that parses")
	}
	query := at.Query()
	query.Set("options", "-c logical_decoding_work_mem=64kB")
	at.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // a plus is a plus to libpq
	return at.String()
}

// fillDisk makes the files into which the open transaction would be spilled end on a
// full device. Their names are made of the transaction and of the segment of the log
// (reorderbuffer.c, ReorderBufferSerializedPath).
func (l *line) fillDisk(tb testing.TB) {
	tb.Helper()
	if l.db.Server.DataDir() == "" {
		tb.Fatal("fill the disk: only that of an embedded server can be reached")
	}
	xid := l.text(tb, "select pg_current_xact_id()::xid::text")
	segment, err := strconv.ParseUint(l.text(tb, "select div(pg_current_wal_insert_lsn() - '0/0', 16 * 1024 * 1024)::text"), 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	for at := segment; at < segment+4; at++ {
		lsn := at << 24
		name := fmt.Sprintf("xid-%s-lsn-%X-%X.spill", xid, lsn>>32, uint32(lsn))
		path := filepath.Join(l.db.Server.DataDir(), "pg_replslot", l.slot, name)
		if err := os.Symlink("/dev/full", path); err != nil && !errors.Is(err, os.ErrExist) {
			tb.Fatal(err)
		}
	}
}

// A failover slot is sent nothing that the standbys which are named do not have. That
// is waiting, not failing.
func TestAStandbyThatIsDownHoldsTheStreamAndNoMore(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t, servers.Major(failoverMajor))
	a := newAddress(t, server.Database(t))
	a.exec(t, "select pg_create_physical_replication_slot('away', true)")
	a.exec(t, "alter system set synchronized_standby_slots = 'away'")
	a.exec(t, "select pg_reload_conf()")
	s := a.start(t)
	a.event(t, "held")
	eventually(t, time.Minute, "it says that it is held back", s.says("held back until a standby has the log"))
	if n := a.arrived(t, "held"); n != 0 {
		t.Errorf("the event arrived %d times while the standby lacks it", n)
	}
	a.exec(t, "alter system reset synchronized_standby_slots")
	a.exec(t, "select pg_reload_conf()")
	eventually(t, time.Minute, "the event arrives", func() bool { return a.arrived(t, "held") == 1 })
	if strings.Contains(s.log.String(), "another follows") {
		t.Errorf("the wait broke a session:\n%s", s.log)
	}
	s.wantStop(t)
}

// With synchronous_standby_names = '*' we are a standby too: each commit waits until
// we have confirmed it, and our own saves must not wait for ourselves.
func TestAStreamThatCommitsWaitForIsToldOfAndLosesNothing(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	l.exec(t, "alter system set synchronous_standby_names = '*'")
	l.exec(t, "select pg_reload_conf()")
	s := l.stream(t)
	eventually(t, time.Minute, "it streams", s.says("streaming"))
	for i := range 5 {
		l.event(t, fmt.Sprintf("waits-%d", i))
	}
	eventually(t, time.Minute, "the last event arrives", func() bool { return l.arrived(t, "waits-4") == 1 })
	if !s.says("every commit may wait for this stream")() {
		t.Errorf("the log does not warn:\n%s", s.log)
	}
	s.wantStop(t)
}
