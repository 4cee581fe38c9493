package test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// Whole stories, from the fault to the complete topic: the stream is refused with the
// command that helps, that command is run, and the stream goes on.

// incidents lose a slot. Those of a slot that is lost while nobody streams begin
// behind a stop.
var incidents = []struct {
	name string
	live bool // the stream runs when it happens
	sql  []string
}{
	{name: "dropped", sql: losses["dropped"]},
	{name: "dropped and made anew", sql: losses["dropped and made anew"]},
	{name: "advanced", sql: losses["advanced"]},
	{name: "invalidated cold"},
	{name: "invalidated live", live: true},
}

func TestEachLossOfASlotIsRefusedAndRecoveredOnEachVersion(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17, 18} {
		t.Run(fmt.Sprintf("Postgres %d", major), func(t *testing.T) {
			t.Parallel()
			server := servers.Postgres(t, servers.Major(major), servers.Setting("min_wal_size", "32MB"), servers.Setting("max_wal_size", "32MB"))
			l := newLine(t, server.Database(t), servers.SharedKafka(t))
			l.exec(t, "create table filler (x text)")
			for _, incident := range incidents {
				r := l.run(t)
				l.work(t)
				l.sampled(t)
				if !incident.live {
					l.settleWork(t)
					r.drain(t)
				}
				if incident.sql != nil {
					l.lose(t, incident.sql)
				} else {
					l.invalidate(t)
				}
				if incident.live {
					wantClass(t, r.end(t), fault.Operator, "invalidated")
				}
				l.work(t)
				got := command(t, nil, append([]string{"stream", "--http", "off", "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","), "--topic", l.topic}, l.flags...)...)
				if got.exit != fault.ExitOperator || !strings.Contains(got.errors, "run outboxcdc recover --slot "+l.slot) {
					t.Fatalf("%s: the stream ended with %d:\n%s", incident.name, got.exit, got.errors)
				}
				out := mustRun(t, l.recoverArgs()...)
				t.Logf("%s: %s", incident.name, strings.SplitN(out, "\n", 3)[1])
			}
			r := l.run(t)
			l.work(t)
			l.settleWork(t)
			r.drain(t)
			l.checkComplete(t)
		})
	}
}

// work commits some events.
func (l *line) work(tb testing.TB) {
	tb.Helper()
	if err := l.w.write(walContext(tb), 300, 2); err != nil {
		tb.Fatal(err)
	}
}

// settleWork waits until the slot is confirmed past everything committed so far.
func (l *line) settleWork(t *testing.T) {
	t.Helper()
	last := l.oneMore(t)
	eventually(t, time.Minute, "the slot is confirmed up to the last event", func() bool { return !l.behind(t, last) })
}

// invalidate makes the server give the slot up, by max_slot_wal_keep_size.
func (l *line) invalidate(tb testing.TB) {
	tb.Helper()
	idle := l.db.Server.Conn(tb, l.db.Name)
	for _, sql := range []string{"alter system set max_slot_wal_keep_size = '1MB'", "select pg_reload_conf()"} {
		l.exec(tb, sql)
	}
	// A transaction that stays open keeps the server reading from where it began.
	if _, err := idle.Exec(walContext(tb), "begin; insert into filler values ('held')"); err != nil {
		tb.Fatal(err)
	}
	eventually(tb, time.Minute, "the slot is lost", func() bool {
		l.exec(tb, "insert into filler values ('a segment has something in it, or is not switched')")
		l.exec(tb, "select pg_switch_wal()")
		l.exec(tb, "checkpoint")
		return l.slotText(tb, "wal_status") == "lost"
	})
	if _, err := idle.Exec(walContext(tb), "rollback"); err != nil {
		tb.Fatal(err)
	}
	for _, sql := range []string{"alter system reset max_slot_wal_keep_size", "select pg_reload_conf()"} {
		l.exec(tb, sql)
	}
}

// TestARestoredDatabaseIsRecovered restores the database to an earlier state, with the
// saved position in a file that knows more than the database, and with one in the
// database that went back with it.
func TestARestoredDatabaseIsRecovered(t *testing.T) {
	t.Parallel()
	for name, inFile := range map[string]bool{"position in a file": true, "position in the database": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := servers.Postgres(t)
			a := newAddress(t, primary.Database(t))
			var where []string
			if inFile {
				where = a.inFile()
			}
			for range 2 { // the second session's history begins with a delivered snapshot
				s := a.start(t, where...)
				a.work(t)
				a.settleWork(t)
				eventually(t, time.Minute, "a snapshot is delivered", func() bool { return a.showsDelivered(t, where) })
				s.wantStop(t)
			}
			snapshot := primary.Snapshot(t)
			a.sql = primary.Conn(t, a.db.Name)
			s := a.start(t, where...)
			a.work(t) // which the restore loses
			a.settleWork(t)
			s.wantStop(t)
			primary.Stop(t, servers.Fast)
			snapshot.Restore(t)
			a.switchTo(t, snapshot)
			a.work(t)
			a.start(t, where...).wantEnd(t, "run outboxcdc recover --slot "+a.slot)
			args := slices.Concat([]string{
				"recover", "--slot", a.slot, "--database-url", a.address(t), "--topic", a.topic,
				"--sink", "kafka://" + strings.Join(a.kafka.Bootstrap(), ","),
			}, where)
			t.Logf("%s", mustRun(t, args...))
			s = a.start(t, where...)
			a.work(t)
			a.settleWork(t)
			s.wantStop(t)
			a.checkIDs(t)
		})
	}
}

// showsDelivered says whether a snapshot is saved as delivered.
func (a *address) showsDelivered(tb testing.TB, where []string) (known bool) {
	tb.Helper()
	if len(where) == 0 {
		a.ask(tb, "select delivered is not null from outboxcdc.checkpoint where slot = $1", &known, a.slot)
		return known
	}
	content, err := os.ReadFile(a.file)
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Contains(string(content), `"snapshot"`)
}

// address is the database's URL by way of the proxy.
func (a *address) address(tb testing.TB) string {
	tb.Helper()
	at, err := url.Parse(a.db.URL)
	if err != nil {
		tb.Fatal("the test database has no URL that parses")
	}
	at.Host = a.proxy.Addr()
	if a.user != nil {
		at.User = a.user
	}
	return at.String()
}

// checkIDs: the event of each row is on the topic.
func (l *line) checkIDs(tb testing.TB) {
	tb.Helper()
	there := map[string]bool{}
	for _, r := range l.kafka.Records(tb, l.topic) {
		there[headerOf(tb, r, "id")] = true
	}
	rows, err := l.sql.Query(walContext(tb), "select id::text from outbox")
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			tb.Fatal(err)
		}
		n++
		if !there[id] {
			tb.Errorf("the event %s is not on the topic", id)
		}
	}
	if rows.Err() != nil || n == 0 {
		tb.Errorf("%d rows were looked for: %v", n, rows.Err())
	}
}

// TestAClusterThatWasSwappedBackGoesOn puts another cluster behind the address, and the
// right one again.
func TestAClusterThatWasSwappedBackGoesOn(t *testing.T) {
	t.Parallel()
	right, wrong := servers.Postgres(t), servers.Postgres(t)
	a := newAddress(t, right.Database(t))
	a.twin(t, wrong)
	s := a.start(t, a.inFile()...)
	a.work(t)
	a.settleWork(t)
	s.wantStop(t)
	wrong.CreateDatabase(t, a.db.Name)
	a.proxy.SetTarget(wrong.Address())
	a.proxy.Cut()
	a.work(t)
	a.start(t, a.inFile()...).wantEnd(t, "cluster")
	got := command(t, nil, slices.Concat([]string{
		"recover", "--slot", a.slot, "--database-url", a.address(t), "--topic", a.topic,
		"--sink", "kafka://" + strings.Join(a.kafka.Bootstrap(), ","),
	}, a.inFile())...)
	wantRefusal(t, got, fault.ExitOperator, "cluster")
	a.proxy.SetTarget(right.Address())
	s = a.start(t, a.inFile()...)
	a.work(t)
	a.delivered(t)
	s.wantStop(t)
}

// TestASavedPositionThatIsGoneIsToldWhereverItWas loses what is saved, in each store:
// the row, the file, the topic. The next start is no first start, although nothing is
// saved; accepted, it goes on from the slot, and what was sent is not sent again but for
// what a save was late for.
func TestASavedPositionThatIsGoneIsToldWhereverItWas(t *testing.T) {
	t.Parallel()
	kafka := servers.SharedKafka(t)
	for name, store := range map[string]func(t *testing.T, l *line) (url string, lose func()){
		"database": func(t *testing.T, l *line) (string, func()) {
			t.Helper()
			return "database", func() {
				l.exec(t, "delete from outboxcdc.checkpoint")
				l.exec(t, "delete from outboxcdc.history")
			}
		},
		"file": func(t *testing.T, _ *line) (string, func()) {
			t.Helper()
			path := filepath.Join(t.TempDir(), "position.json")
			return "file://" + path, func() {
				for _, file := range []string{path, path + ".history"} {
					if err := os.Remove(file); err != nil {
						t.Fatal(err)
					}
				}
			}
		},
		"topic": func(t *testing.T, l *line) (string, func()) {
			t.Helper()
			topic := "positions-" + l.slot
			return "kafka://" + strings.Join(kafka.Bootstrap(), ",") + "/" + topic + "?create=true", func() {
				if _, err := kadm.NewClient(kafka.Client(t)).DeleteTopic(walContext(t), topic); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, servers.SharedPostgres(t), kafka)
			place, lose := store(t, l)
			where := func(c *pipeline.Config) { c.Checkpoint = place }
			r := l.run(t, where)
			l.work(t)
			l.settleWork(t)
			r.drain(t)
			lose()
			l.work(t)
			stands := l.slotText(t, "confirmed_flush_lsn")
			args := slices.Concat([]string{
				"stream", "--http", "off", "--sink", "kafka://" + strings.Join(kafka.Bootstrap(), ","), "--topic", l.topic, "--checkpoint", place,
			}, l.flags)
			wantRefusal(t, command(t, nil, args...), fault.ExitOperator, "no position is saved, but slot "+l.slot, "--accept-gap "+stands)
			r = l.run(t, where, accepting(t, stands))
			l.work(t)
			l.settleWork(t)
			r.drain(t)
			l.checkComplete(t)

			lose()
			l.lose(t, losses["dropped"])
			wantRefusal(t, command(t, nil, args...), fault.ExitOperator, "is gone too", "outboxcdc drop")
			drop := slices.Concat([]string{"drop", "--yes", l.slot, "--checkpoint", place}, l.flags)
			if out := mustRun(t, drop...); !strings.Contains(out, "removed the note that it was streamed from") {
				t.Errorf("drop of a slot that is gone said:\n%s", out)
			}
			r = l.run(t, where) // a first start
			l.work(t)
			l.settleWork(t)
			r.drain(t)
		})
	}
}
