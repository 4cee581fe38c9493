package test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// looseOutbox is a table that a service made by itself and that refuses nothing.
const looseOutbox = `create table outbox (
	seq bigint generated always as identity primary key, aggregate_type text,
	aggregate_id text, event_type text, payload text, headers json)`

// tableLine is a line whose outbox table comes from a statement of the test's own.
func tableLine(tb testing.TB, db *servers.Database, table string) *line {
	tb.Helper()
	l := bareLine(tb, db, servers.SharedKafka(tb), walName("line"))
	l.exec(tb, table)
	return l
}

func (l *line) exec(tb testing.TB, sql string, args ...any) {
	tb.Helper()
	if _, err := l.sql.Exec(walContext(tb), sql, args...); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

func (l *line) ask(tb testing.TB, query string, into any, args ...any) {
	tb.Helper()
	if err := l.sql.QueryRow(walContext(tb), query, args...).Scan(into); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

// insert commits one event in a transaction of its own.
func (l *line) insert(tb testing.TB, key, payload string) {
	tb.Helper()
	l.exec(tb, "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', $1, 'raised', $2)", key, payload)
}

// delivering is a line whose stream has delivered the first event of aggregate a.
func delivering(t *testing.T) (*line, *running) {
	t.Helper()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	r := l.run(t)
	l.insert(t, "a", numbered(1))
	l.settle(t)
	return l, r
}

// numbered is the payload of an aggregate's nth event.
func numbered(n int) string { return fmt.Sprintf(`{"n": %d}`, n) }

// wantAllUpTo streams the nth event of aggregate a and wants those before it in order, each
// once or several times in a row.
func (l *line) wantAllUpTo(t *testing.T, n int) {
	t.Helper()
	r := l.run(t)
	l.insert(t, "a", numbered(n))
	l.awaitValues(t, "a", numbered(n))
	var want []string
	for i := range n {
		want = append(want, numbered(i+1))
	}
	if got := slices.Compact(l.values(t)["a"]); !slices.Equal(got, want) {
		t.Errorf("the topic holds %q, want each event in order", got)
	}
	r.drain(t)
}

// settle waits until the slot is confirmed past everything committed so far.
func (l *line) settle(tb testing.TB) {
	tb.Helper()
	before := l.end(tb)
	// Log without events is confirmed in strides only, so one more event follows.
	l.insert(tb, "settled", "0")
	eventually(tb, time.Minute, "the slot is confirmed past what was committed", func() bool { return !l.behind(tb, before) })
}

// values are the values of each key on the topic, in order; a null one is "null".
func (l *line) values(tb testing.TB) map[string][]string {
	tb.Helper()
	values := map[string][]string{}
	for _, r := range l.kafka.Records(tb, l.topic) {
		value := string(r.Value)
		if r.Value == nil {
			value = "null"
		}
		values[string(r.Key)] = append(values[string(r.Key)], value)
	}
	delete(values, "settled")
	return values
}

// lastSent is where the last transaction that is on the topic commits.
func (l *line) lastSent(tb testing.TB) (last wal.LSN) {
	tb.Helper()
	for _, r := range l.kafka.Records(tb, l.topic) {
		last = max(last, commitOf(tb, sentAs(r).position))
	}
	return last
}

// free waits until nobody streams from the slot. The walsender of a stream that has ended
// lives on for a moment.
func (l *line) free(tb testing.TB) {
	tb.Helper()
	eventually(tb, time.Minute, "the slot is free", func() bool { return l.slotText(tb, "active") == "false" })
}

// keeps says whether the slot would send the transaction again, and whether what is
// saved lies before its end: so nobody has forgotten it.
func (l *line) keeps(tb testing.TB, xid string) bool {
	tb.Helper()
	l.free(tb)
	var keeps bool
	l.ask(tb, `select coalesce(bool_or(c.lsn >= p.lsn), false)
		from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', 'outboxcdc') c,
			outboxcdc.checkpoint p where p.slot = $1 and c.xid = $2::xid`, &keeps, l.slot, xid)
	return keeps
}

// running is a stream inside the test's process, for what no flag gives.
type running struct {
	ended chan error
	stats func() pipeline.Stats
	stop  func()
	abort func() // ends it at once, and waits for that
	log   *syncBuffer
}

// run starts a stream and waits until it streams and its watch has looked once: what a
// test does afterwards is no race with the first look. The watch looks often.
func (l *line) run(tb testing.TB, changes ...func(*pipeline.Config)) *running {
	tb.Helper()
	r := l.begin(tb, changes...)
	eventually(tb, time.Minute, "it streams", func() bool {
		select {
		case err := <-r.ended:
			tb.Fatalf("the stream ended with %v", err)
		default:
		}
		return strings.Contains(r.log.String(), "msg=streaming") && !r.stats().SlotLookedAt.IsZero()
	})
	return r
}

func (l *line) begin(tb testing.TB, changes ...func(*pipeline.Config)) *running {
	tb.Helper()
	r := &running{ended: make(chan error, 1), log: &syncBuffer{}}
	config := pipeline.Config{
		Wal:    wal.Config{Database: l.db.URL, Slot: l.slot, Publication: "outboxcdc", Tables: []wal.Table{{Schema: "public", Name: "outbox"}}},
		Sink:   "kafka://" + strings.Join(l.kafka.Bootstrap(), ","),
		Outbox: outbox.Config{Default: outbox.Mapping{Topic: l.topic}}, WatchInterval: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	for _, change := range changes {
		change(&config)
	}
	runner, err := pipeline.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		r.ended <- runner.Run(ctx, stop)
	}()
	r.stats = runner.Stats
	r.stop = func() { close(stop) }
	r.abort = func() { cancel(); <-gone }
	tb.Cleanup(func() {
		cancel()
		<-gone
		if tb.Failed() {
			tb.Logf("the stream logged:\n%s", r.log)
		}
	})
	return r
}

// seldomWatched leaves it to the stream alone to notice.
func seldomWatched(c *pipeline.Config) { c.WatchInterval = time.Hour }

// end waits for the stream to end by itself and gives its error.
func (r *running) end(tb testing.TB) error {
	tb.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(time.Minute):
		tb.Fatalf("the stream did not end within a minute:\n%s", r.log)
		return nil
	}
}

// drain stops the stream, which must have nothing to complain of.
func (r *running) drain(tb testing.TB) {
	tb.Helper()
	r.stop()
	if err := r.end(tb); err != nil {
		tb.Errorf("the stream ended with %v after a stop", err)
	}
}

// awaitValues waits until the topic holds a value for a key.
func (l *line) awaitValues(tb testing.TB, key, value string) {
	tb.Helper()
	eventually(tb, time.Minute, "the topic holds "+value+" for "+key, func() bool {
		return slices.Contains(l.values(tb)[key], value)
	})
}
