package test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// impossible is a row that cannot be sent: what of it differs from a good row, as SQL.
type impossible struct {
	topic, key, payload, headers string // expressions; empty means those of a good row
	class                        fault.Class
	says                         string
}

// impossibles are the rows at which a stream halts.
var impossibles = map[string]impossible{
	"no aggregate":              {key: "null", class: fault.Data, says: "aggregate_id"},
	"empty aggregate":           {key: "''", class: fault.Data, says: "aggregate_id"},
	"aggregate of a megabyte":   {key: "repeat('k', 1 << 20)", class: fault.Data, says: "large"},
	"payload of two megabytes":  {payload: "repeat('s3cret', 350000)", class: fault.Data, says: "large"},
	"payload beyond all bounds": {payload: "repeat('s3cret', 11200000)", class: fault.Data, says: "large"},
	"headers in a list":         {headers: `'["s3cret"]'`, class: fault.Data, says: "not a JSON object"},
	"headers without end":       {headers: "(select json_object_agg(i, 's3cret') from generate_series(1, 10000) i)", class: fault.Data, says: "more than 1000"},
	"header of half a letter":   {headers: `'{"a": "s3cret \ud83d"}'`, class: fault.Data, says: "no Unicode text"},
	"topic of another folder":   {topic: "'..'", class: fault.Data, says: "topic name"},
	"topic with spaces":         {topic: "'a b'", class: fault.Data, says: "topic name"},
	"topic of the broker":       {topic: "'__consumer_offsets'", class: fault.Data, says: "broker's own"},
	"topic without end":         {topic: "repeat('t', 250)", class: fault.Data, says: "longer than 249"},
	"topic that nobody made":    {topic: "'nobody.made.this'", class: fault.Operator, says: "nobody.made.this"},
}

// insertInto commits the row and gives the number of its transaction.
func (i impossible) insertInto(tb testing.TB, l *line) (xid string) {
	tb.Helper()
	or := func(given, usual string) string {
		if given == "" {
			return usual
		}
		return given
	}
	l.ask(tb, `insert into outbox (aggregate_type, aggregate_id, event_type, payload, headers) values (`+
		strings.Join([]string{or(i.topic, "'"+l.topic+"'"), or(i.key, "'a'"), "'e'", or(i.payload, "'s3cret'"), or(i.headers, "null")}, ", ")+
		`) returning pg_current_xact_id()::text`, &xid)
	return xid
}

func TestARowThatCannotBeSentHaltsTheStreamBeforeIt(t *testing.T) {
	t.Parallel()
	for name, row := range impossibles {
		t.Run(name, func(t *testing.T) {
			l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
			r := l.run(t, seldomWatched, func(c *pipeline.Config) {
				c.Outbox.Default = outbox.Mapping{Topic: "{aggregate_type}", Allow: []string{".*"}}
			})
			good := func(key, payload string) {
				l.exec(t, "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ($1, $2, 'e', $3)", l.topic, key, payload)
			}
			good("a", "1")
			xid := row.insertInto(t, l)
			good("a", "2")
			good("b", "2")
			err := r.end(t)
			wantClass(t, err, row.class, row.says)
			if strings.Contains(err.Error()+r.log.String(), "s3cret") {
				t.Errorf("the payload is shown: %v", err)
			}
			if diff := cmp.Diff(map[string][]string{"a": {"1"}}, l.values(t)); diff != "" {
				t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
			}
			if !l.keeps(t, xid) {
				t.Error("the row is forgotten: the slot or the checkpoint is past it")
			}
		})
	}
}

func TestARowWhoseColumnIsGoneHaltsTheStreamBeforeIt(t *testing.T) {
	l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
	r := l.run(t, seldomWatched)
	l.insert(t, "a", "1")
	l.settle(t)
	l.exec(t, "begin; alter table outbox rename payload to body")
	var xid string
	l.ask(t, "insert into outbox (aggregate_type, aggregate_id, event_type, body) values ('order', 'a', 'e', '2') returning pg_current_xact_id()::text", &xid)
	l.exec(t, "commit")
	wantClass(t, r.end(t), fault.Operator, "payload", "public.outbox", "transaction "+xid+" at ")
	if diff := cmp.Diff(map[string][]string{"a": {"1"}}, l.values(t)); diff != "" {
		t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
	}
	if !l.keeps(t, xid) {
		t.Error("the row is forgotten: the slot or the checkpoint is past it")
	}
}

// A row that was inserted while the table had another name stands in the log under
// that name for good.
func TestRowsOfARenamedTableAreNeverSkipped(t *testing.T) {
	t.Parallel()
	app := func(c *pipeline.Config) { c.Wal.Tables = []wal.Table{{Schema: "app", Name: "outbox"}} }
	moved := func(c *pipeline.Config) { c.Wal.Tables = []wal.Table{{Schema: "public", Name: "moved"}} }
	as := func(*pipeline.Config) {}
	for name, c := range map[string]struct {
		rename string
		insert string // the table to insert into then
		mend   string
		table  func(*pipeline.Config) // what the operator names afterwards
		last   string
	}{
		"and named as before":         {"alter table outbox rename to moved", "moved", "alter table moved rename to outbox", as, "outbox"},
		"and named to us":             {"alter table outbox rename to moved", "moved", "select", moved, "moved"},
		"into a schema and back":      {"create schema app; alter table outbox set schema app", "app.outbox", "alter table app.outbox set schema public", as, "outbox"},
		"into a schema that we learn": {"create schema app; alter table outbox set schema app", "app.outbox", "select", app, "app.outbox"},
	} {
		t.Run(name, func(t *testing.T) {
			l := tableLine(t, servers.SharedPostgres(t), looseOutbox)
			r := l.run(t)
			l.insert(t, "a", "1")
			l.settle(t)
			l.exec(t, c.rename)
			into := func(table, payload string) {
				l.exec(t, "insert into "+table+" (aggregate_type, aggregate_id, event_type, payload) values ('order', 'a', 'e', $1)", payload)
			}
			into(c.insert, "2")
			wantClass(t, r.end(t), fault.Operator, "public.outbox")
			into(c.insert, "3")
			l.exec(t, c.mend)
			r = l.run(t, c.table)
			into(c.last, "4")
			l.awaitValues(t, "a", "4")
			if diff := cmp.Diff(numbers(1, 4, 1), l.values(t)["a"]); diff != "" {
				t.Errorf("the topic holds otherwise (-want +got):\n%s", diff)
			}
			r.drain(t)
		})
	}
}

func TestARowThatCannotBeSentEndsTheProcessWithItsExitCodeEachTime(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	f.run(t, `insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'a', 'e', '1')`,
		`insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', '', 'e', '"s3cret"')`,
		`insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'a', 'e', '2')`)
	first, second := f.command(t, mistake{}), f.command(t, mistake{})
	for _, got := range []answer{first, second} {
		wantRefusal(t, got, fault.ExitData, "aggregate_id", "public.outbox", "nothing of it is lost")
		if strings.Contains(got.out+got.errors, "s3cret") {
			t.Errorf("the payload is shown:\n%s", got.errors)
		}
	}
	if n := strings.Count(first.out, "\n"); n != 1 || second.out != "" {
		t.Errorf("the first process sent %q and the second %q, want the one row before", first.out, second.out)
	}
}
