package test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// mappedRecord is a record as a mapping makes it.
type mappedRecord struct {
	Key, Value string
	Null       bool
	Headers    string // of columns and entries
	Partition  int32
}

// mappedOf leaves out what every record has, and the partition that a key decides.
func mappedOf(r *kgo.Record, placed bool) mappedRecord {
	s := mappedRecord{Key: string(r.Key), Value: string(r.Value), Null: r.Value == nil}
	var headers []string
	for _, h := range r.Headers {
		switch h.Key {
		case "id", "event_type", "aggregate_type", "outboxcdc-position":
		default:
			headers = append(headers, h.Key+"="+string(h.Value))
		}
	}
	s.Headers = strings.Join(headers, " ")
	if placed {
		s.Partition = r.Partition
	}
	return s
}

// strangeTables have nothing of the table that init makes but their purpose.
const strangeTables = `create schema sales;
	create type kind as enum ('placed', 'paid');
	create domain document as bytea;
	create table sales."Events" (body document, part int, "order" bigint, what kind, region varchar(9), at timestamptz, tenant text, meta json, event_id uuid default gen_random_uuid());
	create table parted (aggregate_id uuid, event_type text, payload text, aggregate_type text) partition by list (aggregate_type);
	create table leaf_a partition of parted for values in ('a');
	create table leaf_b (payload text, extra int, aggregate_type text, event_type text, aggregate_id uuid);
	alter table leaf_b drop extra;
	alter table parted attach partition leaf_b for values in ('b')`

func TestTablesOfAnyShapeAreMapped(t *testing.T) {
	t.Parallel()
	l := bareLine(t, servers.SharedPostgres(t), servers.SharedKafka(t), walName("mapped"))
	l.exec(t, strangeTables)
	placed := l.kafka.Topic(t, streamPartitions)
	const events = `sales."Events":`
	l.flags = append(l.flags,
		"--table", `sales."Events"`, "--table", "public.parted",
		"--column", events+"aggregate_id=order", "--column", events+"event_type=what", "--column", events+"aggregate_type=", "--column", events+"payload=body",
		"--column", events+"headers=meta", "--column", events+"id=event_id",
		"--topic", events+"{region}", "--topic-route", events+"(eu|us)="+placed, "--topic-allow", events+placed+"|other",
		"--partition-column", events+"part", "--timestamp-column", events+"at", "--header-column", events+"tenant=x-tenant", "--header-column", events+"region",
		"--tombstones", events+"empty")
	mustRun(t, append([]string{"init"}, l.flags...)...)
	s := l.stream(t)
	l.exec(t, `insert into sales."Events" values ('\x00ff', 11, 9007199254740993, 'placed', 'eu', '2024-05-06 07:08:09.123+02', 'müller', '{"region": "forged", "trace": "t"}')`)
	l.exec(t, `insert into sales."Events" values ('\x20', null, 1, 'paid', 'us', null, null, null), (null, 0, 1, 'paid', 'us', null, 't', '{}')`)
	l.exec(t, `insert into parted (aggregate_type, aggregate_id, event_type, payload) values
		('b', '00000000-0000-0000-0000-00000000000B', 'e', '\x41'), ('a', '00000000-0000-0000-0000-00000000000A', 'e', ' {"a":1} ')`)
	var got []mappedRecord
	for _, r := range l.kafka.AwaitRecords(t, placed, 3, time.Minute) {
		if at := time.Date(2024, 5, 6, 5, 8, 9, 123_000_000, time.UTC); string(r.Key) != "1" && !r.Timestamp.Equal(at) {
			t.Errorf("the record's time is %v, want the column's %v", r.Timestamp, at)
		}
		got = append(got, mappedOf(r, string(r.Key) != "1"))
	}
	wantMapped(t, got, []mappedRecord{
		{Key: "9007199254740993", Value: "\x00\xff", Headers: "x-tenant=müller region=eu trace=t", Partition: 11},
		{Key: "1", Null: true, Headers: "x-tenant= region=us"},
		{Key: "1", Null: true, Headers: "x-tenant=t region=us"},
	})
	got = nil
	for _, r := range l.kafka.AwaitRecords(t, l.topic, 2, time.Minute) {
		got = append(got, mappedOf(r, false))
	}
	whole := []mappedRecord{
		{Key: "00000000-0000-0000-0000-00000000000b", Value: `\x41`}, {Key: "00000000-0000-0000-0000-00000000000a", Value: ` {"a":1} `},
	}
	wantMapped(t, got, whole)
	s.wantStop(t)
	partitionsByTheirOwnNames(t, l, whole)
	badMappingsAreFound(t, l)
}

// wantMapped compares regardless of the order, which is that of partitions.
func wantMapped(tb testing.TB, got, want []mappedRecord) {
	tb.Helper()
	count := func(all []mappedRecord) map[mappedRecord]int {
		n := map[mappedRecord]int{}
		for _, s := range all {
			n[s]++
		}
		return n
	}
	if diff := cmp.Diff(count(want), count(got)); diff != "" {
		tb.Errorf("records (-want +got):\n%s", diff)
	}
}

// partitionsByTheirOwnNames streams a publication whose rows carry the names of
// partitions, each a table of its own to us.
func partitionsByTheirOwnNames(t *testing.T, l *line, want []mappedRecord) {
	t.Helper()
	leaves := bareLine(t, l.db, l.kafka, walName("leaves"))
	leaves.exec(t, "create publication leaves for table parted with (publish = 'insert')")
	leaves.flags = append(leaves.flags, "--publication", "leaves", "--table", "public.leaf_a, public.leaf_b")
	mustRun(t, append([]string{"init"}, leaves.flags...)...)
	s := leaves.stream(t)
	leaves.exec(t, `insert into parted (aggregate_type, aggregate_id, event_type, payload) values
		('b', '00000000-0000-0000-0000-00000000000B', 'e', '\x41'), ('a', '00000000-0000-0000-0000-00000000000A', 'e', ' {"a":1} ')`)
	var got []mappedRecord
	for _, r := range leaves.kafka.AwaitRecords(t, leaves.topic, 2, time.Minute) {
		got = append(got, mappedOf(r, false))
	}
	wantMapped(t, got, want)
	s.wantStop(t)
}

func badMappingsAreFound(t *testing.T, l *line) {
	t.Helper()
	base := []string{"check", "--json", "--slot", l.slot, "--database-url", l.db.URL, "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ",")}
	for name, c := range map[string]struct {
		flags  []string
		status int
		say    string
	}{
		"missing column":      {[]string{"--table", "public.parted", "--column", "payload=nothing"}, fault.ExitOperator, wal.CodeColumnMissing},
		"partition of text":   {[]string{"--table", "public.parted", "--partition-column", "payload"}, fault.ExitOperator, wal.CodeColumnType},
		"key of json":         {[]string{"--table", `sales."Events"`, "--column", "aggregate_id=meta", "--column", "aggregate_type=region", "--column", "event_type=what", "--column", "payload=body"}, fault.ExitOperator, wal.CodeColumnType},
		"any topic":           {[]string{"--table", "public.parted", "--topic", "{payload}"}, fault.ExitUsage, "--topic-allow"},
		"setting of no table": {[]string{"--table", "public.parted", "--column", "x=y"}, fault.ExitUsage, "not a role"},
	} {
		out, status := outboxcdc(t, append(base, c.flags...)...)
		if status != c.status || !strings.Contains(out, c.say) {
			t.Errorf("%s: status %d, want %d and %q in\n%s", name, status, c.status, c.say, out)
		}
	}
}

// TestMessagesAreEventsLikeRows has both ways to publish in one transaction, in a
// database whose text is not UTF-8.
func TestMessagesAreEventsLikeRows(t *testing.T) {
	t.Parallel()
	l := bareLine(t, encodedDatabase(t, "LATIN1"), servers.SharedKafka(t), walName("messages"))
	l.flags = append(l.flags, "--message-prefix", "outboxcdc")
	mustRun(t, append([]string{"init"}, l.flags...)...)
	l.exec(t, "set client_encoding = 'UTF8'") // of the writer, who has LATIN1 otherwise
	s := l.stream(t)
	alone := `select pg_logical_emit_message(false, 'outboxcdc', '{"aggregate_type": "order", "aggregate_id": "k", "event_type": "e", "payload": %}')`
	for _, sql := range []string{
		`select outboxcdc.publish('order', 'k', 'e', '1')`,
		`begin; select outboxcdc.publish_message('order', 'k', 'e', '{"n": 2, "é": "ü"}', '{"trace": "ä"}'); select outboxcdc.publish('order', 'k', 'e', '3');
			savepoint s; select outboxcdc.publish_message('order', 'k', 'e', '99'); rollback to s;
			select pg_logical_emit_message(true, 'foreign', '\x00ff'::bytea), pg_logical_emit_message(false, 'foreign', 'x');
			select outboxcdc.publish_message('order', 'k', 'e', null); commit`,
		`begin; select outboxcdc.publish_message('order', 'k', 'e', '98'); rollback`,
		"begin; " + strings.ReplaceAll(alone, "%", "5") + "; select outboxcdc.publish_message('order', 'k', 'e', '97'); rollback",
		strings.ReplaceAll(alone, "%", "6"),
		`select outboxcdc.publish_message('order', 'k', 'e', '"7"')`,
	} {
		l.exec(t, sql)
	}
	records := l.kafka.AwaitRecords(t, l.topic, 7, time.Minute)
	var values []string
	last := ""
	for _, r := range records {
		values = append(values, string(r.Value))
		at := padPosition(t, headerOf(t, r, "outboxcdc-position"))
		if at <= last {
			t.Errorf("position %s does not come after %s", at, last)
		}
		last = at
	}
	if diff := cmp.Diff([]string{"1", `{"n": 2, "é": "ü"}`, "3", "", "5", "6", `"7"`}, values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if records[3].Value != nil || headerOf(t, records[1], "trace") != "ä" || headerOf(t, records[1], "id") == "" {
		t.Errorf("the tombstone is %q, the message's headers are %v", records[3].Value, records[1].Headers)
	}
	s.wantStop(t)
	onlyEventsArePublished(t, l)
	whoMayPublishIsSaid(t, l)
	noTableIsNeeded(t, l)
}

// onlyEventsArePublished: what would stop the stream is refused to its writer.
func onlyEventsArePublished(t *testing.T, l *line) {
	t.Helper()
	for _, call := range []string{
		"publish('order', '', 'e', '1')", "publish('order', null, 'e', '1')", "publish_message(null, 'k', 'e', '1')",
		"publish_message('order', 'k', '', '1')", "publish_message('order', 'k', 'e', '1', '[]')",
	} {
		_, err := l.sql.Exec(walContext(t), "select outboxcdc."+call)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "22023" {
			t.Errorf("%s: %v, want it refused", call, err)
		}
	}
}

func whoMayPublishIsSaid(t *testing.T, l *line) {
	t.Helper()
	check := append([]string{"check", "--json", "--topic", l.topic, "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ",")}, l.flags...)
	if out := mustRun(t, check...); !strings.Contains(out, wal.CodeMessagesGrant) {
		t.Errorf("check does not say that everybody may publish:\n%s", out)
	}
	l.exec(t, `do $$ declare f regprocedure; begin
		for f in select oid from pg_proc where proname = 'pg_logical_emit_message' loop
			execute format('revoke execute on function %s from public', f); end loop; end $$`)
	if out := mustRun(t, check...); strings.Contains(out, wal.CodeMessagesGrant) || !strings.Contains(out, `"messages"`) {
		t.Errorf("check says that everybody may publish, and they may not:\n%s", out)
	}
}

func noTableIsNeeded(t *testing.T, l *line) {
	t.Helper()
	bare := bareLine(t, l.db, l.kafka, walName("bare"))
	bare.flags = append(bare.flags, "--table", "none", "--message-prefix", "outboxcdc", "--publication", "nothing")
	mustRun(t, append([]string{"init"}, bare.flags...)...)
	for _, c := range []struct{ say, command string }{
		{"publication nothing: it is there, and logical messages need no more of it", "check"},
		{"with prefix outboxcdc: unknown how many wait", "status"},
	} {
		args := append([]string{c.command}, bare.flags...)
		if c.command == "check" {
			args = append(args, "--sink", "stdout://")
		}
		if out := mustRun(t, args...); !strings.Contains(out, c.say) {
			t.Errorf("%s of messages alone does not say %q:\n%s", c.command, c.say, out)
		}
	}
	if out := mustRun(t, "status", "--slot", bare.slot, "--database-url", bare.db.URL, "--table", "public.nowhere"); !strings.Contains(out, "table public.nowhere does not exist") {
		t.Errorf("status of a table that is none says\n%s", out)
	}
	s := bare.stream(t)
	bare.exec(t, "select outboxcdc.publish('order', 'k', 'e', '1'), outboxcdc.publish_message('order', 'k', 'e', '2')")
	if r := bare.kafka.AwaitRecords(t, bare.topic, 1, time.Minute)[0]; string(r.Value) != "2" {
		t.Errorf("the record's value is %s, want the message's", r.Value)
	}
	s.wantStop(t)
	bare.free(t)
	bare.exec(t, "select pg_drop_replication_slot('"+bare.slot+"')")
	args := append([]string{"stream", "--sink", "stdout://", "--http", "off"}, bare.flags...)
	if out, status := outboxcdc(t, args...); status != fault.ExitOperator || !strings.Contains(out, "are in no table") || strings.Contains(out, "recover") {
		t.Errorf("a gap in messages alone ends with %d, want a way out that is no recovery:\n%s", status, out)
	}
}
