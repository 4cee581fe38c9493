package test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestRefusedConnectionNamesItsCauseAndNeverThePassword(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	plain, password := f.role(t, "")
	cdc, cdcPassword := f.role(t, "replication")
	nologin, nologinPassword := f.role(t, "replication")
	f.run(t, "alter role "+nologin+" nologin")
	with := func(change func(*url.URL)) wal.Config {
		config := f.as(t, cdc, cdcPassword)
		at, _ := url.Parse(config.Database)
		change(at)
		config.Database = at.String()
		return config
	}
	for name, c := range map[string]struct {
		config wal.Config
		class  fault.Class
		texts  []string
	}{
		"wrong password": {f.as(t, cdc, password), fault.Operator, []string{cdc, "28P01", "check the user and the password"}},
		"unknown role":   {f.as(t, "nobody_here", password), fault.Operator, []string{"nobody_here", "check the user"}},
		"no REPLICATION": {f.as(t, plain, password), fault.Operator, []string{"42501", `ALTER ROLE "` + plain + `" REPLICATION`}},
		"no LOGIN":       {f.as(t, nologin, nologinPassword), fault.Operator, []string{nologin, "28000"}},
		"no database":    {wal.Config{Database: f.at(t, func(at *url.URL) { at.Path = "/nowhere" })}, fault.Operator, []string{"nowhere", "3D000"}},
		"no server":      {with(func(at *url.URL) { at.Host = "127.0.0.1:1" }), fault.Transient, []string{"127.0.0.1:1", "check host and port"}},
		"no host":        {with(func(at *url.URL) { at.Host = "host.invalid:5432" }), fault.Transient, []string{"host.invalid", "check host and port"}},
		"bad options":    {with(func(at *url.URL) { at.RawQuery += "&options=-c%20no_such_setting%3D1" }), fault.Operator, []string{"42704", "options"}},
	} {
		t.Run(name, func(t *testing.T) {
			config := f.config
			config.Database = c.config.Database
			_, err := wal.Connect(walContext(t), config)
			wantClass(t, err, c.class, c.texts...)
			if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, password) || strings.Contains(text, f.db.Server.Password()) {
				t.Errorf("the error carries the password: %s", text)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is more than one line: %v", err)
			}
		})
	}
}

func TestPayloadTextDoesNotDependOnSettingsOfRoleOrEnvironment(t *testing.T) {
	t.Setenv("PGTZ", "Pacific/Apia")
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.run(t, `create table rendered (at timestamptz, d date, i interval, f float8, b bytea, c regclass, m money)`)
	f.config.Tables = []wal.Table{{Schema: "public", Name: "rendered", Columns: []wal.Column{
		{Name: "at"}, {Name: "d"}, {Name: "i"}, {Name: "f"}, {Name: "b"}, {Name: "c"}, {Name: "m"},
	}}}
	f.ready(t)
	f.run(t, `insert into rendered values ('2026-02-03 04:05:06.789+00', '2026-02-03', '1 day 02:00', 0.1::float8 + 0.2, 'hi', 'outbox', 1.5)`)

	role, password := f.role(t, "replication")
	for setting, value := range map[string]string{
		"datestyle": "'SQL, DMY'", "timezone": "'Asia/Tokyo'", "intervalstyle": "iso_8601", "extra_float_digits": "-15",
		"bytea_output": "escape", "client_encoding": "LATIN1", "search_path": "public", "quote_all_identifiers": "on",
		"statement_timeout": "1", "lock_timeout": "1", "idle_in_transaction_session_timeout": "1",
		"standard_conforming_strings": "off", "default_transaction_read_only": "on",
	} {
		f.run(t, "alter role "+role+" set "+setting+" = "+value)
	}
	config := f.as(t, role, password)
	config.Database += "&options=-c%20datestyle%3Dgerman%20-c%20timezone%3DAsia/Tokyo%20-c%20bytea_output%3Descape"

	got := f.rows(t, config, 1)
	want := [][]string{{
		"2026-02-03 04:05:06.789+00", "2026-02-03", "1 day 02:00:00", "0.30000000000000004", `\x6869`, "public.outbox", "$1.50",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the row is rendered otherwise (-want +got):\n%s", diff)
	}
}

func TestPayloadIsUTF8WhateverTheDatabaseStores(t *testing.T) {
	for encoding, c := range map[string]struct{ insert, want string }{
		"LATIN1": {`'f\351e'`, "fée"},
		"UTF8":   {`'f\303\251e'`, "fée"},
		// Nobody knows what its bytes mean, so they arrive as they are, and a byte
		// that is no UTF-8 does not stop the stream.
		"SQL_ASCII": {`'f\351e'`, "f\xe9e"},
	} {
		t.Run(encoding, func(t *testing.T) {
			f := newWalFixture(t, encodedDatabase(t, encoding))
			f.ready(t)
			f.run(t, fmt.Sprintf("insert into outbox (aggregate_type, aggregate_id, event_type) values ('a', convert_from(%s, '%s'), 'e')",
				"E"+strings.ReplaceAll(c.insert, `\`, `\\`)+"::bytea", encoding))
			if got := f.rows(t, f.config, 1)[0][1]; got != c.want {
				t.Errorf("%s text arrives as %q, want %q", encoding, got, c.want)
			}
		})
	}
}

// encodedDatabase is a database of the shared server in another encoding.
func encodedDatabase(tb testing.TB, encoding string) *servers.Database {
	tb.Helper()
	db := servers.SharedPostgres(tb)
	name := walName("encoded")
	create := fmt.Sprintf("create database %s template template0 encoding '%s' lc_collate 'C' lc_ctype 'C'", name, encoding)
	if _, err := db.Server.Conn(tb, "postgres").Exec(walContext(tb), create); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		conn := db.Server.Conn(tb, "postgres")
		for _, sql := range []string{
			"select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '" + name + "'",
			"drop database " + name + " with (force)",
		} {
			if _, err := conn.Exec(walContext(tb), sql); err != nil {
				tb.Error(err)
			}
		}
	})
	return &servers.Database{Server: db.Server, Name: name, URL: db.Server.URL(name)}
}

func TestStandbyIsRefusedUnlessAskedForAndPromotionLeavesItsHistory(t *testing.T) {
	server := servers.Postgres(t)
	f := newWalFixture(t, server.Database(t))
	before, err := f.connect(t, f.config).Identify(walContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if history, err := f.connect(t, f.config).History(walContext(t), before.Timeline); err != nil || len(history) != 0 {
		t.Errorf("the first timeline has the history %v, %v, want none", history, err)
	}
	signal := filepath.Join(server.DataDir(), "standby.signal")
	server.Stop(t, servers.Fast)
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	server.Start(t)

	_, err = wal.Connect(walContext(t), f.config)
	wantClass(t, err, fault.Transient, "name the primary")
	asked := f.config
	asked.Database += "&target_session_attrs=standby"
	found, err := wal.Preflight(walContext(t), f.connect(t, asked))
	if err != nil {
		t.Fatal(err)
	}
	wantFinding(t, found, wal.CodeStandby, fault.Failure)

	admin := server.Conn(t, "postgres")
	if _, err := admin.Exec(walContext(t), "select pg_promote()"); err != nil {
		t.Fatal(err)
	}
	conn := f.connect(t, f.config)
	after, err := conn.Identify(walContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if after.System != before.System || after.Database != f.db.Name || after.Timeline != before.Timeline+1 {
		t.Errorf("after the promotion the server is %+v, want the next timeline of %+v", after, before)
	}
	history, err := conn.History(walContext(t), after.Timeline)
	if err != nil {
		t.Fatal(err)
	}
	if len(history) != 1 || history[0].Timeline != before.Timeline || history[0].At < before.Flush || history[0].At > after.Flush {
		t.Errorf("history %+v, want one switch of timeline %d between %v and %v", history, before.Timeline, before.Flush, after.Flush)
	}
}

func TestCancelledConnectStops(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := wal.Connect(ctx, f.config)
	wantClass(t, err, fault.Stopped)
}
