package servers

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

func TestPostgresIsReadyForLogicalDecoding(t *testing.T) {
	p := Postgres(t)
	for name, want := range map[string]string{"wal_level": "logical", "fsync": "on", "full_page_writes": "on"} {
		if got := setting(t, p, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	want, err := newConfig(nil).major()
	must(t, err)
	if p.Major() != want {
		t.Errorf("it is version %d, want %d", p.Major(), want)
	}
	ctx := context.Background()
	conn := p.Database(t).Conn(t)
	_, err = conn.Exec(ctx, `create table t (n int); create publication p for table t`)
	must(t, err)
	_, err = conn.Exec(ctx, `select pg_create_logical_replication_slot('s', 'pgoutput')`)
	must(t, err)
	_, err = conn.Exec(ctx, `insert into t values (1)`)
	must(t, err)
	var changes int
	err = conn.QueryRow(ctx, `select count(*) from pg_logical_slot_get_binary_changes('s', null, null,
		'proto_version', '1', 'publication_names', 'p')`).Scan(&changes)
	must(t, err)
	if changes != 4 { // begin, relation, insert, commit
		t.Errorf("pgoutput gave %d messages, want 4", changes)
	}
}

func TestPostgresComesBackWithWhatWasCommitted(t *testing.T) {
	p := Postgres(t)
	address, system := p.Address(), ask[int64](t, p, "select system_identifier from pg_control_system()")
	for name, stop := range map[string]func(){
		"fast":      func() { p.Stop(t, Fast) },
		"immediate": func() { p.Stop(t, Immediate) },
		"smart":     func() { p.Stop(t, Smart) },
		"kill -9":   func() { p.Kill9(t) },
	} {
		d := p.Database(t)
		d.Exec(t, "create table t (n int); insert into t values (1)")
		pid := p.Pid(t)
		stop()
		if p.Pid(t) != 0 || p.ready(context.Background()) == nil {
			t.Errorf("%s: the server still runs", name)
		}
		p.Start(t)
		if pid != 0 && p.Pid(t) == pid || p.Address() != address {
			t.Errorf("%s: pid %d at %s, want another than %d at %s", name, p.Pid(t), p.Address(), pid, address)
		}
		if got := ask[int64](t, p, "select system_identifier from pg_control_system()"); got != system {
			t.Errorf("%s: another cluster is back", name)
		}
		var rows int
		conn := d.Conn(t)
		must(t, conn.QueryRow(context.Background(), "select count(*) from t").Scan(&rows))
		must(t, conn.Close(context.Background())) // a smart stop would wait for it
		if rows != 1 {
			t.Errorf("%s: %d rows are back, want 1", name, rows)
		}
	}
}

// TestKillOfPostgresWaitsForItsBackends is why a start right after a kill works:
// backends that outlive the postmaster keep its shared memory.
func TestKillOfPostgresWaitsForItsBackends(t *testing.T) {
	p := Postgres(t)
	var backends []int
	for range 5 {
		var pid int
		conn := p.Conn(t, "postgres")
		must(t, conn.QueryRow(context.Background(), "select pg_backend_pid()").Scan(&pid))
		if p.Pid(t) != 0 {
			backends = append(backends, pid)
		}
	}
	p.Kill9(t)
	for _, pid := range backends {
		if attached(pid) {
			t.Errorf("backend %d still holds the server's memory", pid)
		}
	}
	p.Start(t)
}

// attached says whether a process has memory: one that is dead but not reaped, or
// about to be, has none.
func attached(pid int) bool {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	return err == nil && len(maps) > 0
}

func TestSmartStopWaitsForClients(t *testing.T) {
	p := Postgres(t)
	conn := p.Conn(t, "postgres")
	p.BeginStop(t, Smart)
	said := fatal(t, func(r *recorder) { p.AwaitStop(r, 300*time.Millisecond) })
	if !strings.Contains(said, "has not stopped") {
		t.Error(said)
	}
	must(t, conn.Close(context.Background()))
	p.AwaitStop(t, startTimeout)
}

func TestSettingsReachPostgres(t *testing.T) {
	p := Postgres(t, Setting("wal_level", "replica"), Setting("application_name", "it's"))
	if got := setting(t, p, "wal_level"); got != "replica" {
		t.Errorf("wal_level is %s, want replica", got)
	}
	if got := ask[string](t, p, "select reset_val from pg_settings where name = 'application_name'"); got != "it's" {
		t.Errorf("application_name is %s, want it's", got)
	}
	p.Configure(t, "wal_level", "logical")
	if got := setting(t, p, "wal_level"); got != "logical" {
		t.Errorf("wal_level is %s after Configure, want logical", got)
	}
}

func TestTwoPostgresDifferInAll(t *testing.T) {
	one, two := Postgres(t), Postgres(t)
	if one.Address() == two.Address() || one.Password() == two.Password() {
		t.Errorf("%s and %s", one.URL("x"), two.URL("x"))
	}
	identify := "select system_identifier from pg_control_system()"
	if ask[int64](t, one, identify) == ask[int64](t, two, identify) {
		t.Error("they are one cluster")
	}
}

func TestPostgresThatCannotStartShowsItsLog(t *testing.T) {
	began := time.Now()
	said := fatal(t, func(r *recorder) { Postgres(r, Setting("shared_buffers", "nonsense")) })
	if !strings.Contains(said, "invalid value for parameter") {
		t.Errorf("the log is missing: %s", said)
	}
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("it took %v to see that the server has ended", took)
	}
}

func TestOnlyKnownMajorsAreOffered(t *testing.T) {
	t.Setenv(EnvDocker, "off")
	t.Setenv(EnvPostgresURL, "")
	said := fatal(t, func(r *recorder) { Postgres(r, Major(13)) })
	if !strings.Contains(said, "14 to 18") {
		t.Error(said)
	}
}

func TestSharedPostgresGivesEachTestADatabaseOfItsOwn(t *testing.T) {
	var first *Database
	all := t
	t.Run("first", func(t *testing.T) {
		first = SharedPostgres(t)
		first.Exec(t, "create table t (n int); create publication p for table t")
		first.Exec(t, "select pg_create_logical_replication_slot('shared_one', 'pgoutput')")
		first.Exec(t, "select pg_create_logical_replication_slot('shared_two', 'pgoutput')")
		stream(all, first, "shared_two") // still streams when the database is dropped
	})
	second := SharedPostgres(t)
	if second.Server != first.Server {
		t.Error("the server is not shared")
	}
	if ask[bool](t, second.Server, "select exists (select from pg_replication_slots where slot_name like 'shared%')") {
		t.Error("a slot of the first test is still there")
	}
	if ask[bool](t, second.Server, "select exists (select from pg_database where datname = '"+first.Name+"')") {
		t.Error("the database of the first test is still there")
	}
	said := fatal(t, func(r *recorder) { second.Server.Stop(r, Fast) })
	if !strings.Contains(said, "other tests use it") {
		t.Error(said)
	}
	must(t, second.Conn(t).Ping(context.Background()))
}

// stream makes the slot active until its connection is ended from elsewhere.
func stream(tb testing.TB, d *Database, slot string) {
	tb.Helper()
	ctx := context.Background()
	conn, err := pgconn.Connect(ctx, d.URL+"&replication=database")
	must(tb, err)
	tb.Cleanup(func() { _ = conn.Conn().Close() })
	conn.Frontend().Send(&pgproto3.Query{String: `START_REPLICATION SLOT "` + slot + `" LOGICAL 0/0 (proto_version '1', publication_names 'p')`})
	must(tb, conn.Frontend().Flush())
	eventually(tb, "the slot is active", func() bool {
		return ask[bool](tb, d.Server, "select active from pg_replication_slots where slot_name = '"+slot+"'")
	})
}

func TestAGivenPostgresIsUsedAndLeftAlone(t *testing.T) {
	own := Postgres(t)
	t.Setenv(EnvPostgresURL, own.URL("postgres"))
	p := Postgres(t)
	if p.Address() != own.Address() {
		t.Fatalf("%s is used, want the given %s", p.Address(), own.Address())
	}
	name := ""
	t.Run("database", func(t *testing.T) { name = p.Database(t).Name })
	if ask[bool](t, own, "select exists (select from pg_database where datname = '"+name+"')") {
		t.Error("a test's database is left behind on the given server")
	}
	for what, do := range map[string]func(*recorder){
		"stop":      func(r *recorder) { p.Stop(r, Fast) },
		"begin":     func(r *recorder) { p.BeginStop(r, Fast) },
		"kill":      func(r *recorder) { p.Kill9(r) },
		"start":     func(r *recorder) { p.Start(r) },
		"configure": func(r *recorder) { p.Configure(r, "work_mem", "1MB") },
		"setting":   func(r *recorder) { Postgres(r, Setting("wal_level", "replica")) },
		"major":     func(r *recorder) { Postgres(r, Major(own.Major()-1)) },
	} {
		if said := fatal(t, do); !strings.Contains(said, EnvPostgresURL) {
			t.Errorf("%s: the error does not name the variable: %s", what, said)
		}
	}
	must(t, p.Close())
	must(t, own.ready(context.Background()))
	if got := setting(t, own, "work_mem"); got == "1MB" {
		t.Error("the given server was configured")
	}
}

func TestAMalformedURLKeepsItsPassword(t *testing.T) {
	t.Setenv(EnvPostgresURL, "postgres://u:s3cret@host:port%zz/")
	said := fatal(t, func(r *recorder) { Postgres(r) })
	if strings.Contains(said, "s3cret") || !strings.Contains(said, EnvPostgresURL) {
		t.Error(said)
	}
}

func TestStopModesAreNamedAsByPgCtl(t *testing.T) {
	for mode, want := range map[StopMode]string{Smart: "smart", Fast: "fast", Immediate: "immediate", StopMode(syscall.SIGHUP): "hangup"} {
		if mode.String() != want {
			t.Errorf("%v, want %s", mode, want)
		}
	}
}
