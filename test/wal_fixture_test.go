package test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// walFixture is a database with an outbox table, and the configuration to read it.
type walFixture struct {
	db     *servers.Database
	sql    *pgx.Conn // a superuser's
	config wal.Config
}

const walOutbox = `create table outbox (
	seq bigint generated always as identity primary key, aggregate_type text not null,
	aggregate_id text not null, event_type text not null, payload jsonb, headers jsonb)`

// newWalFixture has the table, and neither publication nor slot.
func newWalFixture(tb testing.TB, db *servers.Database) *walFixture {
	tb.Helper()
	f := &walFixture{db: db, sql: db.Server.Conn(tb, db.Name)}
	f.config = wal.Config{
		Database: db.URL, Slot: walName("slot"), Publication: "outboxcdc", Tables: []wal.Table{walTable("outbox")},
		Logger: slog.New(slog.NewTextHandler(tb.Output(), nil)),
	}
	f.run(tb, walOutbox)
	return f
}

func walTable(name string) wal.Table {
	return wal.Table{Schema: "public", Name: name, Columns: []wal.Column{
		{Name: "aggregate_type", Required: true},
		{Name: "aggregate_id", Required: true, NotTypes: []string{"json", "jsonb"}},
		{Name: "event_type", Required: true},
		{Name: "payload", Required: true},
		{Name: "headers"},
	}}
}

// walName is a name that is free in the whole cluster.
func walName(prefix string) string { return prefix + "_" + strings.ToLower(rand.Text()) }

// walContext bounds one step of a test.
func walContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	tb.Cleanup(cancel)
	return ctx
}

func (f *walFixture) run(tb testing.TB, statements ...string) {
	tb.Helper()
	for _, statement := range statements {
		if _, err := f.sql.Exec(walContext(tb), statement); err != nil {
			tb.Fatalf("%s: %v", statement, err)
		}
	}
}

func (f *walFixture) ask(tb testing.TB, query string, into any, args ...any) {
	tb.Helper()
	if err := f.sql.QueryRow(walContext(tb), query, args...).Scan(into); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

// role makes a role that can log in, with the attributes given.
func (f *walFixture) role(tb testing.TB, attributes string) (name, password string) {
	tb.Helper()
	name, password = walName("role"), "s3cret-"+rand.Text()
	f.run(tb, "create role "+name+" login password '"+password+"' "+attributes)
	tb.Cleanup(func() { f.run(tb, "drop owned by "+name, "drop role "+name) })
	return name, password
}

// as is the configuration with another user.
func (f *walFixture) as(tb testing.TB, user, password string) wal.Config {
	tb.Helper()
	config := f.config
	config.Database = f.at(tb, func(at *url.URL) { at.User = url.UserPassword(user, password) })
	return config
}

// at is the database's URL with a change.
func (f *walFixture) at(tb testing.TB, change func(*url.URL)) string {
	tb.Helper()
	at, err := url.Parse(f.db.URL)
	if err != nil {
		tb.Fatal("the test database has no URL that parses")
	}
	change(at)
	return at.String()
}

func (f *walFixture) connect(tb testing.TB, config wal.Config) *wal.Conn {
	tb.Helper()
	conn, err := wal.Connect(walContext(tb), config)
	if err != nil {
		tb.Fatalf("connect: %v", err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// ready makes publication and slot.
func (f *walFixture) ready(tb testing.TB) {
	tb.Helper()
	conn := f.connect(tb, f.config)
	if _, err := conn.CreatePublication(walContext(tb)); err != nil {
		tb.Fatal(err)
	}
	if _, err := conn.CreateSlot(walContext(tb)); err != nil {
		tb.Fatal(err)
	}
}

// rows streams until it has n rows and gives their columns as text.
func (f *walFixture) rows(tb testing.TB, config wal.Config, n int) [][]string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(walContext(tb), time.Minute)
	defer cancel()
	stream, err := f.connect(tb, config).Start(ctx, 0)
	if err != nil {
		tb.Fatalf("start: %v", err)
	}
	out, ended := make(chan wal.Batch), make(chan error, 1)
	go func() { ended <- stream.Run(ctx, nil, out) }()
	var rows [][]string
	for batch := range out {
		for _, row := range batch.Rows {
			texts := make([]string, len(row.Columns))
			for i, column := range row.Columns {
				texts[i] = string(column)
			}
			rows = append(rows, texts)
		}
		if len(rows) >= n {
			cancel()
		}
	}
	if err := <-ended; err != nil {
		tb.Fatalf("stream: %v", err)
	}
	if len(rows) != n {
		tb.Fatalf("the stream gave %d rows, want %d", len(rows), n)
	}
	return rows
}

// eventually polls until check holds.
func (f *walFixture) eventually(tb testing.TB, what string, check func() bool) {
	tb.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-deadline.C:
			tb.Fatalf("not within 30 s: %s", what)
		case <-tick.C:
		}
	}
}

// slots is how many slots of our name there are.
func (f *walFixture) slots(tb testing.TB) (n int) {
	tb.Helper()
	f.ask(tb, "select count(*) from pg_replication_slots where slot_name = $1", &n, f.config.Slot)
	return n
}

// wantClass checks that err has the class and says what it should.
func wantClass(tb testing.TB, err error, class fault.Class, texts ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want one of class %v", class)
	}
	if got := fault.Classify(err); got != class {
		tb.Errorf("class %v, want %v: %v", got, class, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			tb.Errorf("%q does not say %q", err, text)
		}
	}
}
