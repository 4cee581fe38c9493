package test

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// raise makes the function event, which inserts a row whose payload is a number.
const raise = `create function event(key text, n bigint) returns void language sql as $$
	insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', key, 'raised', to_jsonb(n)) $$`

// numbers are first, first+step and so on up to last, as the topic holds them.
func numbers(first, last, step int) []string {
	var all []string
	for n := first; n <= last; n += step {
		all = append(all, strconv.Itoa(n))
	}
	return all
}

// inserted is what a service commits, and what of it the topic must hold under its
// key. In the statements KEY stands for the key, and ORIGIN for a name that is free.
type inserted struct {
	sql  []string // several statements in one text are one transaction
	want []string
}

// shapes are the forms in which rows come to be committed, or do not. They run in
// the order of their names, each on a table that the one before may have changed.
var shapes = map[string]inserted{
	"a transaction of one row": {[]string{"select event(KEY, 1)"}, numbers(1, 1, 1)},
	"a transaction of no row":  {[]string{"insert into other default values"}, nil},
	"rolled back":              {[]string{"begin", "select event(KEY, 1)", "rollback", "select event(KEY, 2)"}, numbers(2, 2, 1)},
	"10,000 savepoints, half rolled back": {[]string{`do $$ begin
		for i in 1..10000 loop
			begin
				perform event(KEY, i);
				if i % 2 = 0 then raise exception 'changed its mind'; end if;
			exception when raise_exception then null;
			end;
		end loop; end $$`}, numbers(1, 10000, 2)},
	"rolled back and larger than the memory of the server": {[]string{
		"begin", "select event(KEY, i) from generate_series(1, 20000) i", "rollback",
	}, nil},
	"shape changed in the transaction": {[]string{`begin; select event(KEY, 1);
		alter table outbox add extra int default 7; insert into outbox (aggregate_type, aggregate_id, event_type, payload, extra) values ('order', KEY, 'raised', '2', 1);
		alter table outbox rename extra to spare; select event(KEY, 3);
		alter table outbox alter payload type text using payload::text; insert into outbox (payload, aggregate_type, aggregate_id, event_type) values ('4', 'order', KEY, 'raised');
		alter table outbox alter payload type jsonb using payload::jsonb; select event(KEY, 5);
		alter table outbox drop event_type, drop spare; alter table outbox add event_type varchar(99); select event(KEY, 6); commit`}, numbers(1, 6, 1)},
	"messages beside rows": {[]string{
		`begin; select event(KEY, 1); select pg_logical_emit_message(true, 'foreign', KEY), pg_logical_emit_message(false, 'outboxcdc', '\x00ff'::bytea); commit`,
		`begin; select pg_logical_emit_message(false, 'heartbeat', repeat('x', 10000000)), pg_logical_emit_message(true, 'outbox', 'x'); rollback`,
		`select event(KEY, 2)`,
	}, numbers(1, 2, 1)},
	"from another origin": {[]string{
		`select pg_replication_origin_create(ORIGIN), pg_replication_origin_session_setup(ORIGIN)`,
		`select event(KEY, 1)`,
		`begin; select pg_replication_origin_xact_setup('0/FF', now()), event(KEY, 2); commit`,
		`select pg_replication_origin_session_reset(), pg_replication_origin_drop(ORIGIN)`,
	}, numbers(1, 2, 1)},
	"janitors at work": {janitors, numbers(1, 2, 1)},
	"janitors whose work is published": {slices.Concat(
		[]string{"alter publication outboxcdc set (publish = 'insert, update, delete, truncate')"}, janitors), numbers(1, 2, 1)},
	"a table that is published and not asked for": {[]string{
		"alter publication outboxcdc add table other", "begin; insert into other default values; select event(KEY, 1); commit",
	}, numbers(1, 1, 1)},
	"payloads that are hard to keep": {
		[]string{`insert into outbox (aggregate_type, aggregate_id, event_type, payload) values
		('order', KEY, 'e', null), ('order', KEY, 'e', '""'), ('order', KEY, 'e', 'null'),
		('order', KEY, 'e', '12345678901234567890.000000000012345678901234567890'), ('order', KEY, 'e', '"\ud83d\ude00\u2028"'),
		('order', KEY, 'e', to_jsonb('infinity'::timestamptz)), ('order', KEY, 'e', to_jsonb('-infinity'::date)),
		('order', KEY, 'e', to_jsonb('NaN'::numeric)), ('order', KEY, 'e', to_jsonb('-Infinity'::float8))`},
		[]string{
			"null", `""`, "null", "12345678901234567890.000000000012345678901234567890", "\"\U0001f600\u2028\"",
			`"infinity"`, `"-infinity"`, `"NaN"`, `"-Infinity"`,
		},
	},
}

// janitors change and remove rows, which is no event.
var janitors = []string{
	"select event(KEY, 1)",
	"update outbox set payload = '10'",
	"insert into outbox (seq, aggregate_type, aggregate_id, event_type, payload) select max(seq), 'order', KEY, 'e', '11' from outbox on conflict (seq) do update set payload = '12'",
	"insert into outbox (seq, aggregate_type, aggregate_id, event_type, payload) select max(seq), 'order', KEY, 'e', '13' from outbox on conflict do nothing",
	"delete from outbox where seq = (select min(seq) from outbox)", "truncate outbox",
	"select event(KEY, 2)",
}

func TestWhatIsCommittedComesOnceWhateverItsShape(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	l.exec(t, raise+"; create table other (i bigint generated always as identity primary key)")
	if l.db.Server.Major() >= 15 { // another tool's publication, which is not ours to read
		l.exec(t, "create publication narrow for table outbox (seq, aggregate_id) with (publish = 'insert')")
	}
	r := l.run(t, func(c *pipeline.Config) {
		c.WatchInterval = time.Hour
		c.Wal.Database = l.withOptions(t, "-c logical_decoding_work_mem=64kB")
	})
	names := make([]string, 0, len(shapes))
	for name := range shapes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		words := strings.NewReplacer("KEY", "'"+name+"'", "ORIGIN", "'"+walName("origin")+"'")
		for _, sql := range shapes[name].sql {
			l.exec(t, words.Replace(sql))
		}
	}
	l.settle(t)
	got := l.values(t)
	for _, name := range names {
		if diff := cmp.Diff(shapes[name].want, got[name]); diff != "" {
			t.Errorf("%s: the topic holds otherwise (-want +got):\n%.2000s", name, diff)
		}
	}
	eventually(t, time.Minute, "the server has spilled transactions to disk, so that path is what was tested", func() bool {
		var spilled bool
		l.ask(t, "select spill_txns > 0 from pg_stat_replication_slots where slot_name = $1", &spilled, l.slot)
		return spilled
	})
	r.drain(t)
}

// withOptions is the database's URL with settings for the server.
func (l *line) withOptions(tb testing.TB, options string) string {
	tb.Helper()
	at, err := url.Parse(l.db.URL)
	if err != nil {
		tb.Fatal("the test database has no URL that parses")
	}
	query := at.Query()
	query.Set("options", options)
	// A plus means a space in forms only.
	at.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return at.String()
}

// Numbers and dates that are none, where other programs stumble, in columns of their
// own types.
func TestWhatIsNoNumberOrNoDateArrivesAsPostgresWritesIt(t *testing.T) {
	l := tableLine(t, servers.SharedPostgres(t), `create table outbox (
		aggregate_type text, aggregate_id timestamptz, event_type numeric, payload float8, created_at timestamptz)`)
	r := l.run(t)
	const insert = "insert into outbox values ('order', $1::text::timestamptz, 'NaN', $2::text::float8, $1::text::timestamptz)"
	for _, row := range [][2]string{{"infinity", "NaN"}, {"infinity", "Infinity"}, {"-infinity", "-Infinity"}, {"-infinity", "1e-320"}} {
		l.exec(t, insert, row[0], row[1])
	}
	l.awaitValues(t, "-infinity", "1e-320")
	if diff := cmp.Diff(map[string][]string{"infinity": {"NaN", "Infinity"}, "-infinity": {"-Infinity", "1e-320"}}, l.values(t)); diff != "" {
		t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
	}
	r.drain(t)
}

func TestRowsOfOneCopyHavePositionsOfTheirOwn(t *testing.T) {
	const rows = 10_000
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	r := l.run(t)
	_, err := l.sql.CopyFrom(walContext(t), pgx.Identifier{"outbox"}, []string{"aggregate_type", "aggregate_id", "event_type", "payload"},
		pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return []any{"order", "copied", "e", strconv.Itoa(i)}, nil }))
	if err != nil {
		t.Fatal(err)
	}
	records := l.kafka.AwaitRecords(t, l.topic, rows, time.Minute)
	commit, _, _ := strings.Cut(headerOf(t, records[0], "outboxcdc-position"), "/")
	for i, record := range records {
		if got, want := headerOf(t, record, "outboxcdc-position"), fmt.Sprintf("%s/%d", commit, i); got != want || string(record.Value) != strconv.Itoa(i) {
			t.Fatalf("row %d has the position %s and the payload %s, want %s and its number", i, got, record.Value, want)
		}
	}
	r.drain(t)
}

func TestEventsComeInTheOrderOfCommitsNotOfInserts(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	l.exec(t, raise)
	r := l.run(t)
	early := l.db.Server.Conn(t, l.db.Name)
	for i := range 10 {
		for _, step := range []struct {
			conn *pgx.Conn
			sql  string
		}{
			{early, fmt.Sprintf("begin; select event('a', %d)", 2*i+2)},
			{l.sql, fmt.Sprintf("select event('a', %d)", 2*i+1)},
			{early, "commit"},
		} {
			if _, err := step.conn.Exec(walContext(t), step.sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.settle(t)
	if diff := cmp.Diff(numbers(1, 20, 1), l.values(t)["a"]); diff != "" {
		t.Errorf("the order is not that of the commits (-want +got):\n%s", diff)
	}
	r.drain(t)
}

func TestAPreparedTransactionIsSentOnceAndAtItsCommit(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.Postgres(t, servers.Setting("max_prepared_transactions", "4")).Database(t), servers.SharedKafka(t))
	l.exec(t, raise)
	r := l.run(t)
	for _, name := range []string{"kept", "lost", "late"} {
		l.exec(t, "begin; select event('a', 7), event('"+name+"', 1); prepare transaction '"+name+"'")
	}
	l.settle(t) // the slot is confirmed past the places of all three
	if got := l.values(t); len(got) > 0 {
		t.Errorf("events of transactions that are only prepared were sent: %v", got)
	}
	l.exec(t, "commit prepared 'kept'")
	l.exec(t, "rollback prepared 'lost'")
	l.settle(t)
	r.drain(t)
	r = l.run(t) // and what was prepared before this session began comes whole
	l.exec(t, "commit prepared 'late'")
	l.settle(t)
	if diff := cmp.Diff(map[string][]string{"a": {"7", "7"}, "kept": {"1"}, "late": {"1"}}, l.values(t)); diff != "" {
		t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
	}
	r.drain(t)
}

func TestRowsOfPartitionsAreReadByName(t *testing.T) {
	t.Parallel()
	const table = `create table outbox (aggregate_type text, aggregate_id text, event_type text, payload text) partition by list (aggregate_type);
		create table leaf_a partition of outbox for values in ('a');
		create table leaf_b (surplus int default 3, payload text, event_type text, aggregate_id text, aggregate_type text)`
	leaves := func(c *pipeline.Config) {
		c.Wal.Tables = []wal.Table{{Schema: "public", Name: "leaf_a"}, {Schema: "public", Name: "leaf_b"}}
	}
	for name, c := range map[string]struct {
		root   bool
		change func(*pipeline.Config)
	}{
		"under the name of the root": {true, func(*pipeline.Config) {}},
		"under their own names":      {false, leaves},
	} {
		t.Run(name, func(t *testing.T) {
			l := tableLine(t, servers.SharedPostgres(t), table)
			l.exec(t, "insert into leaf_b (aggregate_type, aggregate_id, event_type, payload) values ('b', 'filled before', 'e', '1')")
			l.exec(t, "alter table leaf_b drop surplus; alter table outbox attach partition leaf_b for values in ('b')")
			l.exec(t, fmt.Sprintf("create publication outboxcdc for table outbox with (publish = 'insert', publish_via_partition_root = %v)", c.root))
			r := l.run(t, seldomWatched, c.change)
			l.exec(t, "insert into outbox select k, k, 'e', n::text from unnest(array['a', 'b']) k, generate_series(1, 3) n order by n")
			l.exec(t, "insert into leaf_b (aggregate_type, aggregate_id, event_type, payload) values ('b', 'b', 'e', '4')")
			l.exec(t, "alter table outbox detach partition leaf_b")
			l.exec(t, "insert into leaf_b (aggregate_type, aggregate_id, event_type, payload) values ('b', 'b', 'e', '5')")
			l.exec(t, "alter table outbox attach partition leaf_b for values in ('b')")
			l.exec(t, "insert into outbox values ('b', 'b', 'e', '6')")
			before := l.end(t)
			l.exec(t, "insert into outbox values ('a', 'a', 'e', '4')")
			eventually(t, time.Minute, "the slot is confirmed past what was committed", func() bool { return !l.behind(t, before) })
			l.kafka.AwaitRecords(t, l.topic, 9, time.Minute)
			want := map[string][]string{"a": numbers(1, 4, 1), "b": {"1", "2", "3", "4", "6"}}
			if diff := cmp.Diff(want, l.values(t)); diff != "" {
				t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
			}
			r.drain(t)
		})
	}
}
