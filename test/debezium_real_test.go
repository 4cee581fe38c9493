package test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/outbox/debezium"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// likeness is one configuration in which the real Debezium and outboxcdc stream the
// same rows.
type likeness struct {
	name    string
	columns string // of the outbox table, beside the usual ones; payload among them
	options map[string]string
	rows    []string // VALUES of the columns, in the order of into
	into    string
}

// likenesses are rows and options beyond the golden records: what those do not hold
// still has to be equal.
func likenesses() []likeness {
	router := func(options ...string) map[string]string {
		o := map[string]string{
			"key.converter": "org.apache.kafka.connect.storage.StringConverter", "value.converter": "org.apache.kafka.connect.storage.StringConverter",
		}
		for i := 0; i < len(options); i += 2 {
			o[options[i]] = options[i+1]
		}
		return o
	}
	const (
		stringKeys = "org.apache.kafka.connect.storage.StringConverter"
		json       = "org.apache.kafka.connect.json.JsonConverter"
		placement  = "transforms.outbox.table.fields.additional.placement"
	)
	documents := []string{
		`'{"a": 1, "é": "😀", "n": null, "deep": {"list": [1, 2.5e3, "x"], "o": {"k": [{"b": true}, {"b": false}]}}}'`,
		`'{"lines": [{"sku": "S1", "qty": 2, "tags": ["a", "b"]}, {"sku": "S2", "qty": 1, "tags": ["c"]}], "total": 39.98, "at": "2024-05-06"}'`,
		`'[1, 2]'`, `'"text"'`, `'{}'`, `null`, `'{"quote": "say \"hi\"", "ctl": "\t\u0001"}'`,
	}
	expandable := slices.DeleteFunc(slices.Clone(documents), func(d string) bool { return d == `'[1, 2]'` })
	payloads := func(documents []string) (rows []string) {
		for i, d := range documents {
			rows = append(rows, fmt.Sprintf("'key %d', %s", i%3, d))
		}
		return rows
	}
	types := strings.Join([]string{
		"c_dom price", "c_mood mood", "c_num numeric", "c_numd numeric(20,8)", "c_neg numeric(6,0)", "c_f4 float4", "c_f8 float8", "c_money money",
		"c_iv interval", "c_ts timestamp(2)", "c_tz timestamptz(1)", "c_date date", "c_time time(4)", "c_timetz timetz", "c_ints int8[]", "c_texts text[]",
		"c_nums float8[]", "c_dflt int default 7", "c_when timestamp default '2020-02-03 04:05:06'", "c_txt text not null default 'it''s'",
		"c_bool bool default true", "c_ci varchar default 'a'||'b'", "c_gen timestamptz default now()",
		"f_text text default md5('x')", "f_int int default (random()*10)::int", "f_big bigint default nextval('sq')", "f_uuid uuid default gen_random_uuid()", "f_ts timestamp default now()",
		"f_ts2 timestamp default current_timestamp", "f_ts3 timestamp(3) default localtimestamp", "f_date date default current_date", "f_date2 date default now()", "f_time time default localtime", "f_num numeric default random()",
		"f_num2 numeric(10,2) default random()", "f_bool bool default random() > 0.5", "f_json jsonb default jsonb_build_object('a', 1)", "f_bytea bytea default decode('aa', 'hex')",
		"f_f8 float8 default random()", "f_tz2 timestamptz default current_timestamp", "f_tz3 timestamptz default clock_timestamp()", "f_tz4 timestamptz default (now() at time zone 'utc')", "f_user text default current_user", "f_iv interval default '1 day'::interval", "f_arr text[] default '{}'", "f_arr2 int[] default array[1]",
		"f_neg int default -5", "f_numc numeric(10,2) default 1.5", "f_numv numeric default 10", "f_mood mood default 'low'", "f_js json default '{}'", "f_by bytea default '\\xdead'", "f_i8 int8 default 5000000000", "f_sm int2 default 3", "f_real float4 default 1.5", "f_datec date default '2020-01-01'", "f_timec time default '10:11:12'", "f_tzc timestamptz default '2020-01-01 00:00:00+02'", "f_uuidc uuid default '00000000-0000-4000-8000-000000000001'", "f_e text default ''", "f_bs text default E'a\\\\b'", "f_nul text default null", "f_bit bit(1) default B'1'", "f_money money default 5", "f_char char(3) default 'x'", "f_up text default upper('x')", "f_dom price default 3",
	}, ", ")
	typed := []string{
		`'t1', '{}', 12.50, 'Very High', 1e10, 0.00000001, -7, 1e-7, 12345678.9, '12.34', '1 year 2 mons 3 days 04:05:06.789', '2024-05-06 07:08:09.129', '2024-05-06 07:08:09.19+02', '2024-02-29', '23:59:59.99999', '01:02:03.004+05:30', '{1,NULL,-9223372036854775808}', '{"a,b","c\"d","",NULL}', '{1.5,1e300,NULL}', 1, '1999-12-31', 'x', false, 'y', '2024-01-01'` + strings.Repeat(", null", 44),
		`'t2', '{}', -0.01, 'low', -0.000001230, 123456789012.12345678, 999999, 1e-7, 2e-3, '-1.00', '-04:05:06.5', '0001-01-01', '1900-01-01', '0001-01-01', '00:00', '00:00+00', '{}', '{}', '{}', null, null, '', null, null, null` + strings.Repeat(", null", 44),
		`'t3', '{}', null, null, null, null, null, 16777216, 0.1, null, null, null, null, null, null, null, null, null, null, null, null, 'z', null, null, null` + strings.Repeat(", null", 44),
	}
	columnNames := make([]string, 0, 32)
	for c := range strings.SplitSeq(types, ", ") {
		if name, _, ok := strings.Cut(c, " "); ok && (strings.HasPrefix(name, "c_") || strings.HasPrefix(name, "f_")) && !strings.ContainsAny(name, "()") {
			columnNames = append(columnNames, name)
		}
	}
	asHeaders := strings.Join(columnNames, ":header,") + ":header"
	asEnvelope := strings.Join(columnNames, ":envelope,") + ":envelope"
	into := "aggregateid, payload, " + strings.Join(columnNames, ", ")
	return []likeness{
		{"string", "payload jsonb", router("transforms.outbox.route.tombstone.on.empty.payload", "true"), payloads(documents), "aggregateid, payload"},
		{
			"json", "payload json", router("key.converter", json, "key.converter.schemas.enable", "false", "value.converter", json, "value.converter.schemas.enable", "false"),
			payloads(documents), "aggregateid, payload",
		},
		{"schema", "payload text default 'none'", router("key.converter", json, "value.converter", json, placement, "id:header:eventId"), payloads(documents), "aggregateid, payload"},
		{
			"expand", "payload jsonb", router("value.converter", json, "value.converter.schemas.enable", "false", "transforms.outbox.table.expand.json.payload", "true"),
			payloads(expandable), "aggregateid, payload",
		},
		{"expandschema", "payload jsonb", router("value.converter", json, "transforms.outbox.table.expand.json.payload", "true", placement, "type:envelope:eventType",
			"transforms.outbox.table.json.payload.null.behavior", "optional_bytes"), payloads(expandable), "aggregateid, payload"},
		{
			"binary", "payload bytea, part int4", router("key.converter", stringKeys, "value.converter", "io.debezium.converters.BinaryDataConverter", placement, "part:partition"),
			[]string{`'b1', '\x00ff', 2`, `'b2', '\x', null`, `'b3', null, 0`},
			"aggregateid, payload, part",
		},
		{"headers", "payload jsonb, " + types, router(placement, asHeaders), typed, into},
		{"envelope", "payload jsonb, " + types, router("value.converter", json, placement, asEnvelope), typed, into},
		{"connecttime", "payload jsonb, " + types, router("value.converter", json, placement, asEnvelope, "time.precision.mode", "connect"), typed, into},
	}
}

// TestRecordsAreThoseOfTheRealDebezium runs the real connector on the machine's JDK
// beside outboxcdc, on the same rows of the same database: both send equal records.
func TestRecordsAreThoseOfTheRealDebezium(t *testing.T) {
	t.Parallel()
	kafka := servers.SharedKafka(t)
	connect := servers.SharedConnect(t)
	for _, l := range likenesses() {
		t.Run(l.name, func(t *testing.T) { l.compare(t, kafka, connect) })
	}
}

func (l *likeness) compare(t *testing.T, kafka *servers.KafkaServer, connect *servers.Connect) {
	t.Helper()
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.run(t, "create sequence sq", "create type mood as enum ('low', 'Very High')", "create domain price as numeric(12,2)",
		"create table events (id uuid primary key default gen_random_uuid(), aggregatetype text not null default 'thing', "+
			"aggregateid varchar(40) not null, type text not null default 'happened', "+l.columns+")",
		"create publication events for table events with (publish = 'insert')")
	theirs, ours := walName("theirs"), walName("ours")
	kafka.CreateTopic(t, theirs+".thing", 6, nil)
	kafka.CreateTopic(t, ours+".thing", 6, nil)
	slots := map[string]string{theirs: walName("slot"), ours: walName("slot")}
	for _, slot := range slots {
		f.run(t, "select pg_create_logical_replication_slot('"+slot+"', 'pgoutput')")
	}
	options := maps.Clone(l.options)
	options["topic.prefix"] = "shop"
	options["transforms.outbox.route.topic.replacement"] = theirs + ".${routedByValue}"
	connect.Add(t, theirs, connectorOf(t, f.db, slots[theirs], options))
	t.Cleanup(func() { connect.Remove(t, theirs) })
	options["transforms.outbox.route.topic.replacement"] = ours + ".${routedByValue}"
	arguments := []string{
		"--database-url", f.db.URL, "--slot", slots[ours], "--publication", "events", "--table", "public.events",
		"--sink", "kafka://" + strings.Join(kafka.Bootstrap(), ","), "--http", "off", "--format", "debezium",
	}
	for name, value := range options {
		if name = strings.TrimPrefix(name, "transforms.outbox."); debezium.Shapes(name) {
			arguments = append(arguments, "--debezium", name+"="+value)
		}
	}
	streaming := stream(t, arguments...)
	for _, row := range l.rows {
		f.run(t, "insert into events ("+l.into+") values ("+row+")")
	}
	got := kafka.AwaitRecords(t, ours+".thing", len(l.rows), time.Minute)
	eventually(t, 3*time.Minute, "Debezium has sent the rows", func() bool {
		if why := connect.Trace(t, theirs); why != "" {
			t.Fatalf("the connector failed: %.2000s", why)
		}
		return len(kafka.Records(t, theirs+".thing")) >= len(l.rows)
	})
	want := kafka.Records(t, theirs+".thing")
	if diff := cmp.Diff(plainRecords(want), plainRecords(got)); diff != "" {
		t.Errorf("records (-Debezium +ours):\n%s", diff)
	}
	if code := streaming.stop(t); code != 0 {
		t.Errorf("outboxcdc ended with %d:\n%s", code, streaming.log)
	}
}

// connectorOf is the configuration of a real connector for a database.
func connectorOf(tb testing.TB, db *servers.Database, slot string, options map[string]string) map[string]string {
	tb.Helper()
	at, err := url.Parse(db.URL)
	if err != nil {
		tb.Fatal("the test database has no URL that parses")
	}
	password, _ := at.User.Password()
	config := map[string]string{
		"connector.class":             "io.debezium.connector.postgresql.PostgresConnector",
		"tasks.max":                   "1",
		"plugin.name":                 "pgoutput",
		"database.hostname":           at.Hostname(),
		"database.port":               at.Port(),
		"database.user":               at.User.Username(),
		"database.password":           password,
		"database.dbname":             db.Name,
		"slot.name":                   slot,
		"publication.name":            "events",
		"publication.autocreate.mode": "disabled",
		"snapshot.mode":               "no_data",
		"table.include.list":          "public.events",
		"poll.interval.ms":            "50",
		"transforms":                  "outbox",
		"transforms.outbox.type":      "io.debezium.transforms.outbox.EventRouter",
		"producer.override.linger.ms": "0",
	}
	maps.Copy(config, options)
	return config
}

// plainRecords are records for people, without what differs on every run: the time and
// the run's id.
func plainRecords(records []*kgo.Record) []string {
	var plain []string
	for _, r := range records {
		line := fmt.Sprintf("partition %d key %s value %s", r.Partition, showBytes(r.Key), showBytes(r.Value))
		for _, h := range r.Headers {
			value := showBytes(h.Value)
			if h.Key == "__debezium.context.runId" {
				value = fmt.Sprintf("(%d bytes)", len(h.Value))
			}
			line += "\n  " + h.Key + ": " + value
		}
		plain = append(plain, line)
	}
	return plain
}

func showBytes(b []byte) string {
	if b == nil {
		return "null"
	}
	return strings.ReplaceAll(fmt.Sprintf("%q", b), `,\"`, ",\n\t\\\"")
}
