package test

import (
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// beside streams a second table, too.
func beside(c *pipeline.Config) {
	c.Wal.Tables = append(c.Wal.Tables, wal.Table{Schema: "public", Name: "second"})
}

// Rows of a table that the stream leaves out for a while are never sent, although the
// snapshots that are saved meanwhile show them.
func TestRowsOfATableThatIsLeftOutForAWhileAreNeverCalledSent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ leave, back string }{
		"out of the publication": {"alter publication outboxcdc drop table second", "alter publication outboxcdc add table second"},
		"published all the time": {"select", "select"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
			l.exec(t, "create table second (like outbox including all); alter publication outboxcdc add table second")
			second := func(key string) {
				t.Helper()
				l.exec(t, "insert into second (aggregate_type, aggregate_id, event_type, payload) values ('order', $1, 'e', '1')", key)
			}
			r := l.run(t, beside)
			l.insert(t, "a", "1")
			second("streamed")
			l.awaitStatuses(t, "SENT 2")
			r.drain(t)
			l.exec(t, c.leave)
			r = l.run(t)
			second("left out")
			l.insert(t, "a", "2")
			l.awaitStatuses(t, "SENT 3, UNKNOWN 1")
			l.sentIsHeld(t)
			r.drain(t)
			l.exec(t, c.back)
			r = l.run(t, beside)
			second("streamed again")
			l.awaitStatuses(t, "SENT 4, UNKNOWN 1")
			l.sentIsHeld(t)
			r.drain(t)
			l.exec(t, "update second set created_at = now() - interval '80 hours'")
			mustRun(t, append([]string{"prune", "--older-than", "72h", "--table", "public.outbox", "--table", "public.second"}, l.flags...)...)
			if got := firstColumn(t, l.sql, "select aggregate_id from second"); len(got) != 1 || got[0] != "left out" {
				t.Errorf("prune left %q, want the row that was left out alone", got)
			}
		})
	}
}

// A table may be made known with init long before the stream begins again with it.
func TestRowsOfATableThatIsNotStreamedYetAreNeverCalledSent(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	r := l.run(t)
	l.insert(t, "a", "1")
	l.awaitStatuses(t, "SENT 1")
	l.exec(t, "create table second (like outbox including all); alter publication outboxcdc add table second")
	mustRun(t, append([]string{"init", "--table", "public.outbox", "--table", "public.second"}, l.flags...)...)
	l.exec(t, "insert into second (aggregate_type, aggregate_id, event_type, payload) values ('order', 'early', 'e', '1')")
	l.insert(t, "a", "2")
	l.awaitStatuses(t, "SENT 2, UNKNOWN 1")
	r.drain(t)
	r = l.run(t, beside)
	l.exec(t, "insert into second (aggregate_type, aggregate_id, event_type, payload) values ('order', 'streamed', 'e', '1')")
	l.awaitStatuses(t, "SENT 3, UNKNOWN 1")
	l.sentIsHeld(t)
	r.drain(t)
}
