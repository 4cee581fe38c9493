package test

import (
	"context"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// TestLogFromAnArchiveIsReplayedFromAStandby follows docs/runbook.md: events that were
// confirmed, and whose rows were deleted, come again from a base backup and the archive
// behind it, exactly and in commit order.
func TestLogFromAnArchiveIsReplayedFromAStandby(t *testing.T) {
	t.Parallel()
	primary := servers.Postgres(t, servers.Major(17), servers.Archived())
	l := newLine(t, primary.Database(t), servers.SharedKafka(t))
	r := l.run(t)
	l.work(t)
	l.settleWork(t)
	standby := primary.ArchiveStandby(t, "../docs/archive-gate.sh")
	segment := func() (name string) {
		l.ask(t, "select pg_walfile_name(pg_current_wal_lsn())", &name)
		l.exec(t, "select pg_switch_wal()")
		return name
	}
	l.work(t)
	before := segment()
	l.recordQuiet(t)
	from := lsn(t, l.end(t))
	l.work(t)
	to := lsn(t, l.end(t))
	l.work(t)
	last := segment()
	l.settleWork(t)
	r.drain(t)
	live := inLog(t, l.sentTo(t, l.topic), from, to)
	l.exec(t, "delete from outbox")
	l.exec(t, "vacuum outbox")
	eventually(t, time.Minute, "the archive has the log", func() (has bool) {
		l.ask(t, "select coalesce(last_archived_wal >= $1, false) from pg_stat_archiver", &has, last)
		return has
	})

	primary.SetGate(t, before)
	standby.Start(t)
	database := standby.URL(l.db.Name) + "&target_session_attrs=standby"
	there := standby.Conn(t, l.db.Name)
	l.bookmarkBehind(t, standby, there, func() { primary.SetGate(t, last) })
	eventually(t, time.Minute, "the standby has replayed the range", func() (has bool) {
		if err := there.QueryRow(walContext(t), "select pg_last_wal_replay_lsn() >= $1::pg_lsn", to.String()).Scan(&has); err != nil {
			t.Fatal(err)
		}
		return has
	})
	topic := l.kafka.Topic(t, 1)
	out := mustRun(t, "replay", "--slot", l.slot, "--database-url", database, "--topic", topic,
		"--sink", "kafka://"+strings.Join(l.kafka.Bootstrap(), ","), "--from-lsn", from.String(), "--to-lsn", to.String())
	for i := range live {
		live[i].replay = printed(t, out, "run")
	}
	if len(live) < 300 {
		t.Errorf("only %d events lie in the range: it proves little", len(live))
	}
	if diff := gocmp.Diff(live, l.sentTo(t, topic), gocmp.AllowUnexported(sent{})); diff != "" {
		t.Errorf("the replay of %d events gave others (-want +got):\n%.2000s", len(live), diff)
	}
}

// bookmarkBehind makes a bookmark on a standby, which waits for log that comes when the gate
// is opened.
func (l *line) bookmarkBehind(t *testing.T, standby *servers.PostgresServer, there *pgx.Conn, open func()) {
	t.Helper()
	bookmark := l.slot + "__bookmark_archive"
	made := make(chan error, 1)
	go func() {
		conn, err := standby.Connect(context.Background(), l.db.Name)
		if err == nil {
			_, err = conn.Exec(context.Background(), "select pg_create_logical_replication_slot($1, 'pgoutput')", bookmark)
		}
		made <- err
	}()
	eventually(t, time.Minute, "the slot is being made", func() (being bool) {
		if err := there.QueryRow(walContext(t), "select exists (select from pg_replication_slots where slot_name = $1)", bookmark).Scan(&being); err != nil {
			t.Fatal(err)
		}
		return being
	})
	open()
	if err := <-made; err != nil {
		t.Fatalf("make the slot on the standby: %v", err)
	}
}

// recordQuiet logs that no transaction runs, which is what the creation of a slot waits
// for. A record of some that run, as when the stream happens to save, only begins a wait
// for others.
func (l *line) recordQuiet(t *testing.T) {
	t.Helper()
	const snapshot = "select pg_current_snapshot()::text, pg_snapshot_xmin(pg_current_snapshot()) = pg_snapshot_xmax(pg_current_snapshot())"
	look := func() (text string, quiet bool) {
		if err := l.sql.QueryRow(walContext(t), snapshot).Scan(&text, &quiet); err != nil {
			t.Fatal(err)
		}
		return text, quiet
	}
	eventually(t, time.Minute, "no transaction runs while that is logged", func() bool {
		before, quiet := look()
		l.exec(t, "select pg_log_standby_snapshot()")
		after, _ := look()
		return quiet && before == after
	})
}
