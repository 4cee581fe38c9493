package test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/checkpoint/checkpointtest"
	"github.com/outboxcdc/outboxcdc/migrations"
	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestDatabaseStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	checkpointtest.Run(t, func(t *testing.T) func() checkpoint.Store {
		db := preparedDatabase(t)
		return func() checkpoint.Store { return databaseStore(t, db.URL, checkpointtest.Slot) }
	})
}

func TestKafkaStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	kafka := servers.SharedKafka(t)
	checkpointtest.Run(t, func(t *testing.T) func() checkpoint.Store {
		topic := walName("positions")
		kafka.CreateTopic(t, topic, 1, map[string]string{"cleanup.policy": "compact"})
		return func() checkpoint.Store {
			s, err := checkpoint.Open(walContext(t), "kafka://"+strings.Join(kafka.Bootstrap(), ",")+"/"+topic, checkpoint.Options{Slot: checkpointtest.Slot})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}

// A broker that compacts at once keeps what counts.
func TestAPositionSurvivesTheCompactionOfItsTopic(t *testing.T) {
	t.Parallel()
	kafka := servers.SharedKafka(t)
	topic := walName("positions")
	kafka.CreateTopic(t, topic, 1, map[string]string{
		"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0",
	})
	s, err := checkpoint.Open(walContext(t), "kafka://"+strings.Join(kafka.Bootstrap(), ",")+"/"+topic, checkpoint.Options{Slot: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) //nolint:errcheck // nothing is owed to it
	lsn := wal.LSN(0x100)
	eventually(t, 2*time.Minute, "the topic is compacted", func() bool {
		for range 20 {
			lsn++
			saves(t, s, "orders", lsn)
		}
		return len(kafka.Records(t, topic)) < int(lsn-0x100)/2
	})
	holds(t, s, lsn)
	lsn++
	saves(t, s, "orders", lsn)
	holds(t, s, lsn)
}

// The stream goes on from a topic, and tells of a gap by it.
func TestAStreamGoesOnFromAPositionInATopic(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	topic := walName("positions")
	inTopic := func(c *pipeline.Config) {
		c.Checkpoint = "kafka://" + strings.Join(l.kafka.Bootstrap(), ",") + "/" + topic + "?create=true"
	}
	r := l.run(t, inTopic)
	l.insert(t, "a", "1")
	l.awaitValues(t, "a", "1")
	r.drain(t)
	r = l.run(t, inTopic)
	l.insert(t, "a", "2")
	l.awaitValues(t, "a", "2")
	r.drain(t)
	if got := l.values(t)["a"]; !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("the topic holds %q, want each event once", got)
	}
	l.free(t)
	l.exec(t, "select pg_drop_replication_slot($1)", l.slot)
	wantClass(t, l.begin(t, inTopic).end(t), fault.Operator, "does not exist", "outboxcdc recover --slot "+l.slot)
}

// preparedDatabase has the checkpoint table.
func preparedDatabase(tb testing.TB) *servers.Database {
	tb.Helper()
	db := servers.SharedPostgres(tb)
	applies(tb, db.Conn(tb), migrations.Params{}, made()...)
	return db
}

func databaseStore(tb testing.TB, databaseURL, slot string) checkpoint.Store {
	tb.Helper()
	s, err := checkpoint.Open(walContext(tb), "database", checkpoint.Options{Slot: slot, Database: databaseURL})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func positionOf(slot string, lsn wal.LSN) checkpoint.Position {
	return checkpoint.Position{
		Slot: slot, System: "7398712345678901234", Timeline: 1, Database: "shop",
		LSN: lsn, Time: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC),
	}
}

func saves(tb testing.TB, s checkpoint.Store, slot string, lsn wal.LSN) {
	tb.Helper()
	if err := s.Save(walContext(tb), positionOf(slot, lsn)); err != nil {
		tb.Fatalf("Save of %v = %v", lsn, err)
	}
}

func holds(tb testing.TB, s checkpoint.Store, want wal.LSN) {
	tb.Helper()
	got, err := s.Load(walContext(tb))
	if err != nil || got.LSN != want {
		tb.Fatalf("Load = %v, %v, want %v", got.LSN, err, want)
	}
}

func TestSlotsOfOneDatabaseKeepTheirOwnPositions(t *testing.T) {
	db := preparedDatabase(t)
	orders, payments := databaseStore(t, db.URL, "orders"), databaseStore(t, db.URL, "payments")
	saves(t, orders, "orders", 0x200)
	saves(t, payments, "payments", 0x100)
	holds(t, orders, 0x200)
	holds(t, payments, 0x100)
}

// What Save returned for survives a crash of the server even where it was told not
// to wait for its disk.
func TestASavedPositionSurvivesACrashOfTheServer(t *testing.T) {
	p := servers.Postgres(t, servers.Setting("synchronous_commit", "off"), servers.Setting("wal_writer_delay", "10s"))
	db := p.Database(t)
	applies(t, db.Conn(t), migrations.Params{}, made()...)
	s := databaseStore(t, db.URL, "orders")
	saves(t, s, "orders", 0x100)
	conn := db.Conn(t)
	firstColumn(t, conn, "CREATE TABLE control ()")
	saves(t, s, "orders", 0x200)
	firstColumn(t, conn, "INSERT INTO control DEFAULT VALUES")
	p.Kill9(t)
	p.Start(t)
	holds(t, s, 0x200)
	// A neighbour that did not wait was lost in the same crash, so the crash was one.
	if got := firstColumn(t, db.Conn(t), "SELECT 'kept' FROM control"); len(got) != 0 {
		t.Error("the crash lost nothing at all: it proves nothing")
	}
}

// With synchronous_standby_names = '*' our own stream counts as a standby, and it
// confirms only after the save.
func TestASaveDoesNotWaitForStandbys(t *testing.T) {
	p := servers.Postgres(t)
	db := p.Database(t)
	applies(t, db.Conn(t), migrations.Params{}, made()...)
	p.Configure(t, "synchronous_standby_names", "*")
	s := databaseStore(t, db.URL, "orders")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Save(ctx, positionOf("orders", 0x100)); err != nil {
		t.Fatalf("Save while a standby is awaited = %v", err)
	}
	holds(t, s, 0x100)
}

func TestTheStoreConnectsAgainAfterItsConnectionBroke(t *testing.T) {
	db := preparedDatabase(t)
	s := databaseStore(t, db.URL, "reconnecting")
	admin := db.Conn(t)
	cut := func() {
		t.Helper()
		ended := firstColumn(t, admin, `SELECT pg_terminate_backend(pid, 10000)::text FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'outboxcdc checkpoint reconnecting'`)
		if !slices.Equal(ended, []string{"true"}) {
			t.Fatalf("ended connections: %q, want one", ended)
		}
	}
	saves(t, s, "reconnecting", 0x100)
	cut()
	holds(t, s, 0x100) // a new session begins: the old connection is no error

	saves(t, s, "reconnecting", 0x200)
	cut()
	err := s.Save(walContext(t), positionOf("reconnecting", 0x300))
	wantClass(t, err, fault.Transient)
	saves(t, s, "reconnecting", 0x300)
	holds(t, s, 0x300)
}

func TestARowThatCannotBeTrustedIsNeitherReadNorReplaced(t *testing.T) {
	for name, change := range map[string]struct{ sql, says string }{
		"newer format":       {"UPDATE outboxcdc.checkpoint SET format = 3", "format 3"},
		"no place":           {"UPDATE outboxcdc.checkpoint SET lsn = '0/0', system = ''", "damaged"},
		"no timeline":        {"UPDATE outboxcdc.checkpoint SET timeline = 0, system = ''", "damaged"},
		"timeline too large": {"UPDATE outboxcdc.checkpoint SET timeline = 4294967297", "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			db := preparedDatabase(t)
			s := databaseStore(t, db.URL, "orders")
			saves(t, s, "orders", 0x100)
			db.Exec(t, change.sql)
			const row = "SELECT checkpoint::text FROM outboxcdc.checkpoint"
			before := firstColumn(t, db.Conn(t), row)
			_, err := s.Load(walContext(t))
			if errors.Is(err, checkpoint.ErrNone) {
				t.Error("Load says that nothing is saved")
			}
			wantClass(t, err, fault.Operator, change.says, "orders")
			wantClass(t, s.Save(walContext(t), positionOf("orders", 0x200)), fault.Operator, change.says)
			if after := firstColumn(t, db.Conn(t), row); !slices.Equal(before, after) {
				t.Errorf("the row was %q and is %q", before, after)
			}
		})
	}
}

func TestTheStorePreparesWhatIsMissing(t *testing.T) {
	db := servers.SharedPostgres(t)
	s := databaseStore(t, db.URL, "orders")
	_, err := s.Load(walContext(t))
	wantClass(t, err, fault.Operator, "outboxcdc init")
	wantClass(t, s.Save(walContext(t), positionOf("orders", 0x100)), fault.Operator, "outboxcdc init")

	preparer, ok := s.(checkpoint.Preparer)
	if !ok {
		t.Fatal("the database store prepares nothing")
	}
	for _, want := range [][]string{made(), nil} {
		prepared, err := preparer.Prepare(walContext(t))
		if err != nil || !slices.Equal(prepared, want) {
			t.Fatalf("Prepare = %q, %v, want %q", prepared, err, want)
		}
	}
	if _, err := s.Load(walContext(t)); !errors.Is(err, checkpoint.ErrNone) {
		t.Fatalf("Load = %v, want ErrNone", err)
	}
	saves(t, s, "orders", 0x100)
	if made, err := preparer.Prepare(walContext(t)); err != nil || len(made) != 0 {
		t.Fatalf("Prepare = %q, %v, want nothing to do", made, err)
	}
	holds(t, s, 0x100)
}

func TestAStreamingRoleNeedsOnlyWhatItIsToldOf(t *testing.T) {
	db := servers.SharedPostgres(t)
	nobody := databaseStore(t, loginAs(t, db), "orders")
	preparer, ok := nobody.(checkpoint.Preparer)
	if !ok {
		t.Fatal("the database store prepares nothing")
	}
	_, err := preparer.Prepare(walContext(t))
	wantClass(t, err, fault.Operator, "outboxcdc init")

	applies(t, db.Conn(t), migrations.Params{}, made()...)
	_, err = nobody.Load(walContext(t))
	wantClass(t, err, fault.Operator, "GRANT USAGE ON SCHEMA outboxcdc", "GRANT SELECT, INSERT, UPDATE ON outboxcdc.checkpoint")
	_, err = preparer.Prepare(walContext(t))
	wantClass(t, err, fault.Operator, "GRANT USAGE ON SCHEMA outboxcdc")

	_, advice, _ := strings.Cut(err.Error(), ", or: ")
	db.Exec(t, advice)
	saves(t, nobody, "orders", 0x100)
	saves(t, nobody, "orders", 0x200)
	holds(t, nobody, 0x200)
	if made, err := preparer.Prepare(walContext(t)); err != nil || len(made) != 0 {
		t.Errorf("Prepare = %q, %v, want nothing to do", made, err)
	}
}

// Settings of the role that would break a save or a load.
func TestTheStoreWorksUnderHostileSettings(t *testing.T) {
	db := preparedDatabase(t)
	s := databaseStore(t, loginAs(t, db,
		"GRANT USAGE ON SCHEMA outboxcdc TO $role",
		"GRANT SELECT, INSERT, UPDATE ON outboxcdc.checkpoint TO $role",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON outboxcdc.history TO $role",
		"GRANT SELECT, INSERT, UPDATE ON outboxcdc.outbox_table TO $role",
		"GRANT SELECT, INSERT ON outboxcdc.unsure TO $role",
		"ALTER ROLE $role SET default_transaction_read_only = on",
		"ALTER ROLE $role SET default_transaction_isolation = 'serializable'",
		"ALTER ROLE $role SET statement_timeout = '1ms'",
		"ALTER ROLE $role SET DateStyle = 'German, DMY'",
		"ALTER ROLE $role SET TimeZone = 'Asia/Kathmandu'",
		"ALTER ROLE $role SET client_encoding = 'LATIN1'",
		"ALTER ROLE $role SET search_path = nowhere",
		"ALTER ROLE $role SET synchronous_commit = off"), "orders")
	want := positionOf("orders", 0x100)
	want.Database = "läden"
	want.Delivered = checkpoint.Snapshot{Text: "3:9:5,7", At: 0x80, Time: want.Time.Add(-time.Minute)}
	if err := s.Save(walContext(t), want); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(walContext(t)); err != nil || got != want {
		t.Fatalf("Load = %+v, %v, want %+v", got, err, want)
	}
	h, ok := s.(checkpoint.Historian)
	if !ok {
		t.Fatal("the store keeps no history")
	}
	if err := h.Replace(walContext(t), checkpoint.Entry{Position: want}); err != nil {
		t.Fatal(err)
	}
	if got, err := h.History(walContext(t)); err != nil || len(got) != 1 || got[0].Position != want {
		t.Fatalf("History = %+v, %v, want %+v alone", got, err, want)
	}
}

// What an outboxcdc saved that knew no snapshots is read, and goes on as a row of now.
func TestARowOfTheFirstVersionIsReadAndUpgraded(t *testing.T) {
	db := servers.SharedPostgres(t)
	conn := db.Conn(t)
	first, err := os.ReadFile("../migrations/0001_checkpoint.sql")
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, string(first))
	db.Exec(t, `INSERT INTO outboxcdc.checkpoint VALUES ('orders', 1, '7398712345678901234', 1, 'shop', '0/100', '2026-02-03 04:05:06+00')`)
	s := databaseStore(t, db.URL, "orders")
	_, err = s.Load(walContext(t))
	wantClass(t, err, fault.Operator, "older version", "outboxcdc init")
	preparer, ok := s.(checkpoint.Preparer)
	if !ok {
		t.Fatal("the database store prepares nothing")
	}
	if _, err := preparer.Prepare(walContext(t)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(walContext(t)); err != nil || got != positionOf("orders", 0x100) {
		t.Fatalf("Load = %+v, %v, want what the first version saved", got, err)
	}
	next := positionOf("orders", 0x200)
	next.Delivered = checkpoint.Snapshot{Text: "3:3:", At: 0x180, Time: next.Time}
	if err := s.Save(walContext(t), next); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(walContext(t)); err != nil || got != next {
		t.Fatalf("Load = %+v, %v, want %+v", got, err, next)
	}
	if got := firstColumn(t, conn, "SELECT format::text FROM outboxcdc.checkpoint"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("the row has format %q, want 2, which the first version refuses", got)
	}
}

func TestADatabaseThatLetsNobodyInSaysWhy(t *testing.T) {
	db := servers.SharedPostgres(t)
	s := databaseStore(t, strings.Replace(loginAs(t, db), ":pass@", ":hunter2@", 1), "orders")
	_, err := s.Load(walContext(t))
	wantClass(t, err, fault.Operator, "password")
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows the password: %v", err)
	}
}

// An administrator reads the position with the server's own functions.
func TestTheSavedPositionIsAnLSNToTheServer(t *testing.T) {
	db := preparedDatabase(t)
	saves(t, databaseStore(t, db.URL, "orders"), "orders", 0x100)
	got := firstColumn(t, db.Conn(t), `SELECT (lsn + 256)::text FROM outboxcdc.checkpoint WHERE pg_current_wal_lsn() - lsn > 0`)
	if !slices.Equal(got, []string{wal.LSN(0x200).String()}) {
		t.Errorf("lsn + 256 is %q, want 0/200", got)
	}
}
