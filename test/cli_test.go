package test

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// answer is what a run of the command gave.
type answer struct {
	exit        int
	out, errors string
}

// command runs outboxcdc with nothing in its environment that would configure it,
// but for env.
func command(tb testing.TB, env []string, args ...string) answer {
	tb.Helper()
	path := binaryPath(tb) // the first to ask builds it, which may take longer than a run
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "OUTBOXCDC_") && !strings.HasPrefix(entry, "PG") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		tb.Fatalf("outboxcdc %s did not end by itself: %v\n%s", args[0], err, errOut.String())
	}
	return answer{exit: cmd.ProcessState.ExitCode(), out: out.String(), errors: errOut.String()}
}

// wantRefusal wants an exit code and what must be mended below nothing but logs, one
// sentence for each thing, the first with all of texts in it.
func wantRefusal(tb testing.TB, got answer, exit int, texts ...string) {
	tb.Helper()
	if got.exit != exit {
		tb.Errorf("exit %d, want %d", got.exit, exit)
	}
	logs, sentences, found := strings.Cut("\n"+got.errors, "\noutboxcdc: ")
	if !found {
		tb.Errorf("there is no sentence of ours")
	}
	for line := range strings.Lines(strings.TrimPrefix(logs, "\n")) {
		if !strings.HasPrefix(line, "time=") {
			tb.Errorf("a line is neither a log nor a sentence: %s", line)
		}
	}
	sentence, more, _ := strings.Cut(sentences, "\n")
	for line := range strings.Lines(more) {
		if !strings.HasPrefix(line, "outboxcdc: ") {
			tb.Errorf("a line among the sentences is none: %s", line)
		}
	}
	for _, text := range texts {
		if !strings.Contains(sentence, text) {
			tb.Errorf("the sentence does not say %q", text)
		}
	}
	if tb.Failed() {
		tb.Logf("stderr:\n%s", got.errors)
	}
}

// mistake is something that a user gets wrong on a database that is sound.
type mistake struct {
	command string // stream unless it is given
	sql     string // run before, SLOT stands for the slot
	url     func(*url.URL)
	args    []string
	exit    int
	says    []string
}

// mistakes are the bad inputs that a stream must answer with one sentence. Those
// that need a server or a database of their own have tests of their own below.
func mistakes() map[string]mistake {
	return map[string]mistake{
		"wrong scheme": {
			url:  func(u *url.URL) { u.Scheme = "mysql" },
			exit: fault.ExitUsage, says: []string{"database URL", "postgres://"},
		},
		"misspelt parameter": {
			url:  func(u *url.URL) { u.RawQuery = "sslmod=disable" },
			exit: fault.ExitUsage, says: []string{"database URL", "sslmode"},
		},
		"wrong password": {
			url:  func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "s3cret-wrong") },
			exit: fault.ExitOperator, says: []string{"28P01", "password"},
		},
		"unknown database": {
			url: func(u *url.URL) { u.Path = "/nowhere" }, exit: fault.ExitOperator, says: []string{"nowhere", "3D000"},
		},
		"missing table": {
			sql: "drop table outbox", exit: fault.ExitOperator, says: []string{"public.outbox", "outboxcdc init"},
		},
		"unknown table": {
			args: []string{"--table", "sales.events"}, exit: fault.ExitOperator, says: []string{"sales.events", "--table"},
		},
		"missing column": {
			sql: "alter table outbox drop column payload", exit: fault.ExitOperator, says: []string{"public.outbox", "payload"},
		},
		"publication without insert": {
			sql:  "alter publication outboxcdc set (publish = 'update')",
			exit: fault.ExitOperator, says: []string{"publication outboxcdc", "insert", "ALTER PUBLICATION"},
		},
		"publication of other tables": {
			sql:  "create table other (); alter publication outboxcdc set table other",
			exit: fault.ExitOperator, says: []string{"publication outboxcdc", "public.outbox"},
		},
		"physical slot": {
			sql:  "select pg_drop_replication_slot('SLOT'); select pg_create_physical_replication_slot('SLOT')",
			exit: fault.ExitOperator, says: []string{"SLOT", "physical"},
		},
		"malformed sink URL": {
			args: []string{"--sink", "kafka:b1:9092"}, exit: fault.ExitUsage, says: []string{"sink", "kafka://"},
		},
		"unknown sink": {
			args: []string{"--sink", "ftp://b1"}, exit: fault.ExitUsage, says: []string{"sink", "kafka://", "stdout"},
		},
		"unknown Kafka setting": {
			args: []string{"--sink", "kafka://b1:9092?lingerms=5"}, exit: fault.ExitUsage, says: []string{"sink", "linger.ms"},
		},
		"illegal topic": {
			args: []string{"--topic", "a b"}, exit: fault.ExitUsage, says: []string{"topic", "a b"},
		},
		"unknown checkpoint": {
			args: []string{"--checkpoint", "ftp://x"}, exit: fault.ExitUsage, says: []string{"checkpoint", "file:///"},
		},
		"no server at the address": {
			command: "init", url: func(u *url.URL) { u.Host = "127.0.0.1:1" }, exit: fault.ExitTransient, says: []string{"127.0.0.1:1"},
		},
	}
}

func TestBadInputIsAnsweredWithOneSentenceAndItsExitCode(t *testing.T) {
	for name, m := range mistakes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newWalFixture(t, servers.SharedPostgres(t))
			f.ready(t)
			if m.sql != "" {
				f.run(t, strings.ReplaceAll(m.sql, "SLOT", f.config.Slot))
			}
			wantRefusal(t, f.command(t, m), m.exit, m.sayings(f.config.Slot)...)
		})
	}
}

func (m mistake) sayings(slot string) []string {
	says := make([]string, len(m.says))
	for i, text := range m.says {
		says[i] = strings.ReplaceAll(text, "SLOT", slot)
	}
	return says
}

// command runs the command of a mistake against the fixture's database, and sees
// that no password is shown.
func (f *walFixture) command(tb testing.TB, m mistake) answer {
	tb.Helper()
	at := f.db.URL
	if m.url != nil {
		at = f.at(tb, m.url)
	}
	name := m.command
	if name == "" {
		name = "stream"
	}
	args := []string{name, "--slot", f.config.Slot}
	if name == "stream" {
		args = append(args, "--sink", "stdout://", "--http", "off")
	}
	got := command(tb, []string{"OUTBOXCDC_DATABASE_URL=" + at}, append(args, m.args...)...)
	u, err := url.Parse(at)
	if err != nil {
		tb.Fatal("the database's URL does not parse")
	}
	if password, _ := u.User.Password(); password != "" && strings.Contains(got.out+got.errors, password) {
		tb.Error("the password is shown")
	}
	return got
}

func TestARowFilterIsRefused(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	if f.db.Server.Major() < 15 {
		t.Log("publications have had row filters since 15: nothing to refuse")
		return
	}
	f.ready(t)
	f.run(t, "alter publication outboxcdc set table outbox where (aggregate_type = 'order')")
	wantRefusal(t, f.command(t, mistake{}), fault.ExitOperator, "publication outboxcdc", "filter")
}

func TestASlotOfAnotherDatabaseIsRefused(t *testing.T) {
	here, there := newWalFixture(t, servers.SharedPostgres(t)), newWalFixture(t, servers.SharedPostgres(t))
	here.ready(t)
	there.ready(t)
	here.config.Slot = there.config.Slot
	wantRefusal(t, here.command(t, mistake{}), fault.ExitOperator, there.config.Slot, there.db.Name)
}

func TestARoleWithoutReplicationIsTold(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	name, password := f.role(t, "")
	f.run(t, "create schema outboxcdc", "grant all on schema outboxcdc to "+name, "grant create on database "+f.db.Name+" to "+name)
	wantRefusal(t, f.command(t, mistake{url: func(u *url.URL) { u.User = url.UserPassword(name, password) }}),
		fault.ExitOperator, name, "REPLICATION")
}

func TestAServerWithoutLogicalLogIsTold(t *testing.T) {
	f := newWalFixture(t, servers.Postgres(t, servers.Setting("wal_level", "replica")).Database(t))
	wantRefusal(t, f.command(t, mistake{}), fault.ExitOperator, "wal_level", "logical")
	wantRefusal(t, f.command(t, mistake{command: "init"}), fault.ExitOperator, "wal_level")
}

func TestAnUnknownTopicIsNamed(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	sink := "kafka://" + strings.Join(servers.SharedKafka(t).Bootstrap(), ",")
	args := []string{"--sink", sink, "--topic", "nobody.made.this"}
	wantRefusal(t, f.command(t, mistake{args: args}), fault.ExitOperator, "nobody.made.this", "--create-topics")
}

func TestASlotThatWentMissingIsNotMadeAgain(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	position := "file://" + t.TempDir() + "/position"
	args := []string{"--slot", f.config.Slot, "--database-url", f.db.URL, "--sink", "stdout://", "--http", "off", "--checkpoint", position}
	s := stream(t, args...)
	f.eventually(t, "the first start makes the slot and streams", func() bool { return strings.Contains(s.log.String(), "msg=streaming") })
	if exit := s.stop(t); exit != 0 {
		t.Fatalf("the first run ended with %d", exit)
	}
	f.eventually(t, "the slot is free", func() (free bool) {
		f.ask(t, "select not active from pg_replication_slots where slot_name = $1", &free, f.config.Slot)
		return free
	})
	f.run(t, "select pg_drop_replication_slot('"+f.config.Slot+"')")
	got := f.command(t, mistake{args: []string{"--checkpoint", position}})
	wantRefusal(t, got, fault.ExitOperator, "slot "+f.config.Slot, "does not exist")
	if n := f.slots(t); n != 0 {
		t.Errorf("there are %d slots, want none made", n)
	}
}

func TestInitMakesEverythingOnceAndSaysSo(t *testing.T) {
	t.Parallel()
	db := servers.SharedPostgres(t)
	slot := walName("slot")
	env := []string{"OUTBOXCDC_DATABASE_URL=" + db.URL, "OUTBOXCDC_SLOT=" + slot, "OUTBOXCDC_SINK=stdout://"}
	if got := command(t, env, "check"); got.exit != fault.ExitOperator || !strings.Contains(got.out, "fix: ") {
		t.Errorf("check before init: exit %d\n%s%s", got.exit, got.out, got.errors)
	}
	first, second := command(t, env, "init"), command(t, env, "init")
	for _, got := range []answer{first, second} {
		// The shared server has transactions of other tests, for which a new slot waits.
		said := slices.DeleteFunc(strings.Split(got.errors, "\n"), func(line string) bool {
			return line == "" || strings.Contains(line, "only when a running transaction ends")
		})
		if got.exit != 0 || len(said) > 0 {
			t.Fatalf("init: exit %d\n%s%s", got.exit, got.out, got.errors)
		}
	}
	for _, what := range []string{"checkpoint", "outbox public.outbox", "publication outboxcdc", "slot " + slot} {
		if !strings.Contains(first.out, what) {
			t.Errorf("the first init does not speak of %s:\n%s", what, first.out)
		}
	}
	if strings.Contains(first.out, "was there") || strings.Contains(second.out, "made") {
		t.Errorf("init says\n%sand then\n%s", first.out, second.out)
	}
	if got := command(t, env, "check"); got.exit != 0 || strings.Contains(got.out, "failure") || strings.Contains(got.out, "named by rows") {
		t.Errorf("check after init, with a sink that has no topics: exit %d\n%s%s", got.exit, got.out, got.errors)
	}
}

func TestPrintedSQLMakesWhatInitMakes(t *testing.T) {
	t.Parallel()
	db := servers.SharedPostgres(t)
	slot := walName("slot")
	printed := command(t, nil, "init", "--slot", slot, "--print-sql")
	if printed.exit != 0 || printed.errors != "" {
		t.Fatalf("exit %d\n%s", printed.exit, printed.errors)
	}
	for range 2 { // it may run again
		runAsPsql(t, db, printed.out)
	}
	env := []string{"OUTBOXCDC_DATABASE_URL=" + db.URL}
	if got := command(t, env, "init", "--slot", slot); got.exit != 0 || strings.Contains(got.out, "made") {
		t.Errorf("init after the printed SQL: exit %d\n%s%s", got.exit, got.out, got.errors)
	}
	if got := command(t, env, "check", "--slot", slot, "--sink", "stdout://"); got.exit != 0 {
		t.Errorf("check after the printed SQL: exit %d\n%s%s", got.exit, got.out, got.errors)
	}
}

// runAsPsql runs what init printed the way psql does, each statement for itself: a
// slot cannot be made in a transaction that has written.
func runAsPsql(tb testing.TB, db *servers.Database, sql string) {
	tb.Helper()
	tables, rest, found := strings.Cut(sql, "\n-- The publication")
	if !found {
		tb.Fatalf("the SQL has no publication:\n%s", sql)
	}
	const last = "END $outboxcdc$;\n"
	publication, slot, found := strings.Cut(rest, last)
	if !found {
		tb.Fatalf("the SQL has no slot:\n%s", sql)
	}
	db.Exec(tb, tables)
	db.Exec(tb, "-- The publication"+publication+last)
	db.Exec(tb, slot)
}
