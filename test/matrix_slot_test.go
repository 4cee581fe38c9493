package test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// slotText is a column of the slot's row as text.
func (l *line) slotText(tb testing.TB, column string) string {
	tb.Helper()
	var text string
	l.ask(tb, "select coalesce("+column+"::text, '') from pg_replication_slots where slot_name = $1", &text, l.slot)
	return text
}

// settledAndStopped is a line that has streamed an event and is stopped in order.
func settledAndStopped(tb testing.TB, db *servers.Database) *line {
	tb.Helper()
	l := tableLine(tb, db, looseOutbox)
	r := l.run(tb)
	l.insert(tb, "a", "1")
	l.settle(tb)
	r.drain(tb)
	l.free(tb)
	return l
}

func TestASlotThatSomebodyAdvancedIsRefusedWithItsGap(t *testing.T) {
	l := settledAndStopped(t, servers.SharedPostgres(t))
	saved := l.saved(t)
	l.insert(t, "a", "2")
	l.exec(t, "select pg_replication_slot_advance($1, pg_current_wal_insert_lsn())", l.slot)
	advanced := l.slotText(t, "confirmed_flush_lsn")
	wantClass(t, l.begin(t).end(t), fault.Operator, "moved or made anew", "between "+saved+" and "+advanced, "outboxcdc recover --slot "+l.slot, "--accept-gap "+saved)
	if diff := cmp.Diff(map[string][]string{"a": {"1"}}, l.values(t)); diff != "" {
		t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
	}
	// The way on that the error names, for who accepts the gap.
	r := l.run(t, accepting(t, saved))
	l.insert(t, "a", "3")
	l.awaitValues(t, "a", "3")
	r.drain(t)
	l.acceptedGap(t, r, saved, advanced)
}

// accepting is --accept-gap.
func accepting(tb testing.TB, position string) func(*pipeline.Config) {
	tb.Helper()
	lsn, err := wal.ParseLSN(position)
	if err != nil {
		tb.Fatal(err)
	}
	return func(c *pipeline.Config) { c.AcceptGap = lsn }
}

// acceptedGap wants the gap in the log and in the history, once. An empty end is one
// that only the history tells.
func (l *line) acceptedGap(tb testing.TB, r *running, from, to string) {
	tb.Helper()
	if log := r.log.String(); strings.Count(log, "a gap was accepted") != 1 || !strings.Contains(log, "from="+from) || !strings.Contains(log, " to="+to) {
		tb.Errorf("the log does not tell of the gap from %s to %s:\n%s", from, to, log)
	}
	got := firstColumn(tb, l.sql, `select concat_ws(' ', gap->>'from', nullif(gap->>'to', case when $2 = '' then gap->>'to' end), age(now(), saved_at) < interval '5 minutes', gap->'after'->>'snapshot' > '')
		from outboxcdc.history where slot = $1 and gap is not null`, l.slot, to)
	if want := []string{strings.Join(slices.DeleteFunc([]string{from, to, "t t"}, func(s string) bool { return s == "" }), " ")}; !slices.Equal(got, want) {
		tb.Errorf("the history holds the gaps %q, want %q", got, want)
	}
}

func TestASlotThatConfirmedWhatWasNeverWrittenIsCalledSo(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]bool{"with a saved position": false, "at a first start": true} {
		t.Run(name, func(t *testing.T) {
			l := settledAndStopped(t, servers.SharedPostgres(t))
			l.confirmTooMuch(t)
			if forget {
				l.exec(t, "delete from outboxcdc.checkpoint where slot = $1", l.slot)
			}
			wantClass(t, l.begin(t).end(t), fault.Operator, l.slotText(t, "confirmed_flush_lsn"), "beyond the end of the log", map[bool]string{false: "outboxcdc recover --slot " + l.slot, true: "outboxcdc drop --slot " + l.slot}[forget])
		})
	}
}

// confirmTooMuch is another client that confirms what was never written. The server
// checks nothing: a start ahead of its log is told as confirmed with the first status.
func (l *line) confirmTooMuch(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(walContext(tb))
	defer cancel()
	config := wal.Config{Database: l.db.URL, Slot: l.slot, Publication: "outboxcdc", Tables: []wal.Table{walTable("outbox")}}
	conn, err := wal.Connect(ctx, config)
	if err != nil {
		tb.Fatal(err)
	}
	identity, err := conn.Identify(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	stream, err := conn.Start(ctx, identity.Flush+1<<30)
	if err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx, nil, make(chan wal.Batch, 100)) }()
	beyond := (identity.Flush + 1<<29).String()
	eventually(tb, time.Minute, "the slot is ahead of the log", func() bool { return !l.behind(tb, beyond) })
	cancel()
	if err := <-ended; err != nil {
		tb.Fatal(err)
	}
	l.free(tb)
}

// Postgres 15 says that a slot is lost and not why, and 17 and 18 say it in words of
// their own.
func TestASlotThatIsLostEndsTheStreamAndNamesTheGap(t *testing.T) {
	for _, major := range []int{15, 17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			lostSlotStory(t, major)
		})
	}
}

func lostSlotStory(t *testing.T, major int) {
	t.Helper()
	server := servers.Postgres(t, servers.Major(major), servers.Setting("max_slot_wal_keep_size", "1MB"),
		servers.Setting("min_wal_size", "32MB"), servers.Setting("max_wal_size", "32MB"))
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	l.exec(t, "create table filler (x text)")
	s := l.stream(t)
	l.insert(t, "a", "1")
	l.settle(t)
	l.loseSlot(t)
	live := s.await(t)
	saved := l.saved(t)
	l.insert(t, "a", "2")
	cold := l.stream(t)
	for when, s := range map[string]*streamer{"live": s, "cold": cold} {
		s.await(t)
		for _, say := range []string{"slot " + l.slot, "invalidated", "after ", "outboxcdc recover --slot " + l.slot} {
			if !strings.Contains(s.log.String(), say) {
				t.Errorf("%s: the streamer does not say %q:\n%s", when, say, s.log)
			}
		}
	}
	if again := cold.cmd.ProcessState.ExitCode(); live != fault.ExitOperator || again != fault.ExitOperator {
		t.Errorf("exit status %d live and %d cold, want %d", live, again, fault.ExitOperator)
	}
	if n := strings.Count(s.log.String(), "another follows"); n > 5 {
		t.Errorf("%d sessions followed the loss of the slot, want an end at once:\n%s", n, s.log)
	}
	if !strings.Contains(cold.log.String(), "committed after "+saved) || !strings.Contains(cold.log.String(), "--accept-gap "+saved) {
		t.Errorf("cold, it does not name %s, up to which all was sent:\n%s", saved, cold.log)
	}
	r := l.run(t, accepting(t, saved))
	l.insert(t, "a", "3")
	l.awaitValues(t, "a", "3")
	r.drain(t)
	if diff := cmp.Diff([]string{"1", "3"}, l.values(t)["a"]); diff != "" {
		t.Errorf("behind the accepted gap the topic holds (-want +got):\n%s", diff)
	}
	l.acceptedGap(t, r, saved, "")
}

// loseSlot lets the server remove log that the slot needs.
func (l *line) loseSlot(tb testing.TB) {
	tb.Helper()
	// A transaction that stays open keeps the server reading from where it began.
	idle := l.db.Server.Conn(tb, l.db.Name)
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
}

// saved is the saved position.
func (l *line) saved(tb testing.TB) (position string) {
	tb.Helper()
	l.ask(tb, "select lsn::text from outboxcdc.checkpoint where slot = $1", &position, l.slot)
	return position
}

func TestASlotThatWasIdleTooLongIsWarnedOfAndRefused(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t, servers.Major(18), servers.Setting("idle_replication_slot_timeout", "1s"))
	l := settledAndStopped(t, server.Database(t))
	out, status := outboxcdc(t, append([]string{"check", "--sink", "stdout://"}, l.flags...)...)
	if status != 0 || !strings.Contains(out, "idle_replication_slot_timeout") {
		t.Errorf("check ended with %d and does not warn:\n%s", status, out)
	}
	eventually(t, time.Minute, "the slot is lost", func() bool {
		l.exec(t, "checkpoint")
		return l.slotText(t, "invalidation_reason") != ""
	})
	wantClass(t, l.begin(t).end(t), fault.Operator, "idle_timeout", "committed after "+l.saved(t))
}

func TestAPublicationThatIsDroppedHaltsTheStreamBeforeTheNextRow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		major int
		say   string
	}{
		"where the server refuses": {15, "42704"},
		"where the server skips":   {18, "the server skips rows of publication outboxcdc"},
	} {
		t.Run(name, func(t *testing.T) {
			l := tableLine(t, servers.Postgres(t, servers.Major(c.major)).Database(t), looseOutbox)
			r := l.run(t, seldomWatched)
			l.insert(t, "a", "1")
			l.settle(t)
			l.exec(t, "drop publication outboxcdc")
			l.insert(t, "a", "2")
			after := l.end(t)
			wantClass(t, r.end(t), fault.Operator, c.say)
			if !l.behind(t, after) {
				t.Errorf("the slot is confirmed up to %s, past the row that was not sent", after)
			}
			if diff := cmp.Diff(map[string][]string{"a": {"1"}}, l.values(t)); diff != "" {
				t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATableThatLeavesThePublicationHaltsTheStreamWithTheWindow(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"removed":        "alter publication outboxcdc drop table outbox",
		"made anew":      "begin; drop table outbox; " + looseOutbox + "; commit",
		"and comes back": "begin; alter publication outboxcdc drop table outbox; alter publication outboxcdc add table outbox; commit",
	} {
		t.Run(name, func(t *testing.T) {
			l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
			r := l.run(t)
			l.insert(t, "a", "1")
			l.settle(t)
			l.exec(t, sql)
			left := l.end(t)
			err := r.end(t)
			wantClass(t, err, fault.Operator, "public.outbox", "where all was well")
			before, _, _ := strings.Cut(err.Error(), ", where all was well")
			well := before[strings.LastIndex(before, " ")+1:]
			at, parseErr := wal.ParseLSN(well)
			until, leftErr := wal.ParseLSN(left)
			if parseErr != nil || leftErr != nil || at >= until {
				t.Errorf("the window begins at %q, want a position before %s: %v, %v", well, left, parseErr, leftErr)
			}
		})
	}
}

// What happens while nobody looks is found by the next session: a table that left and
// came back looks sound again.
func TestATableThatLeftThePublicationBetweenTwoSessionsIsFound(t *testing.T) {
	db := servers.SharedPostgres(t)
	l := tableLine(t, db, looseOutbox)
	proxy := servers.NewProxy(t, db.Server.Address())
	r := l.run(t, func(c *pipeline.Config) { c.Wal.Database = l.through(t, proxy) })
	l.insert(t, "a", "1")
	l.settle(t)
	proxy.Refuse()
	proxy.Cut()
	eventually(t, time.Minute, "the session has ended", func() bool { return strings.Contains(r.log.String(), "another follows") })
	l.exec(t, "alter publication outboxcdc drop table outbox")
	l.insert(t, "a", "2")
	l.exec(t, "alter publication outboxcdc add table outbox")
	proxy.Accept(t)
	wantClass(t, r.end(t), fault.Operator, "left the publication and came back", "where all was well")
}

func TestAnOpenTransactionHoldsTheLogAndNotTheConfirm(t *testing.T) {
	t.Parallel()
	l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
	r := l.run(t)
	idle := l.db.Server.Conn(t, l.db.Name)
	if _, err := idle.Exec(walContext(t), "begin; insert into outbox (aggregate_id) values ('never committed')"); err != nil {
		t.Fatal(err)
	}
	opened := l.end(t)
	for range 3 { // each checkpoint logs what is running, from where the slot could start over
		l.insert(t, "a", "1")
		l.exec(t, "checkpoint")
		l.settle(t)
	}
	var held bool
	l.ask(t, "select restart_lsn < $2::pg_lsn and confirmed_flush_lsn > $2::pg_lsn from pg_replication_slots where slot_name = $1", &held, l.slot, opened)
	if !held {
		t.Errorf("the slot restarts at %s and is confirmed up to %s, want the transaction's beginning before %s and more than that",
			l.slotText(t, "restart_lsn"), l.slotText(t, "confirmed_flush_lsn"), opened)
	}
	if _, err := idle.Exec(walContext(t), "rollback"); err != nil {
		t.Fatal(err)
	}
	r.drain(t)
}

func TestASlotNameThatIsNoNameReachesNoServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // it only listens
	var calls atomic.Int32
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			conn.Close()
		}
	}()
	database := "postgres://postgres@" + listener.Addr().String() + "/postgres?sslmode=disable"
	for _, slot := range []string{`x'; drop table outbox; --`, `x" logical 0/0 (`, "a b", "Orders", "ä", "x\ny", strings.Repeat("x", 64)} {
		for _, args := range [][]string{
			{"stream", "--sink", "stdout://", "--http", "off"}, {"init"}, {"init", "--print-sql"}, {"check", "--sink", "stdout://"},
		} {
			got := command(t, nil, append(args, "--slot", slot, "--database-url", database)...)
			wantRefusal(t, got, fault.ExitUsage, "is not a slot name", "lower-case letters")
			if got.out != "" {
				t.Errorf("%s with the slot %q prints %q", args[0], slot, got.out)
			}
		}
	}
	if n := calls.Load(); n > 0 {
		t.Errorf("%d connections were made, want none", n)
	}
}

func TestCheckFindsEverythingThatIsBrokenAtOnce(t *testing.T) {
	l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
	for _, sql := range []string{
		"create table other ()",
		"alter table outbox drop constraint outbox_pkey, drop headers, drop payload, add payload text generated always as (event_type) stored, add headers jsonb, alter aggregate_id type float8 using 0",
		"create publication outboxcdc for table other, outbox with (publish = 'update')",
	} {
		l.exec(t, sql)
	}
	l.exec(t, "select pg_create_physical_replication_slot($1)", l.slot)
	out, status := outboxcdc(t, append([]string{
		"check", "--json", "--topic", "nobody.made.this",
		"--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","),
	}, l.flags...)...)
	if status != fault.ExitOperator {
		t.Errorf("exit status %d, want %d", status, fault.ExitOperator)
	}
	for _, say := range []string{
		wal.CodeColumnGenerated, wal.CodeColumnType, wal.CodePublicationInsert, wal.CodePublicationOthers,
		wal.CodePublicationIdentity, wal.CodeSlotForeign, "nobody.made.this",
	} {
		if !strings.Contains(out, say) {
			t.Errorf("check does not speak of %s:\n%s", say, out)
		}
	}
	if n, fixes := strings.Count(out, `"severity": "failure"`), strings.Count(out, `"fix"`); n < 4 || fixes < 7 {
		t.Errorf("%d failures and %d fixes, want all of them:\n%s", n, fixes, out)
	}
}
