package test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// wantFinding checks that there is such a finding, and that whoever reads it
// learns what to do.
func wantFinding(tb testing.TB, all []fault.Finding, code string, severity fault.Severity, texts ...string) {
	tb.Helper()
	for _, f := range all {
		if f.Code != code || f.Severity != severity {
			continue
		}
		if severity != fault.OK && f.Fix == "" {
			tb.Errorf("%s has no fix: %+v", code, f)
		}
		said := f.Subject + ": " + f.Problem + ": " + f.Fix
		for _, text := range texts {
			if !strings.Contains(said, text) {
				tb.Errorf("%q does not say %q", said, text)
			}
		}
		return
	}
	tb.Errorf("no %v %s among %+v", severity, code, all)
}

func (f *walFixture) preflight(tb testing.TB) []fault.Finding {
	tb.Helper()
	found, err := wal.Preflight(walContext(tb), f.connect(tb, f.config))
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

func TestPreflightOfASoundDatabaseFindsNothing(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	// What a stream needs: to log in and to replicate. No table, no schema.
	role, password := f.role(t, "replication")
	f.run(t, "revoke all on schema public from public")
	f.config = f.as(t, role, password)
	for _, found := range f.preflight(t) {
		if found.Severity != fault.OK && found.Code != wal.CodeTransaction {
			t.Errorf("a sound database has the finding %+v", found)
		}
	}
	for _, code := range []string{wal.CodeServer, wal.CodeTable, wal.CodePublication, wal.CodeSlot} {
		wantFinding(t, f.preflight(t), code, fault.OK)
	}
}

func TestPreflightBeforeAnythingIsMadeMissesPublicationAndSlotOnly(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	for _, found := range f.preflight(t) {
		missing := found.Code == wal.CodePublicationMissing || found.Code == wal.CodeSlotMissing
		if missing != (found.Severity == fault.Failure) {
			t.Errorf("unexpected %+v", found)
		}
	}
	wantFinding(t, f.preflight(t), wal.CodePublicationMissing, fault.Failure, wal.PublicationSQL(f.config))
	wantFinding(t, f.preflight(t), wal.CodeSlotMissing, fault.Failure, wal.SlotSQL(f.config))
}

// leafNames makes the outbox a partitioned table that is published by its partitions.
const leafNames = "drop table outbox; create table outbox (aggregate_type text, aggregate_id text, event_type text, payload text) partition by hash (aggregate_id); " +
	"create table leaf partition of outbox for values with (modulus 1, remainder 0); " +
	"drop publication outboxcdc; create publication outboxcdc for table outbox with (publish = 'insert')"

func TestAStreamOfPartitionsBeginsAfterTheStatementThatPreflightNames(t *testing.T) {
	t.Parallel()
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	f.run(t, strings.Split(leafNames, "; ")...)
	const fix = `ALTER PUBLICATION "outboxcdc" SET (publish_via_partition_root = true)`
	wantFinding(t, f.preflight(t), wal.CodePublicationRoot, fault.Failure, "run "+fix)
	f.run(t, fix)
	if err := fault.Failures(f.preflight(t)); err != nil {
		t.Errorf("after the statement a stream is refused still: %v", err)
	}
	f.run(t, "select pg_drop_replication_slot('"+f.config.Slot+"')")
}

func TestPreflightFindsWhatWouldStopTheStream(t *testing.T) {
	const publication = `drop publication outboxcdc; create publication outboxcdc for table `
	insert := " with (publish = 'insert')"
	for name, c := range map[string]struct {
		since    int // major version that can do it
		sql      string
		code     string
		severity fault.Severity
		texts    []string
	}{
		"table missing":      {0, "drop table outbox", wal.CodeTableMissing, fault.Failure, []string{"public.outbox", "--table"}},
		"table elsewhere":    {0, "create schema app; alter table outbox set schema app", wal.CodeTableMissing, fault.Failure, []string{"one in app"}},
		"table is a view":    {0, "alter table outbox rename to o; create view outbox as select * from o", wal.CodeTableKind, fault.Failure, []string{"a view"}},
		"table is unlogged":  {0, "drop table outbox; create unlogged table outbox (aggregate_type text, aggregate_id text, event_type text, payload text)", wal.CodeTableKind, fault.Failure, []string{"SET LOGGED"}},
		"column missing":     {0, "alter table outbox drop column payload", wal.CodeColumnMissing, fault.Failure, []string{"payload", "ADD COLUMN"}},
		"column generated":   {0, "alter table outbox drop column payload; alter table outbox add payload text generated always as (event_type) stored", wal.CodeColumnGenerated, fault.Failure, []string{"payload"}},
		"optional generated": {0, "alter table outbox drop column headers; alter table outbox add headers text generated always as (event_type) stored", wal.CodeColumnGenerated, fault.Warning, []string{"headers"}},
		"column of a type":   {0, "create domain doc as jsonb; create domain docs as doc; alter table outbox alter aggregate_id type docs using '{}'", wal.CodeColumnType, fault.Failure, []string{"aggregate_id", "docs"}},

		"publication missing":       {0, "drop publication outboxcdc", wal.CodePublicationMissing, fault.Failure, []string{"outboxcdc"}},
		"publication without table": {0, "alter publication outboxcdc drop table outbox", wal.CodePublicationTable, fault.Failure, []string{`ADD TABLE "public"."outbox"`}},
		"table made anew":           {0, "drop table outbox; " + walOutbox, wal.CodePublicationTable, fault.Failure, []string{"public.outbox"}},
		"publication sans insert":   {0, "alter publication outboxcdc set (publish = 'update')", wal.CodePublicationInsert, fault.Failure, []string{"SET (publish = 'insert')"}},
		"row filter":                {15, publication + "outbox where (aggregate_type <> 'x')" + insert, wal.CodePublicationFilter, fault.Failure, []string{"row filter"}},
		"column list":               {15, publication + "outbox (seq, aggregate_type, aggregate_id, event_type)" + insert, wal.CodePublicationColumns, fault.Failure, []string{"payload, headers"}},
		"breaks updates":            {0, "alter table outbox drop constraint outbox_pkey; alter publication outboxcdc set (publish = 'insert, update')", wal.CodePublicationIdentity, fault.Warning, []string{"updates and deletes"}},
		"foreign breaks updates":    {0, "alter table outbox drop constraint outbox_pkey; create publication other for table outbox", wal.CodePublicationIdentity, fault.Warning, []string{"publication other"}},
		"other tables":              {0, "create table x(); create table y(); alter publication outboxcdc add table x, y", wal.CodePublicationOthers, fault.Warning, []string{"2 other"}},
		"partitions' own names":     {0, leafNames, wal.CodePublicationRoot, fault.Failure, []string{"partitioned table public.outbox"}},
		"partition of a published table": {
			0, "alter table outbox rename to old; create table root (aggregate_type text, aggregate_id text, event_type text, payload text) partition by hash (aggregate_id); " +
				"create table outbox partition of root for values with (modulus 1, remainder 0); " + publication + "root with (publish = 'insert', publish_via_partition_root = true)",
			wal.CodePublicationTable, fault.Failure,
			[]string{"public.root"},
		},

		"slot missing":       {0, "select pg_drop_replication_slot('SLOT')", wal.CodeSlotMissing, fault.Failure, []string{"outboxcdc init"}},
		"slot is physical":   {0, "select pg_drop_replication_slot('SLOT'); select pg_create_physical_replication_slot('SLOT')", wal.CodeSlotForeign, fault.Failure, []string{"physical", "--slot"}},
		"slot has two_phase": {0, "select pg_drop_replication_slot('SLOT'); select pg_create_logical_replication_slot('SLOT', 'pgoutput', false, true)", wal.CodeSlotTwoPhase, fault.Failure, []string{"without two_phase"}},
		"slot is temporary":  {0, "select pg_drop_replication_slot('SLOT'); select pg_create_logical_replication_slot('SLOT', 'pgoutput', true)", wal.CodeSlotForeign, fault.Failure, []string{"temporary"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newWalFixture(t, servers.SharedPostgres(t))
			if f.db.Server.Major() < c.since {
				return // this server cannot be brought into that state
			}
			f.ready(t)
			f.run(t, strings.Split(strings.ReplaceAll(c.sql, "SLOT", f.config.Slot), "; ")...)
			found := f.preflight(t)
			wantFinding(t, found, c.code, c.severity, c.texts...)
			for _, other := range found {
				// A table that is not what it should be is not published either.
				follows := other.Code == wal.CodePublicationTable && (c.code == wal.CodeTableMissing || c.code == wal.CodeTableKind)
				if other.Severity == fault.Failure && other.Code != c.code && !follows {
					t.Errorf("it also finds %+v", other)
				}
			}
			if c.severity == fault.Failure {
				wantClass(t, fault.Failures(found), fault.Operator)
			}
			f.run(t, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '"+f.config.Slot+"'")
		})
	}
}

func TestPreflightFindsASlotOfAnotherDatabaseAndPlugin(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	other := newWalFixture(t, servers.SharedPostgres(t))
	other.config.Slot = f.config.Slot
	other.ready(t)
	f.run(t, wal.PublicationSQL(f.config))
	wantFinding(t, f.preflight(t), wal.CodeSlotForeign, fault.Failure, other.db.Name, f.db.Name)

	// Embedded servers do not carry the plugin; where it is, it is tried.
	var there bool
	f.ask(t, "select exists (select from pg_ls_dir((select setting from pg_config where name = 'PKGLIBDIR')) d where d = 'test_decoding.so')", &there)
	if there {
		f.config.Slot = walName("slot")
		f.run(t, "select pg_create_logical_replication_slot('"+f.config.Slot+"', 'test_decoding')")
		wantFinding(t, f.preflight(t), wal.CodeSlotForeign, fault.Failure, "test_decoding")
	}
}

func TestPreflightFindsAnActiveSlot(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	ctx, cancel := context.WithCancel(walContext(t))
	stream, err := f.connect(t, f.config).Start(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, ended := make(chan wal.Batch, 100), make(chan error, 1)
	go func() { ended <- stream.Run(ctx, nil, out) }()
	wantFinding(t, f.preflight(t), wal.CodeSlotActive, fault.Warning, "outboxcdc "+f.config.Slot)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPreflightFindsASlotThatConfirmedWhatWasNeverWritten(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	ctx, cancel := context.WithCancel(walContext(t))
	// The server checks nothing: a start ahead of its log is told as confirmed
	// with the first status.
	identity, err := f.connect(t, f.config).Identify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := f.connect(t, f.config).Start(ctx, identity.Flush+1<<30)
	if err != nil {
		t.Fatal(err)
	}
	out, ended := make(chan wal.Batch, 100), make(chan error, 1)
	go func() { ended <- stream.Run(ctx, nil, out) }()
	conn := f.connect(t, f.config)
	f.eventually(t, "the slot is ahead", func() bool {
		slot, _, err := conn.Slot(walContext(t))
		return err == nil && slot.Confirmed > identity.Flush+1<<29
	})
	wantFinding(t, f.preflight(t), wal.CodeSlotAhead, fault.Failure, "never written")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPreflightFindsSettingsThatLoseTheSlotOrHoldUpTheServer(t *testing.T) {
	server := servers.Postgres(t, servers.Setting("max_prepared_transactions", "2"), servers.Setting("max_slot_wal_keep_size", "64MB"),
		servers.Setting("max_replication_slots", "1"), servers.Setting("max_wal_senders", "2"))
	f := newWalFixture(t, server.Database(t))
	f.run(t, "alter system set synchronous_standby_names = '*'", "alter system set synchronous_commit = 'local'")
	if server.Major() >= 18 {
		f.run(t, "alter system set idle_replication_slot_timeout = '1d'")
	}
	f.run(t, "select pg_reload_conf()")
	f.eventually(t, "the settings hold", func() bool {
		var names string
		f.ask(t, "select setting from pg_settings where name = 'synchronous_standby_names'", &names)
		return names == "*"
	})
	f.run(t, "select pg_create_physical_replication_slot('other')")
	second := f.connect(t, f.config)
	found := f.preflight(t)
	_, err := wal.Connect(walContext(t), f.config)
	wantClass(t, err, fault.Transient, "53300", "max_wal_senders")
	wantFinding(t, found, wal.CodeKeepSize, fault.Warning, "64 MiB")
	wantFinding(t, found, wal.CodeSlotsFull, fault.Failure, "max_replication_slots")
	wantFinding(t, found, wal.CodeSendersFull, fault.Warning, "max_wal_senders")
	wantFinding(t, found, wal.CodeSynchronous, fault.Warning, "every commit")
	if server.Major() >= 18 {
		wantFinding(t, found, wal.CodeIdleTimeout, fault.Warning, "1d")
	}
	_, err = second.CreateSlot(walContext(t))
	wantClass(t, err, fault.Operator, "53400", "max_replication_slots")
}

func TestPreflightSaysWhereTheGapOfALostSlotBegins(t *testing.T) {
	server := servers.Postgres(t, servers.Setting("max_slot_wal_keep_size", "1MB"), servers.Setting("min_wal_size", "32MB"),
		servers.Setting("max_wal_size", "32MB"))
	f := newWalFixture(t, server.Database(t))
	f.ready(t)
	conn := f.connect(t, f.config)
	before, _, err := conn.Slot(walContext(t))
	if err != nil {
		t.Fatal(err)
	}
	f.run(t, "create table filler (x text)")
	f.eventually(t, "the slot is lost", func() bool {
		f.run(t, "insert into filler select repeat(md5(i::text), 30) from generate_series(1, 5000) i", "select pg_switch_wal()", "checkpoint")
		slot, _, err := conn.Slot(walContext(t))
		return err == nil && slot.WALStatus == "lost"
	})
	wantFinding(t, f.preflight(t), wal.CodeSlotLost, fault.Failure, fmt.Sprintf("committed after %v", before.Confirmed))
	_, err = conn.Start(walContext(t), 0)
	wantClass(t, err, fault.Operator, "55000", "outboxcdc check")
}

func TestServerWithoutLogicalLogIsNamed(t *testing.T) {
	server := servers.Postgres(t, servers.Setting("wal_level", "replica"))
	f := newWalFixture(t, server.Database(t))
	found := f.preflight(t)
	wantFinding(t, found, wal.CodeWALLevel, fault.Failure, "wal_level is replica", "ALTER SYSTEM SET wal_level = 'logical'")
	_, err := f.connect(t, f.config).CreateSlot(walContext(t))
	wantClass(t, err, fault.Operator, f.config.Slot, "55000")
}

func TestRoleWithoutRightsOnTheTableCannotMakeThePublication(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	role, password := f.role(t, "replication")
	_, err := f.connect(t, f.as(t, role, password)).CreatePublication(walContext(t))
	wantClass(t, err, fault.Operator, "outboxcdc", "42501")
}

func TestDatabaseFromEnvironmentAlone(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	at, err := url.Parse(f.db.URL)
	if err != nil {
		t.Fatal("the test database has no URL that parses")
	}
	password, _ := at.User.Password()
	for name, value := range map[string]string{
		"PGHOST": at.Hostname(), "PGPORT": at.Port(), "PGUSER": at.User.Username(), "PGPASSWORD": password,
		"PGDATABASE": f.db.Name, "PGSSLMODE": "disable", "PGAPPNAME": "somebody else",
	} {
		t.Setenv(name, value)
	}
	f.config.Database = ""
	identity, err := f.connect(t, f.config).Identify(walContext(t))
	if err != nil || identity.Database != f.db.Name {
		t.Errorf("connected to %+v, %v, want %s", identity, err, f.db.Name)
	}
}
