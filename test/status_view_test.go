package test

import (
	"flag"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// statuses counts the rows of each status, as "PENDING 2, SENT 1".
func (l *line) statuses(tb testing.TB) string {
	tb.Helper()
	var counts string
	l.ask(tb, `select coalesce(string_agg(status || ' ' || n, ', ' order by status), '')
		from (select status, count(*) n from outboxcdc.outbox_status where slot = $1 group by 1) s`, &counts, l.slot)
	return counts
}

// sentIsHeld fails the test when the view calls a row sent that the broker does not
// hold, and gives the number of those that it calls so. The view is asked first: what
// it calls sent must be on the topic already.
func (l *line) sentIsHeld(tb testing.TB) int {
	tb.Helper()
	sent := firstColumn(tb, l.sql, "select id from outboxcdc.outbox_status where slot = $1 and status = 'SENT'", l.slot)
	held := map[string]bool{}
	for _, r := range l.kafka.Records(tb, l.topic) {
		for _, h := range r.Headers {
			if h.Key == "id" {
				held[string(h.Value)] = true
			}
		}
	}
	for _, id := range sent {
		if !held[id] {
			tb.Errorf("row %s is called SENT, and the topic does not hold it", id)
		}
	}
	return len(sent)
}

func (l *line) awaitStatuses(tb testing.TB, want string) {
	tb.Helper()
	var got string
	eventually(tb, time.Minute, "the rows are "+want, func() bool { got = l.statuses(tb); return got == want })
}

func TestARowIsPendingWhileTheBrokerIsSilentAndSentAfterwards(t *testing.T) {
	t.Parallel()
	kafka := servers.Kafka(t)
	l := newLine(t, servers.SharedPostgres(t), kafka)
	r := l.run(t)
	l.insert(t, "a", "1")
	l.awaitStatuses(t, "SENT 1")
	pid := kafka.Pid(t)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	silent := true
	wake := func() {
		if silent {
			silent = false
			syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // it may have ended
		}
	}
	t.Cleanup(wake)
	l.insert(t, "a", "2")
	l.exec(t, "select pg_logical_emit_message(false, 'log', repeat('x', 200000))")
	// Many looks of the watch, each with a snapshot that shows the row.
	before := l.lookedAt(t)
	eventually(t, time.Minute, "the slot is looked at often", func() bool { return l.lookedAt(t) > before+20 })
	if got := l.statuses(t); got != "PENDING 1, SENT 1" {
		t.Errorf("while the broker is silent the rows are %q", got)
	}
	wake()
	l.awaitStatuses(t, "SENT 2")
	l.sentIsHeld(t)
	r.drain(t)
}

// lookedAt counts the statements of the watch.
func (l *line) lookedAt(tb testing.TB) (n int) {
	tb.Helper()
	l.ask(tb, `select coalesce(extract(epoch from max(query_start)) * 50, 0)::bigint % 1000000000 from pg_stat_activity
		where datname = current_database() and application_name like 'outboxcdc%' and query like '%pg_publication%'`, &n)
	return n
}

func TestNoRowIsCalledSentBeforeTheBrokerHoldsItWhateverDies(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	stopWriting := l.write(t)
	called := 0
	for _, point := range []failpoint.Point{failpoint.AfterAck, failpoint.AfterSave, failpoint.AfterSend, failpoint.AfterConfirm} {
		for _, n := range []int{1, 5} {
			l.streamTo(t, point, n).dies(t)
			called = max(called, l.sentIsHeld(t))
		}
	}
	if called == 0 {
		t.Error("no row was called SENT meanwhile: it proves nothing")
	}
	stopWriting()
	r := l.run(t)
	eventually(t, time.Minute, "all rows are sent", func() bool { return strings.HasPrefix(l.statuses(t), "SENT ") })
	l.sentIsHeld(t)
	r.drain(t)
}

func TestTheStatusOfARowIsUnknownWhereNobodyCanTell(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		story func(t *testing.T, l *line) *running
		want  string
	}{
		"rows that were there before the slot": {func(t *testing.T, l *line) *running {
			t.Helper()
			l.insert(t, "a", "1")
			l.insert(t, "a", "2")
			mustRun(t, append([]string{"init"}, l.flags...)...)
			l.insert(t, "a", "3") // before the first start, and sent all the same
			return l.run(t)
		}, "SENT 1, UNKNOWN 2"},
		"rows of an accepted gap": {func(t *testing.T, l *line) *running {
			t.Helper()
			mustRun(t, append([]string{"init"}, l.flags...)...)
			r := l.run(t)
			l.insert(t, "a", "1")
			l.awaitStatuses(t, "SENT 1")
			r.drain(t)
			l.insert(t, "a", "2")
			l.free(t)
			l.exec(t, "select pg_drop_replication_slot($1)", l.slot)
			r = l.run(t, accepting(t, l.saved(t)))
			l.insert(t, "a", "3")
			return r
		}, "SENT 2, UNKNOWN 1"},
		"rows from while the table was not published": {func(t *testing.T, l *line) *running {
			t.Helper()
			mustRun(t, append([]string{"init"}, l.flags...)...)
			r := l.run(t)
			l.insert(t, "a", "1")
			l.awaitStatuses(t, "SENT 1")
			r.drain(t)
			l.exec(t, "alter publication outboxcdc drop table outbox")
			l.insert(t, "a", "2")
			l.exec(t, "alter publication outboxcdc add table outbox")
			r = l.run(t)
			l.insert(t, "a", "3")
			return r
		}, "SENT 2, UNKNOWN 1"},
		"a table without xid": {func(t *testing.T, l *line) *running {
			t.Helper()
			l.exec(t, "alter table outbox drop column xid")
			mustRun(t, append([]string{"init"}, l.flags...)...)
			r := l.run(t)
			l.insert(t, "a", "1")
			l.settle(t)
			return r
		}, "UNKNOWN 2"},
		"positions in a file": {func(t *testing.T, l *line) *running {
			t.Helper()
			mustRun(t, append([]string{"init"}, l.flags...)...)
			r := l.run(t, func(c *pipeline.Config) { c.Checkpoint = "file://" + filepath.Join(t.TempDir(), "p.json") })
			l.insert(t, "a", "1")
			l.settle(t)
			return r
		}, "UNKNOWN 2"},
	} {
		t.Run(name, func(t *testing.T) {
			db := servers.SharedPostgres(t)
			applies(t, db.Conn(t), outboxes("outbox"), made("0002_outbox public.outbox")...)
			l := bareLine(t, db, servers.SharedKafka(t), walName("line"))
			r := c.story(t, l)
			l.awaitStatuses(t, c.want)
			l.sentIsHeld(t)
			r.drain(t)
		})
	}
}

// A table may be altered and dropped although the view shows its rows.
func TestTheStatusViewHoldsNoTableFast(t *testing.T) {
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	l.insert(t, "a", "1")
	l.exec(t, "alter table outbox alter column aggregate_id type varchar(50), alter column created_at type timestamp")
	if got := l.statuses(t); got != "UNKNOWN 1" {
		t.Errorf("before the first start the rows are %q, want unknown", got)
	}
	l.exec(t, "drop table outbox")
	if got := l.statuses(t); got != "" {
		t.Errorf("the rows of a table that is gone are %q", got)
	}
}

var idleFor = flag.Duration("idle.for", 15*time.Second, "how long a stream is watched that has nothing to do")

// An idle stream writes a checkpoint with its last rows and then sleeps, and so does
// its database. TestAnIdleStreamSleepsThroughTheNight simulates hours of it.
func TestAnIdleStreamDoesNotKeepItsDatabaseAwake(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t, servers.Setting("autovacuum", "off")) // which writes log in a new database
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	r := l.run(t) // its watch looks 50 times a second
	l.insert(t, "a", "1")
	l.awaitStatuses(t, "SENT 1")
	l.settle(t)
	type state struct {
		Saved string
		Log   int64
		At    float64 // by the server's clock, in seconds
	}
	look := func() (s state) {
		t.Helper()
		l.ask(t, `select concat_ws(' ', c.xmin, c.lsn, c.saved_at, (select count(*) from outboxcdc.history h where h.slot = c.slot))
			from outboxcdc.checkpoint c where slot = $1`, &s.Saved, l.slot)
		l.ask(t, "select (pg_current_wal_insert_lsn() - '0/0')::bigint", &s.Log)
		l.ask(t, "select extract(epoch from clock_timestamp())::float8", &s.At)
		return s
	}
	l.exec(t, "checkpoint") // what the setting up wrote is the server's matter
	before := look()
	eventually(t, time.Minute, "what the last row brought about was saved three seconds ago", func() bool {
		now := look()
		if now.Saved != before.Saved {
			before = now
		}
		return now.At-before.At >= 3
	})
	before = look()
	looks := l.lookedAt(t)
	after := before
	eventually(t, *idleFor+time.Minute, "the time is over", func() bool {
		after = look()
		return after.At-before.At >= idleFor.Seconds() && l.lookedAt(t) > looks+200
	})
	if diff := cmp.Diff(before.Saved, after.Saved); diff != "" {
		t.Errorf("an idle stream saved (-before +after):\n%s", diff)
	}
	// The server writes a record of running transactions now and then by itself.
	grown := after.Log - before.Log
	if limit := 2048 + int64(idleFor.Seconds()/15)*128; grown > limit {
		t.Errorf("an idle stream let the log grow by %d bytes in %v, want %d at the most", grown, *idleFor, limit)
	}
	t.Logf("in %v of idleness nothing was saved, and the log grew by %d bytes", *idleFor, grown)
	r.drain(t)
}
