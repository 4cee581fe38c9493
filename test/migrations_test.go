package test

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/migrations"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

func outboxes(names ...string) migrations.Params {
	var p migrations.Params
	for _, name := range names {
		p.Tables = append(p.Tables, migrations.Table{Schema: "public", Name: name})
	}
	return p
}

// applies fails the test unless Apply makes exactly what is wanted.
func applies(tb testing.TB, conn *pgx.Conn, p migrations.Params, want ...string) {
	tb.Helper()
	got, err := migrations.Apply(walContext(tb), conn, p)
	if err != nil {
		tb.Fatalf("Apply = %v", err)
	}
	if !slices.Equal(got, want) {
		tb.Fatalf("Apply made %q, want %q", got, want)
	}
}

// made is what is made in a database without anything: our own tables, with the steps
// for outbox tables in their place.
func made(outboxes ...string) []string {
	return slices.Concat([]string{"0001_checkpoint"}, outboxes, []string{"0003_history", "0004_replay", "0005_status", "0006_publish", "0007_parked", "0008_streamed", "0009_parked_status", "0010_left"})
}

// firstColumn gives the first column of a query as text.
func firstColumn(tb testing.TB, conn *pgx.Conn, sql string, args ...any) []string {
	tb.Helper()
	result, err := conn.Query(walContext(tb), sql, args...)
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	texts, err := pgx.CollectRows(result, pgx.RowTo[string])
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return texts
}

// loginAs gives the URL of the database for a new role that may log in and nothing
// else; setup runs first, with $role for its name.
func loginAs(tb testing.TB, db *servers.Database, setup ...string) string {
	tb.Helper()
	role := walName("role")
	admin := db.Conn(tb)
	for _, sql := range append([]string{"CREATE ROLE $role LOGIN PASSWORD 'pass'"}, setup...) {
		if _, err := admin.Exec(walContext(tb), strings.ReplaceAll(sql, "$role", role)); err != nil {
			tb.Fatalf("%s: %v", sql, err)
		}
	}
	tb.Cleanup(func() { db.Exec(tb, "DROP OWNED BY "+role+" CASCADE; DROP ROLE "+role) })
	at, err := url.Parse(db.URL)
	if err != nil {
		tb.Fatal("the test database has no URL that parses")
	}
	at.User = url.UserPassword(role, "pass")
	return at.String()
}

func dial(tb testing.TB, databaseURL string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(walContext(tb), databaseURL)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // read only at most
	return conn
}

func TestMigrationsMakeTheTablesOnce(t *testing.T) {
	db := servers.SharedPostgres(t)
	conn := db.Conn(t)
	applies(t, conn, migrations.Params{}, made()...)
	applies(t, conn, outboxes("outbox"), "0002_outbox public.outbox")
	applies(t, conn, outboxes("outbox"))
	applies(t, conn, outboxes("outbox", "second"), "0002_outbox public.second")
	applies(t, conn, outboxes("second", "second", "outbox"))

	columns := firstColumn(t, conn, `SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod),
			CASE WHEN attnotnull THEN 'not null' END, nullif(attidentity, ''), pg_get_expr(adbin, adrelid))
		FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid = 'outbox'::regclass AND attnum > 0 ORDER BY attnum`)
	want := []string{
		"seq bigint not null d",
		"id uuid not null gen_random_uuid()",
		"aggregate_type text not null",
		"aggregate_id text not null",
		"event_type text not null",
		"payload jsonb",
		"headers jsonb",
		"created_at timestamp with time zone not null now()",
		"xid xid8 not null pg_current_xact_id()",
	}
	if diff := cmp.Diff(want, columns); diff != "" {
		t.Errorf("columns of the outbox (-want +got):\n%s", diff)
	}
	undocumented := firstColumn(t, conn, `SELECT attrelid::regclass || '.' || attname FROM pg_attribute
		WHERE attrelid IN ('outbox'::regclass, 'second'::regclass, 'outboxcdc.checkpoint'::regclass, 'outboxcdc.history'::regclass, 'outboxcdc.outbox_table'::regclass, 'outboxcdc.unsure'::regclass) AND attnum > 0
		AND col_description(attrelid, attnum) IS NULL`)
	if len(undocumented) > 0 {
		t.Errorf("columns without a comment: %q", undocumented)
	}
	if got := firstColumn(t, conn, `SELECT oid::regclass::text FROM pg_class WHERE oid IN ('outbox'::regclass, 'second'::regclass,
		'outboxcdc.checkpoint'::regclass, 'outboxcdc.history'::regclass, 'outboxcdc.outbox_table'::regclass, 'outboxcdc.unsure'::regclass, 'outboxcdc.outbox_status'::regclass, 'outboxcdc.migration'::regclass) AND obj_description(oid, 'pg_class') IS NULL`); len(got) > 0 {
		t.Errorf("tables without a comment: %q", got)
	}
}

// Names and settings that would turn a careless text into another one.
func TestMigrationsRunUnderHostileNamesAndSettings(t *testing.T) {
	db := servers.SharedPostgres(t)
	odd := migrations.Table{Schema: `Sch"e'ma\ $$`, Name: "Out\\'box\"; DROP TABLE x; --\n:'schema' é"}
	admin := db.Conn(t)
	if _, err := admin.Exec(walContext(t), "CREATE SCHEMA "+pgx.Identifier{odd.Schema}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	owner := loginAs(t, db,
		"GRANT CREATE ON DATABASE "+db.Name+" TO $role",
		"GRANT ALL ON SCHEMA "+pgx.Identifier{odd.Schema}.Sanitize()+" TO $role",
		"CREATE SCHEMA evil",
		"CREATE FUNCTION evil.format(text, text, text) RETURNS text LANGUAGE sql AS 'SELECT ''public.pg_class''::text'",
		"GRANT USAGE ON SCHEMA evil TO PUBLIC",
		"ALTER ROLE $role SET search_path = evil, pg_catalog, public",
		"ALTER ROLE $role SET standard_conforming_strings = off",
		"ALTER ROLE $role SET backslash_quote = on",
		"ALTER ROLE $role SET default_transaction_read_only = on",
		"ALTER ROLE $role SET default_transaction_isolation = 'serializable'")
	p := migrations.Params{Tables: []migrations.Table{odd}}
	applies(t, dial(t, owner), p, made("0002_outbox "+odd.Schema+"."+odd.Name)...)
	applies(t, dial(t, owner), p)
	tables := firstColumn(t, admin, `SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE nspname = $1 AND relkind = 'r' AND obj_description(c.oid, 'pg_class') IS NOT NULL`, odd.Schema)
	if !slices.Equal(tables, []string{odd.Name}) {
		t.Errorf("made %q, want %q", tables, odd.Name)
	}
	rendered, err := migrations.Render(p)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := dial(t, owner).PgConn().Exec(walContext(t), rendered).ReadAll(); err != nil {
			t.Fatalf("run the rendered SQL: %v", err)
		}
	}
}

func TestRenderedMigrationsEqualAppliedOnes(t *testing.T) {
	p := outboxes("outbox", "Odd Name")
	rendered, err := migrations.Render(p)
	if err != nil {
		t.Fatal(err)
	}
	byHand, byUs := servers.SharedPostgres(t).Conn(t), servers.SharedPostgres(t).Conn(t)
	for range 2 {
		if _, err := byHand.PgConn().Exec(walContext(t), rendered).ReadAll(); err != nil {
			t.Fatalf("run the rendered SQL: %v", err)
		}
	}
	applies(t, byUs, p, made("0002_outbox public.outbox", "0002_outbox public.Odd Name")...)
	const everything = `SELECT concat_ws(' ', n.nspname, c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod),
			a.attnotnull, a.attidentity, col_description(c.oid, a.attnum), obj_description(c.oid, 'pg_class'))
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE n.nspname IN ('public', 'outboxcdc') ORDER BY 1`
	if diff := cmp.Diff(firstColumn(t, byUs, everything), firstColumn(t, byHand, everything)); diff != "" {
		t.Errorf("by us and by hand differ (-us +hand):\n%s", diff)
	}
	const records = "SELECT concat_ws(' ', number, name, table_schema, table_name) FROM outboxcdc.migration ORDER BY 1"
	if diff := cmp.Diff(firstColumn(t, byUs, records), firstColumn(t, byHand, records)); diff != "" {
		t.Errorf("records by us and by hand differ (-us +hand):\n%s", diff)
	}
	applies(t, byHand, p)
}

// The second of two that apply at once waits for the first and then finds nothing
// to do, even where its transactions would not see what is committed after their
// beginning.
func TestMigrationsByTwoAtOnceRunOnce(t *testing.T) {
	db := servers.SharedPostgres(t)
	first, second, observer := db.Conn(t), db.Conn(t), db.Conn(t)
	const key = 0x6F7574626F786364 // "outboxcd"
	if _, err := first.Exec(walContext(t), "SELECT pg_advisory_lock($1)", int64(key)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Exec(walContext(t), "SET default_transaction_isolation = 'repeatable read'"); err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		made []string
		err  error
	}
	done := make(chan outcome, 1)
	ctx := walContext(t)
	go func() {
		made, err := migrations.Apply(ctx, second, outboxes("outbox"))
		done <- outcome{made, err}
	}()
	clock := time.NewTicker(5 * time.Millisecond)
	defer clock.Stop()
	const waiting = "SELECT pid::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = $1"
	for len(firstColumn(t, observer, waiting, second.PgConn().PID())) == 0 {
		select {
		case got := <-done:
			t.Fatalf("the second Apply did not wait: it made %q, %v", got.made, got.err)
		case <-clock.C:
		}
	}
	rendered, err := migrations.Render(outboxes("outbox"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.PgConn().Exec(walContext(t), rendered+"SELECT pg_advisory_unlock_all()").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.err != nil || len(got.made) != 0 {
		t.Fatalf("the second Apply made %q, %v, want nothing to do", got.made, got.err)
	}
}

func TestATableOfSomeoneElseIsLeftUntouched(t *testing.T) {
	db := servers.SharedPostgres(t)
	conn := db.Conn(t)
	db.Exec(t, `CREATE TABLE outbox (aggregate_type text, aggregate_id text, event_type text, payload text);
		COMMENT ON COLUMN outbox.payload IS 'ours'; INSERT INTO outbox VALUES ('a', 'b', 'c', 'd');
		CREATE VIEW events AS SELECT * FROM outbox`)
	const state = `SELECT concat_ws(' ', c.xmin, c.relname, c.relkind, a.xmin, a.attname, col_description(c.oid, a.attnum), obj_description(c.oid, 'pg_class'))
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1`
	before := firstColumn(t, conn, state)
	rendered, err := migrations.Render(outboxes("outbox", "events"))
	if err != nil {
		t.Fatal(err)
	}
	applies(t, conn, outboxes("outbox", "events"), made()...)
	if _, err := conn.PgConn().Exec(walContext(t), rendered).ReadAll(); err != nil {
		t.Fatal(err)
	}
	applies(t, conn, outboxes("outbox", "events"))
	if diff := cmp.Diff(before, firstColumn(t, conn, state)); diff != "" {
		t.Errorf("the tables were changed (-before +after):\n%s", diff)
	}
	if got := firstColumn(t, conn, "SELECT table_name FROM outboxcdc.migration WHERE table_name <> ''"); len(got) != 0 {
		t.Errorf("recorded as ours: %q", got)
	}
}

func TestWhatWasDroppedIsMadeAgain(t *testing.T) {
	db := servers.SharedPostgres(t)
	conn := db.Conn(t)
	applies(t, conn, outboxes("outbox"), made("0002_outbox public.outbox")...)
	db.Exec(t, "DROP TABLE outbox")
	applies(t, conn, outboxes("outbox"), "0002_outbox public.outbox")
	db.Exec(t, "DROP TABLE outboxcdc.checkpoint")
	applies(t, conn, outboxes("outbox"), made()...)
	db.Exec(t, "DROP SCHEMA outboxcdc CASCADE")
	applies(t, conn, outboxes("outbox"), made()...)
	applies(t, conn, outboxes("outbox"))
}

func TestADatabaseOfANewerVersionIsRefused(t *testing.T) {
	db := servers.SharedPostgres(t)
	conn := db.Conn(t)
	applies(t, conn, migrations.Params{}, made()...)
	db.Exec(t, "INSERT INTO outboxcdc.migration (number, name) VALUES (9999, 'future')")
	applied, err := migrations.Apply(walContext(t), conn, outboxes("outbox"))
	wantClass(t, err, fault.Operator, "9999_future")
	if len(applied) != 0 {
		t.Errorf("Apply made %q", applied)
	}
	if got := firstColumn(t, conn, "SELECT relname::text FROM pg_class WHERE relname = 'outbox'"); len(got) != 0 {
		t.Error("the outbox was made all the same")
	}
}

func TestMigrationsThatMayNotRunSayTheWayOut(t *testing.T) {
	db := servers.SharedPostgres(t)
	nobody := loginAs(t, db)
	_, err := migrations.Apply(walContext(t), dial(t, nobody), outboxes("outbox"))
	wantClass(t, err, fault.Operator, "permission denied", "--print-sql")

	applied, err := migrations.Apply(walContext(t), db.Conn(t), migrations.Params{Tables: []migrations.Table{{Schema: "missing", Name: "outbox"}}})
	wantClass(t, err, fault.Operator, `create the schema "missing"`)
	if !slices.Equal(applied, []string{"0001_checkpoint"}) {
		t.Errorf("Apply made %q before, want the first migration", applied)
	}

	applies(t, db.Conn(t), migrations.Params{}, made()[1:]...)
	// Everything is there: a role that may only look has nothing to be refused.
	reader := loginAs(t, db, "GRANT USAGE ON SCHEMA outboxcdc TO $role", "GRANT SELECT ON outboxcdc.migration TO $role")
	applies(t, dial(t, reader), migrations.Params{})
}

// An administrator may make the schema for a role that may not make schemas.
func TestASchemaThatIsThereNeedsNoRightOnTheDatabase(t *testing.T) {
	db := servers.SharedPostgres(t)
	owner := loginAs(t, db, "CREATE SCHEMA outboxcdc AUTHORIZATION $role", "CREATE SCHEMA app AUTHORIZATION $role")
	p := migrations.Params{Tables: []migrations.Table{{Schema: "app", Name: "outbox"}}}
	applies(t, dial(t, owner), p, made("0002_outbox app.outbox")...)
}

func TestAWriterNeedsOnlyInsert(t *testing.T) {
	db := servers.SharedPostgres(t)
	applies(t, db.Conn(t), outboxes("outbox"), made("0002_outbox public.outbox")...)
	writer := dial(t, loginAs(t, db, "GRANT INSERT ON outbox TO $role"))
	const insert = "INSERT INTO outbox (aggregate_type, aggregate_id, event_type, payload) VALUES ('order', '1', 'Placed', '{}')"
	for range 2 {
		if _, err := writer.Exec(walContext(t), insert); err != nil {
			t.Fatalf("insert as a writer: %v", err)
		}
	}
	if got := firstColumn(t, db.Conn(t), "SELECT (seq || ' ' || (xid < pg_current_xact_id()))::text FROM outbox ORDER BY seq"); !slices.Equal(got, []string{"1 true", "2 true"}) {
		t.Errorf("rows are %q", got)
	}
}
