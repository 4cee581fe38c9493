package test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

var recoverRuns = flag.Int("recover.runs", 10, "slots that are lost and recovered under load")

// recover runs `outboxcdc recover` in the test's process.
func (l *line) recover(tb testing.TB) *pipeline.Recovery {
	tb.Helper()
	log := &syncBuffer{}
	done, err := pipeline.Recover(walContext(tb), make(chan struct{}), pipeline.RecoverConfig{Config: pipeline.Config{
		Wal:    wal.Config{Database: l.db.URL, Slot: l.slot, Publication: "outboxcdc", Tables: []wal.Table{{Schema: "public", Name: "outbox"}}},
		Sink:   "kafka://" + strings.Join(l.kafka.Bootstrap(), ","),
		Outbox: outbox.Config{Default: outbox.Mapping{Topic: l.topic}}, Logger: slog.New(slog.NewTextHandler(log, nil)),
	}})
	if err != nil {
		tb.Fatalf("recover: %v\n%s", err, log)
	}
	return done
}

func (l *line) recoverArgs() []string {
	return slices.Concat([]string{"recover", "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","), "--topic", l.topic}, l.flags)
}

// losses are ways in which a slot that nobody streams from is lost.
var losses = map[string][]string{
	"dropped":               {"select pg_drop_replication_slot('SLOT')"},
	"dropped and made anew": {"select pg_drop_replication_slot('SLOT')", "select pg_create_logical_replication_slot('SLOT', 'pgoutput')"},
	"advanced":              {"select pg_logical_emit_message(true, 'of a test', '')", "select pg_replication_slot_advance('SLOT', pg_current_wal_insert_lsn())"},
}

// lose loses the slot once nobody streams from it any more.
func (l *line) lose(tb testing.TB, statements []string) {
	tb.Helper()
	l.free(tb)
	for _, sql := range statements {
		l.exec(tb, strings.ReplaceAll(sql, "SLOT", l.slot))
	}
}

// TestARecoveryUnderLoadMissesNothingAndDoublesOnlyWhatWasInFlight loses the slot again
// and again, in one way or another, while writers go on and transactions stay open
// from before the loss until after the recovery has begun, and while the stream dies
// without draining.
func TestARecoveryUnderLoadMissesNothingAndDoublesOnlyWhatWasInFlight(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	ways := []string{"dropped", "dropped and made anew", "advanced"}
	stop := l.atRate(t, 500)
	limits := map[string]wal.LSN{} // of each recovery: where the saved position was
	var recovered int64
	for i := range *recoverRuns {
		looks := []time.Duration{20 * time.Millisecond, 2 * time.Second, time.Hour}[random.IntN(3)] // between snapshots
		r := l.run(t, func(c *pipeline.Config) { c.WatchInterval = looks })
		before := l.w.written.Load()
		eventually(t, time.Minute, "the service goes on writing", func() bool { return l.w.written.Load() > before+100+random.Int64N(400) })
		committed := l.longTransactions(t, random)
		r.abort()
		l.lose(t, losses[ways[random.IntN(len(ways))]])
		done := l.recover(t)
		committed()
		limits[done.Run] = done.Lost
		recovered += done.Sent
		if i%10 == 9 || i == *recoverRuns-1 {
			t.Logf("%d recoveries, %d events so far, %d of them sent from the table", i+1, l.w.written.Load(), recovered)
		}
	}
	stop()
	r := l.run(t)
	last := l.oneMore(t)
	eventually(t, 2*time.Minute, "the slot is confirmed up to the last event", func() bool { return !l.behind(t, last) })
	r.drain(t)
	doubled := l.checkRecovered(t, limits)
	t.Logf("%d recoveries: %d events, %d doubled", *recoverRuns, l.w.written.Load(), doubled)
}

// sampled waits until a snapshot is known to be delivered.
func (l *line) sampled(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, "a snapshot is delivered", func() (known bool) {
		l.ask(t, "select delivered is not null from outboxcdc.checkpoint where slot = $1", &known, l.slot)
		return known
	})
}

// longTransactions opens transactions that have written, and commits each at its own
// time, at the latest a second from now; the function waits for that.
func (l *line) longTransactions(t *testing.T, random *rand.Rand) (committed func()) {
	t.Helper()
	const n = 3
	ended := make(chan error, n)
	ctx := context.Background()
	for range n {
		conn, err := l.db.Server.Connect(ctx, l.db.Name)
		if err != nil {
			t.Fatal(err)
		}
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		written, err := l.w.insert(ctx, tx, l.w.pick(random, 1), 1+random.IntN(3))
		if err != nil {
			t.Fatal(err)
		}
		timer := time.NewTimer(rand.N(time.Second))
		go func() {
			<-timer.C
			err := tx.Commit(ctx)
			if err == nil {
				l.w.written.Add(written)
			}
			conn.Close(ctx) //nolint:errcheck // the server goes with the test
			ended <- err
		}()
	}
	return func() {
		t.Helper()
		for range n {
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkRecovered: each aggregate's events are all there, first occurrences in order.
// One that came twice was streamed and then recovered, and it was committed behind the
// saved position: it was in flight when the slot was lost.
func (l *line) checkRecovered(t *testing.T, limits map[string]wal.LSN) (doubled int) {
	t.Helper()
	seen := map[string]int64{}
	first := map[string]sent{}
	highest := make([]string, streamPartitions)
	for _, r := range l.kafka.Records(t, l.topic) {
		s, n := sentAs(r), numberOf(t, r)
		if n <= seen[s.key] {
			before := first[fmt.Sprintf("%s#%d", s.key, n)]
			doubled++
			switch {
			case before.replay == "" && s.replay == "" && before.position == s.position: // a session that broke
			case before.replay == "" && s.replay != "" && commitOf(t, before.position) >= limits[s.replay]:
			default:
				t.Fatalf("event %d of %s came at %s by %q and again at %s by %q, where everything before %v was saved as delivered",
					n, s.key, before.position, before.replay, s.position, s.replay, limits[s.replay])
			}
			continue
		}
		if n != seen[s.key]+1 {
			t.Fatalf("event %d of %s came after event %d, at %s by %q", n, s.key, seen[s.key], s.position, s.replay)
		}
		if padded := padPosition(t, s.position); padded <= highest[r.Partition] {
			t.Fatalf("event %d of %s at %s came after %s", n, s.key, s.position, highest[r.Partition])
		} else {
			highest[r.Partition] = padded
		}
		seen[s.key] = n
		first[fmt.Sprintf("%s#%d", s.key, n)] = s
	}
	for id, last := range l.w.last(t) {
		if seen[id] != last {
			t.Errorf("aggregate %s: the topic holds events up to %d, the table %d", id, seen[id], last)
		}
	}
	return doubled
}

// TestARecoveryThatDiesAtAnyStepIsBegunAnew kills the recovery at each of its steps; a
// stream is refused until another one has come to its end.
func TestARecoveryThatDiesAtAnyStepIsBegunAnew(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	for _, point := range []failpoint.Point{
		failpoint.RecoverSlotGone, failpoint.RecoverSlotMade, failpoint.AfterReceive, failpoint.AfterSend, failpoint.AfterAck,
		failpoint.RecoverSent, failpoint.RecoverSaved,
	} {
		r := l.run(t)
		if err := l.w.write(walContext(t), 500, 2); err != nil {
			t.Fatal(err)
		}
		l.sampled(t)
		r.abort()
		l.lose(t, losses["dropped and made anew"])
		if err := l.w.write(walContext(t), 500, 2); err != nil {
			t.Fatal(err)
		}
		dying(t, point, l.recoverArgs()).dies(t)
		if point == failpoint.RecoverSaved {
			got := command(t, nil, l.recoverArgs()...)
			wantRefusal(t, got, fault.ExitOperator, "it is sound")
			continue
		}
		wantClass(t, l.begin(t).end(t), fault.Operator, l.slot)
		l.recover(t)
	}
	r := l.run(t)
	last := l.oneMore(t)
	eventually(t, time.Minute, "the slot is confirmed up to the last event", func() bool { return !l.behind(t, last) })
	r.drain(t)
	l.checkComplete(t)
}

// checkComplete: every event is there, first occurrences of an aggregate in order.
func (l *line) checkComplete(t *testing.T) {
	t.Helper()
	seen := map[string]int64{}
	for _, r := range l.kafka.Records(t, l.topic) {
		id, n := string(r.Key), numberOf(t, r)
		if n > seen[id]+1 {
			t.Fatalf("event %d of %s came after event %d", n, id, seen[id])
		}
		seen[id] = max(seen[id], n)
	}
	for id, last := range l.w.last(t) {
		if seen[id] != last {
			t.Errorf("aggregate %s: the topic holds events up to %d, the table %d", id, seen[id], last)
		}
	}
}

func TestARecoveryOfASlotThatIsSoundOrUnknownIsRefused(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	wantRefusal(t, command(t, nil, l.recoverArgs()...), fault.ExitOperator, "no position is saved")
	r := l.run(t)
	l.insert(t, "a", `{"n": 1}`)
	l.settle(t)
	got := command(t, nil, l.recoverArgs()...)
	if got.exit != fault.ExitTransient || !strings.Contains(got.errors, "is held by") {
		t.Errorf("recover of a slot in use ended with %d:\n%s", got.exit, got.errors)
	}
	r.drain(t)
	wantRefusal(t, command(t, nil, l.recoverArgs()...), fault.ExitOperator, "it is sound")
	before := l.slotText(t, "confirmed_flush_lsn")
	mustRun(t, append(l.recoverArgs(), "--anew")...)
	if after := l.slotText(t, "confirmed_flush_lsn"); after == before {
		t.Errorf("the slot still stands at %s, want another", after)
	}
	l.exec(t, "update outboxcdc.checkpoint set delivered = null, delivered_lsn = null, delivered_at = null")
	l.exec(t, "delete from outboxcdc.history")
	l.lose(t, losses["dropped"])
	wantRefusal(t, command(t, nil, l.recoverArgs()...), fault.ExitOperator, "is not known in terms of transactions", "--everything")
	out := mustRun(t, append(l.recoverArgs(), "--everything")...)
	var rows int
	l.ask(t, "select count(*) from outbox", &rows)
	if !strings.Contains(out, fmt.Sprintf("sent %d rows", rows)) {
		t.Errorf("of %d rows:\n%s", rows, out)
	}
	r = l.run(t)
	l.insert(t, "a", `{"n": 2}`)
	l.awaitValues(t, "a", `{"n": 2}`)
	r.drain(t)
}

// A publication that is sound again after it left inserts out for a while: nothing of the
// slot shows that, and what it left out is in the table alone.
func TestWhatAnAlteredPublicationLeftOutIsRecovered(t *testing.T) {
	t.Parallel()
	l, r := delivering(t)
	for _, statement := range []string{
		"begin",
		"alter publication outboxcdc set (publish = 'delete')",
		`insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'a', 'raised', '{"n": 2}')`,
		"alter publication outboxcdc set (publish = 'insert')",
		"commit",
	} {
		l.exec(t, statement)
	}
	wantClass(t, r.end(t), fault.Operator, "was altered", "recover --slot "+l.slot+" --anew", "where all was well")
	mustRun(t, append(l.recoverArgs(), "--anew")...)
	l.wantAllUpTo(t, 3)
}

// A column xid that was added to a table of one's own is NULL in the rows that were there.
// Some of them may wait in the slot that is lost.
func TestARecoveryDoesNotPassRowsThatDoNotTellTheirTransaction(t *testing.T) {
	t.Parallel()
	l, r := delivering(t)
	l.sampled(t)
	r.drain(t)
	l.exec(t, "alter table outbox alter xid drop not null")
	l.exec(t, `insert into outbox (aggregate_type, aggregate_id, event_type, payload, xid) values ('order', 'a', 'raised', '{"n": 2}', null)`)
	l.lose(t, losses["dropped"])
	wantRefusal(t, command(t, nil, l.recoverArgs()...), fault.ExitOperator, "rows without a value in xid", "--everything", "UPDATE public.outbox SET xid")
	l.exec(t, "update outbox set xid = pg_current_xact_id() where xid is null")
	mustRun(t, l.recoverArgs()...)
	l.awaitValues(t, "a", `{"n": 2}`)
}

// TestASlotThatIsLostBeforeAnythingWasDeliveredIsRecovered loses the slot when nothing
// but its beginning was saved, and no snapshot was delivered.
func TestASlotThatIsLostBeforeAnythingWasDeliveredIsRecovered(t *testing.T) {
	t.Parallel()
	for name, ours := range map[string]bool{"a slot that init made": false, "a slot that the stream made": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.SharedPostgres(t)
			applies(t, db.Conn(t), outboxes("outbox"), made("0002_outbox public.outbox")...)
			l := bareLine(t, db, servers.SharedKafka(t), walName("line"))
			l.insert(t, "a", `{"n": 1}`) // before there was a slot
			mustRun(t, append([]string{"init"}, l.flags...)...)
			if ours {
				l.exec(t, "select pg_drop_replication_slot($1)", l.slot)
			} else {
				l.insert(t, "a", `{"n": 2}`)
			}
			never := func(c *pipeline.Config) {
				c.SaveInterval, c.WatchInterval, c.DrainTimeout = time.Hour, time.Hour, time.Nanosecond
			}
			l.run(t, never).abort()
			l.lose(t, losses["dropped"])
			l.insert(t, "a", `{"n": 3}`)
			done := l.recover(t)
			if !done.From.Known() {
				t.Error("it is not known what was there before the slot")
			}
			r := l.run(t)
			l.insert(t, "a", `{"n": 4}`)
			l.awaitValues(t, "a", `{"n": 4}`)
			r.drain(t)
			want := []string{`{"n": 2}`, `{"n": 3}`, `{"n": 4}`}
			if ours {
				want = want[1:]
			}
			// Where another slot of the cluster lags, what was there before may come too.
			got := slices.DeleteFunc(l.firstValues(t), func(v string) bool { return v == `{"n": 1}` })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the topic (-want +got):\n%s", diff)
			}
		})
	}
}

// firstValues are the values on the topic, without those that come again.
func (l *line) firstValues(tb testing.TB) (values []string) {
	tb.Helper()
	for _, r := range l.kafka.Records(tb, l.topic) {
		if v := string(r.Value); !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	return values
}
