package test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// roles are a line whose stream and whose service have no more rights than init gives.
type roles struct {
	*line
	f                *walFixture
	streamer, writer string
	streams, inserts string // database URLs
}

// newRoles makes both; tables are statements that come before init.
func newRoles(tb testing.TB, tables ...string) *roles {
	tb.Helper()
	l := bareLine(tb, servers.SharedPostgres(tb), servers.SharedKafka(tb), walName("line"))
	for _, sql := range tables {
		l.exec(tb, sql)
	}
	r := &roles{line: l, f: &walFixture{db: l.db, sql: l.sql}, streamer: walName("streamer"), writer: walName("Writer of")}
	args := append([]string{"init", "--role", r.streamer, "--writer-role", r.writer}, l.flags...)
	out := mustRun(tb, args...)
	tb.Cleanup(func() {
		for _, role := range []string{r.streamer, r.writer} {
			quoted := pgx.Identifier{role}.Sanitize()
			l.exec(tb, "drop owned by "+quoted)
			l.exec(tb, "drop role "+quoted)
		}
	})
	for _, what := range []string{"role " + r.streamer + " with REPLICATION", "role " + r.writer, "INSERT on public.outbox"} {
		if !strings.Contains(out, "made      ") || !strings.Contains(out, what) {
			tb.Errorf("init does not say %q:\n%s", what, out)
		}
	}
	if out := mustRun(tb, args...); strings.Contains(out, "made ") {
		tb.Errorf("init makes something again:\n%s", out)
	}
	r.streams, r.inserts = r.as(tb, r.streamer), r.as(tb, r.writer)
	return r
}

// as gives a role a password, as an administrator does, and its URL.
func (r *roles) as(tb testing.TB, role string) string {
	tb.Helper()
	password := walName("pw")
	r.exec(tb, "alter role "+pgx.Identifier{role}.Sanitize()+" password '"+password+"'")
	return r.f.at(tb, func(at *url.URL) { at.User = url.UserPassword(role, password) })
}

// mayNot wants each statement to be refused for lack of rights.
func (r *roles) mayNot(tb testing.TB, database string, statements ...string) {
	tb.Helper()
	conn, err := pgx.Connect(walContext(tb), database)
	if err != nil {
		tb.Fatalf("log in: %v", err)
	}
	defer conn.Close(walContext(tb)) //nolint:errcheck // nothing is owed to it
	for _, sql := range statements {
		_, err := conn.Exec(walContext(tb), sql)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "42501" {
			tb.Errorf("%s: %v, want insufficient_privilege", sql, err)
		}
	}
}

func TestTheRolesThatInitMakesMayWhatTheyMustAndNothingElse(t *testing.T) {
	t.Parallel()
	r := newRoles(t)
	r.exec(t, "create table secret (id int); insert into secret values (1)")
	nobody := []string{
		"update outbox set payload = '{}'", "delete from outbox", "truncate outbox", "alter table outbox add x int", "drop table outbox",
		"select * from secret", "create table mine ()", "create schema mine", "create publication mine for table outbox", "create role mine",
		"delete from outboxcdc.migration", "drop table outboxcdc.checkpoint", "alter role " + r.streamer + " superuser",
	}
	r.mayNot(t, r.streams, append(nobody, "insert into outbox (aggregate_type, aggregate_id, event_type) values ('a', 'a', 'a')")...)
	r.mayNot(t, r.inserts, append(nobody, "select * from outbox", "select * from outboxcdc.checkpoint", "insert into outboxcdc.history (slot) values ('x')",
		"select pg_create_logical_replication_slot('mine', 'pgoutput')", "select pg_drop_replication_slot('"+r.slot+"')")...)

	service, err := pgx.Connect(walContext(t), r.inserts)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close(walContext(t)) //nolint:errcheck // nothing is owed to it
	for _, sql := range []string{
		"insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'inserted', 'raised', '1')",
		"select outboxcdc.publish('order', 'published', 'raised', '1')",
	} {
		if _, err := service.Exec(walContext(t), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	r.streamerMay(t)
}

// streamerMay runs what needs no more than the streaming role has, and what needs more.
func (r *roles) streamerMay(t *testing.T) {
	t.Helper()
	r.flags = []string{"--slot", r.slot, "--database-url", r.streams}
	sink := []string{"--sink", "kafka://" + strings.Join(r.kafka.Bootstrap(), ","), "--topic", r.topic}
	run := func(args ...string) []string { return append(args, r.flags...) }
	if out := mustRun(t, append(run("check"), sink...)...); strings.Contains(out, "failure") || strings.Contains(out, "warning  table") || strings.Contains(out, "GRANT") {
		t.Errorf("check finds fault:\n%s", out)
	}
	s := r.stream(t)
	eventually(t, time.Minute, "both events arrive", func() bool {
		values := r.values(t)
		return len(values["inserted"]) == 1 && len(values["published"]) == 1
	})
	if out := mustRun(t, run("status")...); !strings.Contains(out, r.slot) {
		t.Errorf("status says:\n%s", out)
	}
	mustRun(t, run("bookmark", "create", "here")...)
	mustRun(t, run("bookmark", "list")...)
	if status := s.stop(t); status != 0 {
		t.Fatalf("the stream ended with %d:\n%s", status, s.log)
	}
	mustRun(t, append(run("replay", "--from-bookmark", "here"), sink...)...)
	mustRun(t, run("bookmark", "drop", "here")...)
	mustRun(t, append(run("verify"), sink...)...)
	mustRun(t, run("peek")...)
	mustRun(t, run("dlq", "list")...)
	r.free(t)
	r.exec(t, "select pg_drop_replication_slot('"+r.slot+"')")
	mustRun(t, append(run("recover"), sink...)...)

	refused := func(grant string, args ...string) {
		t.Helper()
		got := command(t, nil, args...)
		wantRefusal(t, got, fault.ExitOperator, grant)
	}
	refused("GRANT SELECT, DELETE ON", run("prune", "--older-than", "1s")...)
	refused("init --print-sql", run("init", "--table", "public.another")...)

	r.exec(t, "revoke select on outbox from "+r.streamer)
	r.exec(t, "revoke update on outboxcdc.checkpoint from "+r.streamer)
	out, status := outboxcdc(t, append(run("check"), sink...)...)
	for _, text := range []string{"GRANT SELECT, INSERT, UPDATE ON outboxcdc.checkpoint TO", `GRANT SELECT ON "public"."outbox" TO`, "init --role " + r.streamer} {
		if status != fault.ExitOperator || !strings.Contains(out, text) {
			t.Errorf("check ends with %d and does not say %q:\n%s", status, text, out)
		}
	}
}

// Amazon gives REPLICATION by membership; and what is printed for an administrator does
// the same as init, with a name that needs quotes, and serial columns.
func TestRolesAreMadeByWhatInitPrintsAndAsAmazonWantsThem(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	f := newWalFixture(t, server.Database(t))
	const role = `o'Brien "$outboxcdc$"`
	f.run(t, "create role rds_replication", "create table drawn (seq serial primary key, aggregate_type text, aggregate_id text, event_type text, payload text)")
	args := []string{"init", "--slot", f.config.Slot, "--database-url", f.db.URL, "--table", "public.drawn"}
	mustRun(t, args...)
	args = append(args, "--role", role, "--writer-role", "service")
	_, grants, _ := strings.Cut(mustRun(t, append(args, "--print-sql")...), "-- Who may what.")
	if _, err := f.sql.PgConn().Exec(walContext(t), "--"+grants).ReadAll(); err != nil {
		t.Fatalf("run what is printed: %v", err)
	}
	var member, attribute bool
	f.ask(t, "select pg_has_role($1, 'rds_replication', 'member')", &member, role)
	f.ask(t, "select rolreplication from pg_roles where rolname = $1", &attribute, role)
	if !member || attribute {
		t.Errorf("member of rds_replication: %v, want so; REPLICATION: %v, want not", member, attribute)
	}
	if out := mustRun(t, args...); strings.Contains(out, "made ") {
		t.Errorf("init makes again what was printed:\n%s", out)
	}
	f.run(t, "set role service", "insert into drawn (aggregate_id) values ('a')", "reset role")
}
