package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Stop stops the server and waits until nothing of it runs. A fast stop of a
// server whose log is being streamed waits for the reader to confirm all of it:
// BeginStop leaves that to the test.
func (p *PostgresServer) Stop(tb testing.TB, mode StopMode) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, p.stop(ctx, syscall.Signal(mode)))
}

// BeginStop asks the server to stop and returns at once.
func (p *PostgresServer) BeginStop(tb testing.TB, mode StopMode) {
	tb.Helper()
	must(tb, p.disturbs("stop"))
	must(tb, p.machine.signal(context.Background(), syscall.Signal(mode)))
}

// AwaitStop waits until nothing of the server runs, and fails the test when that
// takes longer than within.
func (p *PostgresServer) AwaitStop(tb testing.TB, within time.Duration) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := p.machine.wait(ctx); err != nil {
		tb.Fatalf("the server has not stopped within %v: %v", within, err)
	}
}

// Kill9 kills the postmaster with SIGKILL and waits until its children, who notice
// by themselves, are gone too: the power cut of tests. What was written but not
// synced survives in the system's cache, as it would not with real power.
func (p *PostgresServer) Kill9(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, p.stop(ctx, syscall.SIGKILL))
}

// Start brings a stopped server up again, on the same port and data.
func (p *PostgresServer) Start(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, p.start(ctx))
}

// Restart stops the server and starts it again.
func (p *PostgresServer) Restart(tb testing.TB, mode StopMode) {
	tb.Helper()
	p.Stop(tb, mode)
	p.Start(tb)
}

// Configure changes a setting for good (ALTER SYSTEM) and restarts the server, so
// that it holds whatever kind it is.
func (p *PostgresServer) Configure(tb testing.TB, name, value string) {
	tb.Helper()
	must(tb, p.disturbs("configure"))
	conn := p.Conn(tb, "postgres")
	_, err := conn.Exec(context.Background(), "alter system set "+pgx.Identifier{name}.Sanitize()+" = "+literal(value))
	must(tb, errors.Join(err, conn.Close(context.Background())))
	p.Restart(tb, Fast)
}

// literal quotes text as SQL does where parameters are not allowed.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// Pid is the postmaster's process, 0 when the server does not run on this host.
func (p *PostgresServer) Pid(tb testing.TB) int {
	tb.Helper()
	return p.machine.pid(context.Background())
}

// Conn opens a connection as superuser; it is closed with the test.
func (p *PostgresServer) Conn(tb testing.TB, database string) *pgx.Conn {
	tb.Helper()
	return connect(tb, p.URL(database))
}

// connect opens a connection that is closed with the test.
func connect(tb testing.TB, url string) *pgx.Conn {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		tb.Fatalf("connect to the test server: %v", err)
	}
	tb.Cleanup(func() { hangUp(conn) })
	return conn
}

// Database is a database of one test.
type Database struct {
	Server *PostgresServer
	Name   string
	URL    string // the superuser's; it carries the password
}

// Database makes an empty database for this test. On a server that others use it
// is dropped with the test, together with its replication slots.
func (p *PostgresServer) Database(tb testing.TB) *Database {
	tb.Helper()
	name := databaseName(tb.Name())
	p.CreateDatabase(tb, name)
	d := &Database{Server: p, Name: name, URL: p.URL(name)}
	if p.shared {
		tb.Cleanup(func() {
			ctx, cancel := bounded()
			defer cancel()
			if err := d.drop(ctx); err != nil {
				tb.Errorf("drop the test's database: %v", err)
			}
		})
	}
	return d
}

// CreateDatabase makes an empty database of this name.
func (p *PostgresServer) CreateDatabase(tb testing.TB, name string) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn, err := p.Connect(ctx, "postgres")
	must(tb, err)
	// Nobody is connected to template0, and a template must have nobody.
	_, err = conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize()+" template template0")
	must(tb, errors.Join(err, conn.Close(ctx)))
}

// databaseName is a name that no other test has and that tells whose it is.
func databaseName(test string) string {
	return plain(test, '_') + "_" + strings.ToLower(rand.Text()[:10])
}

// plain is the beginning of a test's name in letters that need no quoting.
func plain(name string, other rune) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return other
	}, strings.ToLower(name))
	return name[:min(len(name), 40)]
}

// drop drops the database and the slots that hold it.
func (d *Database) drop(ctx context.Context) error {
	conn, err := d.Server.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer hangUp(conn)
	err = poll(ctx, 20*time.Millisecond, func(ctx context.Context) error { return d.dropSlots(ctx, conn) })
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "drop database "+pgx.Identifier{d.Name}.Sanitize()+" with (force)")
	if err != nil {
		return fmt.Errorf("drop database %s: %w", d.Name, err)
	}
	return nil
}

// errSlots means that slots are still there.
var errSlots = errors.New("slots are still in use")

// dropSlots drops the slots of the database that nobody streams, and ends who
// streams the others; that takes effect a moment later.
func (d *Database) dropSlots(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `select case when active_pid is null
		then pg_drop_replication_slot(slot_name)::text
		else pg_terminate_backend(active_pid)::text end
		from pg_replication_slots where database = $1`, d.Name)
	if err != nil {
		return fmt.Errorf("drop the slots of %s: %w", d.Name, err)
	}
	var left int
	err = conn.QueryRow(ctx, "select count(*) from pg_replication_slots where database = $1", d.Name).Scan(&left)
	if err != nil {
		return fmt.Errorf("count the slots of %s: %w", d.Name, err)
	}
	if left > 0 {
		return errSlots
	}
	return nil
}

// Conn opens a connection as superuser; it is closed with the test.
func (d *Database) Conn(tb testing.TB) *pgx.Conn {
	tb.Helper()
	return connect(tb, d.URL)
}

// Exec runs SQL, several statements when there are no args, on a connection of
// its own.
func (d *Database) Exec(tb testing.TB, sql string, args ...any) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn, err := d.Server.Connect(ctx, d.Name)
	must(tb, err)
	_, err = conn.Exec(ctx, sql, args...)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		tb.Fatalf("run SQL on the test's database: %v", err)
	}
}
