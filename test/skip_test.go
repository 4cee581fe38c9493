package test

import (
	"encoding/json"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestPeekShowsWhatWaitsAndMovesNothing(t *testing.T) {
	t.Parallel()
	l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
	r := l.run(t)
	l.insert(t, "a", "1")
	l.settle(t)
	r.drain(t)
	l.exec(t, "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'waits', 'e', 'a payload'), ('order', '', 'e', null)")
	before := l.slotText(t, "confirmed_flush_lsn") + l.slotText(t, "restart_lsn")
	out := mustRun(t, append([]string{"peek"}, l.flags...)...)
	for _, say := range []string{"waits", "a payload", "it cannot be sent", "null or empty", "public.outbox"} {
		if !strings.Contains(out, say) {
			t.Errorf("peek does not say %q:\n%s", say, out)
		}
	}
	var row pipeline.WaitingRow
	first, _, _ := strings.Cut(mustRun(t, append([]string{"peek", "--json", "--limit", "1"}, l.flags...)...), "\n")
	if err := json.Unmarshal([]byte(first), &row); err != nil || row.Index != 0 || row.LSN == "" {
		t.Errorf("peek printed %q: %v", first, err)
	}
	if after := l.slotText(t, "confirmed_flush_lsn") + l.slotText(t, "restart_lsn"); after != before {
		t.Errorf("the slot stood at %s and stands at %s", before, after)
	}
}

func TestSkipPassesExactlyOneTransaction(t *testing.T) {
	t.Parallel()
	l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
	r := l.run(t)
	l.insert(t, "a", "1")
	l.insert(t, "", "poison")
	l.insert(t, "a", "2")
	l.insert(t, "", "poison too")
	l.insert(t, "a", "3")
	err := r.end(t)
	wantClass(t, err, fault.Data, "aggregate_id")
	first := poisonIn(t, err.Error())
	skip := func(env []string, args ...string) answer {
		return command(t, env, slices.Concat([]string{"skip"}, l.flags, args)...)
	}
	wantRefusal(t, skip(nil, "--lsn", first), fault.ExitOperator, "nothing was changed") // nobody answers
	wantRefusal(t, skip(nil, "--lsn", l.end(t), "--yes"), fault.ExitOperator, "")
	second := l.second(t)
	wantRefusal(t, skip(nil, "--lsn", second, "--yes"), fault.ExitOperator, "stands before it and was not sent")
	got := skip(nil, "--lsn", first, "--yes")
	if got.exit != 0 || !strings.Contains(got.out, "poison") || !strings.Contains(got.out, "skipped") {
		t.Fatalf("skip ended with %d and shows:\n%s%s", got.exit, got.out, got.errors)
	}
	wantRefusal(t, skip(nil, "--lsn", first, "--yes"), fault.ExitOperator, "behind the stream already")
	err = l.begin(t).end(t)
	wantClass(t, err, fault.Data, "aggregate_id")
	if at := poisonIn(t, err.Error()); at != second {
		t.Errorf("the stream halts at %s, want the second poison at %s", at, second)
	}
	if diff := gocmp.Diff(map[string][]string{"a": {"1", "2"}}, l.values(t)); diff != "" {
		t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
	}
	mustRun(t, slices.Concat([]string{"skip", "--lsn", second, "--yes"}, l.flags)...)
	r = l.run(t)
	l.awaitValues(t, "a", "3")
	r.drain(t)
	var audited int
	l.ask(t, "select count(*) from outboxcdc.history where slot = $1 and gap::text like '%skipped on request%'", &audited, l.slot)
	if audited != 2 {
		t.Errorf("the history tells of %d skips, want 2", audited)
	}
}

// poisonIn is the position that an error about a row names.
func poisonIn(tb testing.TB, text string) string {
	tb.Helper()
	m := regexp.MustCompile(`transaction \d+ at ([0-9A-F]+/[0-9A-F]+)`).FindStringSubmatch(text)
	if m == nil {
		tb.Fatalf("no position in %q", text)
	}
	return m[1]
}

// second is the position of the second transaction that cannot be sent.
func (l *line) second(tb testing.TB) string {
	tb.Helper()
	n := 0
	for text := range strings.Lines(mustRun(tb, append([]string{"peek", "--json"}, l.flags...)...)) {
		var row pipeline.WaitingRow
		if err := json.Unmarshal([]byte(text), &row); err != nil {
			tb.Fatal(err)
		}
		if row.Problem != "" {
			n++
			if n == 2 {
				return row.LSN
			}
		}
	}
	tb.Fatal("there is no second row that cannot be sent")
	return ""
}

func TestDropRemovesWhatIsTheStreamsAndNothingElse(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	r := l.run(t)
	l.insert(t, "a", "1")
	l.settle(t)
	mustRun(t, append([]string{"bookmark", "create", "mine"}, l.flags...)...)
	wantRefusal(t, command(t, nil, append([]string{"drop", "--yes", l.slot}, l.flags...)...), fault.ExitOperator, "in use by")
	r.drain(t)
	wantRefusal(t, command(t, nil, append([]string{"drop"}, l.flags...)...), fault.ExitOperator, "nothing was changed")
	wantRefusal(t, command(t, nil, append([]string{"drop", "--yes", "another"}, l.flags...)...), fault.ExitUsage, "different slots")
	other := walName("other")
	l.exec(t, "select pg_create_logical_replication_slot($1, 'pgoutput')", other)
	out := mustRun(t, append([]string{"drop", "--yes", l.slot}, l.flags...)...)
	for _, say := range []string{"removed slot " + l.slot, "removed slot " + l.slot + "__bookmark_mine", "removed saved position"} {
		if !strings.Contains(out, say) {
			t.Errorf("drop does not say %q:\n%s", say, out)
		}
	}
	left := func() (slots, publications, positions, history, rows int) {
		l.ask(t, "select count(*) from pg_replication_slots where database = current_database()", &slots)
		l.ask(t, "select count(*) from pg_publication", &publications)
		l.ask(t, "select count(*) from outboxcdc.checkpoint", &positions)
		l.ask(t, "select count(*) from outboxcdc.history", &history)
		l.ask(t, "select count(*) from outbox", &rows)
		return slots, publications, positions, history, rows
	}
	if slots, publications, positions, history, rows := left(); slots != 1 || publications != 1 || positions != 0 || history != 0 || rows == 0 {
		t.Errorf("left are %d slots, %d publications, %d positions, %d entries, %d rows; want the other slot, the publication it may need, and the rows",
			slots, publications, positions, history, rows)
	}
	l.exec(t, "select pg_drop_replication_slot($1)", other)
	mustRun(t, append([]string{"drop", "--yes", l.slot}, l.flags...)...)
	if _, publications, _, _, _ := left(); publications != 0 {
		t.Error("the publication that nobody reads with is left")
	}
}

// TestASkippedMessageLeavesWhatIsSaidOfRows skips a message outside of a transaction, which has
// no number to note.
func TestASkippedMessageLeavesWhatIsSaidOfRows(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	l.flags = append(l.flags, "--message-prefix", "outboxcdc")
	s := l.stream(t)
	l.insert(t, "a", "1")
	l.awaitStatuses(t, "SENT 1")
	l.exec(t, "select pg_logical_emit_message(false, 'outboxcdc', '[]')")
	status := s.await(t)
	if status != fault.ExitData {
		t.Fatalf("exit status %d, want %d", status, fault.ExitData)
	}
	mustRun(t, slices.Concat([]string{"skip", "--lsn", poisonIn(t, s.log.String()), "--yes"}, l.flags)...)
	l.awaitStatuses(t, "SENT 1")
	mustRun(t, slices.Concat([]string{"prune", "--older-than", "1h"}, l.flags)...)
	s = l.stream(t)
	l.insert(t, "a", "2")
	l.awaitValues(t, "a", "2")
	s.wantStop(t)
}

// TestASkipTakesNothingBack is approved when a stream has gone past the transaction.
func TestASkipTakesNothingBack(t *testing.T) {
	t.Parallel()
	l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
	r := l.run(t)
	l.insert(t, "a", "1")
	l.insert(t, "", "poison")
	at, err := wal.ParseLSN(poisonIn(t, r.end(t).Error()))
	if err != nil {
		t.Fatal(err)
	}
	config := pipeline.Config{
		Wal:    wal.Config{Database: l.db.URL, Slot: l.slot, Publication: "outboxcdc", Tables: []wal.Table{walTable("outbox")}},
		Logger: slog.New(slog.DiscardHandler),
	}
	var later string
	err = pipeline.Skip(walContext(t), config, at, func(pipeline.Poison) error {
		l.exec(t, "update outboxcdc.checkpoint set lsn = pg_current_wal_flush_lsn() where slot = $1", l.slot)
		l.ask(t, "select lsn::text from outboxcdc.checkpoint where slot = $1", &later, l.slot)
		return nil
	})
	wantClass(t, err, fault.Operator, "has changed meanwhile")
	var now string
	l.ask(t, "select lsn::text from outboxcdc.checkpoint where slot = $1", &now, l.slot)
	if now != later {
		t.Errorf("saved is %s, want what the stream saved, %s", now, later)
	}
}
