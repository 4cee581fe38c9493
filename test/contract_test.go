package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

// The contract between the fake server and real ones: the same script runs against
// both, and what the client sees must be the same. Positions are compared by what
// they are the position of, never by their number.

// stage is a server with a published table, a slot, and somebody who writes.
type stage interface {
	// connect opens a replication connection with settings of its start-up packet.
	connect(tb testing.TB, settings map[string]string) *pgconn.PgConn
	// write does one thing to the log: see contractWrites.
	write(tb testing.TB, what string, ids ...string)
	confirmed(tb testing.TB) wal.LSN
	// end is the end of the log.
	end(tb testing.TB) wal.LSN
	// stop begins a fast shutdown.
	stop(tb testing.TB)
}

// script is played on a stage and says what it sees.
type script struct {
	name string
	own  bool // needs a server that may be stopped
	play func(tb testing.TB, s stage, say func(format string, args ...any))
}

func TestFakeServerKeepsTheContractOfRealOnes(t *testing.T) {
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			stage := newRealStage(t, s.own)
			genuine := perform(t, s, stage)
			fake := perform(t, s, newFakeStage(stage.db.Server.Major()))
			if d := cmp.Diff(genuine, fake); d != "" {
				t.Errorf("the real server (-) and the fake one (+) differ:\n%s", d)
			}
			if len(fake) == 0 {
				t.Error("the script saw nothing")
			}
		})
	}
}

func perform(tb testing.TB, s script, on stage) (transcript []string) {
	tb.Helper()
	s.play(tb, on, func(format string, args ...any) { transcript = append(transcript, fmt.Sprintf(format, args...)) })
	return transcript
}

// fakeStage is waltest's server.
type fakeStage struct {
	server *waltest.Server
	table  []byte // its description
}

func newFakeStage(major int) *fakeStage {
	server := waltest.NewServer(0x1000000)
	server.Major = major
	return &fakeStage{server, waltest.Relation(16400, "public", "outbox", "id")}
}

func (f *fakeStage) connect(tb testing.TB, settings map[string]string) *pgconn.PgConn {
	tb.Helper()
	return replicate(tb, "host=db user=u dbname=d sslmode=disable", settings, f.server.Dial)
}

func (f *fakeStage) confirmed(testing.TB) wal.LSN { return f.server.Confirmed() }
func (f *fakeStage) end(testing.TB) wal.LSN       { return f.server.End() }
func (f *fakeStage) stop(testing.TB)              { f.server.Shutdown() }

func (f *fakeStage) write(tb testing.TB, what string, ids ...string) {
	tb.Helper()
	table := f.table
	wider := waltest.Relation(16400, "public", "outbox", "id", "more")
	row := func(id string) []byte { return waltest.Insert(16400, []byte(id)) }
	switch what {
	case "insert":
		messages := [][]byte{table}
		for _, id := range ids {
			messages = append(messages, row(id))
		}
		f.server.Transaction(7, messages...)
	case "savepoint": // the second is rolled back
		f.server.Transaction(7, table, row(ids[0]))
	case "interleave": // the second commits first
		f.server.Transaction(8, table, row(ids[1]))
		f.server.Transaction(7, table, row(ids[0]))
	case "alter": // a column comes in between
		f.server.Transaction(7, table, row(ids[0]), wider, waltest.Insert(16400, []byte(ids[1]), nil))
		f.table = wider
	case "rollback", "neighbour":
		f.server.Idle(4096)
	default:
		tb.Fatalf("nobody knows how to %s", what)
	}
}

// realStage is a database of a real server.
type realStage struct {
	db   *servers.Database
	slot string
	run  func(tb testing.TB, statements ...string)
	ask  func(tb testing.TB, query string, into any, args ...any)
}

func newRealStage(tb testing.TB, own bool) *realStage {
	tb.Helper()
	var db *servers.Database
	if own {
		db = servers.Postgres(tb).Database(tb)
	} else {
		db = servers.SharedPostgres(tb)
	}
	f := &walFixture{db: db, sql: db.Server.Conn(tb, db.Name)}
	r := &realStage{db: db, slot: walName("contract"), run: f.run, ask: f.ask}
	f.run(tb, "create table outbox (id text)", "create table other (id text)",
		"create publication outboxcdc for table outbox with (publish = 'insert')",
		"select pg_create_logical_replication_slot('"+r.slot+"', 'pgoutput')")
	return r
}

func (r *realStage) connect(tb testing.TB, settings map[string]string) *pgconn.PgConn {
	tb.Helper()
	return replicate(tb, r.db.URL, settings, nil)
}

func (r *realStage) confirmed(tb testing.TB) wal.LSN {
	tb.Helper()
	return r.position(tb, "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1", r.slot)
}

func (r *realStage) end(tb testing.TB) wal.LSN {
	tb.Helper()
	return r.position(tb, "select pg_current_wal_insert_lsn()::text")
}

func (r *realStage) position(tb testing.TB, query string, args ...any) wal.LSN {
	tb.Helper()
	var text string
	r.ask(tb, query, &text, args...)
	lsn, err := wal.ParseLSN(text)
	if err != nil {
		tb.Fatal(err)
	}
	return lsn
}

func (r *realStage) stop(tb testing.TB) { tb.Helper(); r.db.Server.BeginStop(tb, servers.Fast) }

func (r *realStage) write(tb testing.TB, what string, ids ...string) {
	tb.Helper()
	row := func(id string) string { return "insert into outbox (id) values ('" + id + "')" }
	// Its walsender may sleep through a commit (see wal.DefaultStatusInterval), which the
	// signal to read the configuration again ends.
	defer r.run(tb, "select pg_reload_conf()")
	switch what {
	case "insert":
		statements := []string{"begin"}
		for _, id := range ids {
			statements = append(statements, row(id))
		}
		r.run(tb, append(statements, "commit")...)
	case "savepoint":
		r.run(tb, "begin", row(ids[0]), "savepoint s", row(ids[1]), "rollback to s", "commit")
	case "interleave":
		other := r.db.Server.Conn(tb, r.db.Name)
		r.run(tb, "begin", row(ids[0]))
		if _, err := other.Exec(walContext(tb), row(ids[1])); err != nil {
			tb.Fatal(err)
		}
		r.run(tb, "commit")
	case "alter":
		r.run(tb, "begin", row(ids[0]), "alter table outbox add more text", row(ids[1]), "commit")
	case "rollback":
		r.run(tb, "begin", row(ids[0]), "rollback")
	case "neighbour":
		r.run(tb, "insert into other select 'x' from generate_series(1, 100)")
	default:
		tb.Fatalf("nobody knows how to %s", what)
	}
}

// replicate opens a replication connection; dial replaces the network.
func replicate(tb testing.TB, database string, settings map[string]string, dial pgconn.DialFunc) *pgconn.PgConn {
	tb.Helper()
	config, err := pgconn.ParseConfig(database)
	if err != nil {
		tb.Fatal("the test database has no URL that parses")
	}
	config.RuntimeParams["replication"] = "database"
	maps.Copy(config.RuntimeParams, settings)
	if dial != nil {
		config.DialFunc = dial
		config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	pg, err := pgconn.ConnectConfig(walContext(tb), config)
	if err != nil {
		tb.Fatalf("connect: %v", err)
	}
	tb.Cleanup(func() { cut(pg) })
	return pg
}

// cut ends a connection as a network does, without a goodbye.
func cut(pg *pgconn.PgConn) { pg.Conn().Close() }

// reader is a streaming client.
type reader struct {
	tb        testing.TB
	pg        *pgconn.PgConn
	stage     stage
	keepalive struct {
		end   wal.LSN
		reply bool
	}
}

// contractStream starts the slot at a position; while it is busy with a client that has just
// gone it waits.
func contractStream(tb testing.TB, s stage, from wal.LSN, settings map[string]string) *reader {
	tb.Helper()
	var failed error
	for range 50 {
		r := &reader{tb: tb, pg: s.connect(tb, settings), stage: s}
		if failed = r.start(from); failed == nil {
			return r
		}
		wait := time.NewTimer(100 * time.Millisecond)
		<-wait.C
	}
	tb.Fatalf("start: %v", failed)
	return nil
}

func (r *reader) start(from wal.LSN) error {
	slot := "orders"
	if genuine, ok := r.stage.(*realStage); ok {
		slot = genuine.slot
	}
	return pglogrepl.StartReplication(walContext(r.tb), r.pg, slot, pglogrepl.LSN(from), pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names 'outboxcdc'"},
	})
}

// next gives the next message: of pgoutput by its kind, with its body, 'k' for a
// keepalive, other kinds of frames by name, or why nothing came.
func (r *reader) next(patience time.Duration) (kind string, body []byte) {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	message, err := r.pg.ReceiveMessage(ctx)
	if err != nil {
		if pgconn.Timeout(err) {
			return "nothing", nil
		}
		return "end", nil
	}
	switch m := message.(type) {
	case *pgproto3.CopyData:
		return r.data(m.Data)
	case *pgproto3.CommandComplete:
		return "CommandComplete " + string(m.CommandTag), nil
	default:
		return strings.TrimPrefix(fmt.Sprintf("%T", message), "*pgproto3."), nil
	}
}

func (r *reader) data(data []byte) (string, []byte) {
	if data[0] == 'k' {
		r.keepalive.end, r.keepalive.reply = wal.LSN(binary.BigEndian.Uint64(data[1:])), data[17] == 1
		return "k", nil
	}
	return string(data[25]), append([]byte(nil), data[26:]...)
}

// seen is one transaction as the client sees it.
type seen struct {
	what        string // its rows and what came between
	commit, end wal.LSN
}

// transaction reads until a commit, or says what came instead.
func (r *reader) transaction() seen {
	r.tb.Helper()
	var t seen
	for {
		kind, body := r.next(20 * time.Second)
		switch kind {
		case "k":
		case "B":
			t.what += "begin"
		case "R":
			t.what += fmt.Sprintf(" relation of %d columns", len(relationColumns(r.tb, body)))
		case "I":
			t.what += " " + insertedID(body)
		case "C":
			t.commit, t.end = wal.LSN(binary.BigEndian.Uint64(body[1:])), wal.LSN(binary.BigEndian.Uint64(body[9:]))
			t.what += " commit"
			return t
		default:
			t.what += " " + kind
			return t
		}
	}
}

func relationColumns(tb testing.TB, body []byte) []*pglogrepl.RelationMessageColumn {
	tb.Helper()
	m, err := pglogrepl.Parse(append([]byte{'R'}, body...))
	if err != nil {
		tb.Fatal(err)
	}
	return m.(*pglogrepl.RelationMessage).Columns
}

// insertedID is the first column of an insert: oid, 'N', number of columns, 't', length, text.
func insertedID(body []byte) string {
	size := binary.BigEndian.Uint32(body[8:])
	return string(body[12 : 12+size])
}

// status tells the server a position in each field.
func (r *reader) status(write, flush, apply wal.LSN, reply bool) {
	r.tb.Helper()
	body := []byte{'r'}
	for _, lsn := range []wal.LSN{write, flush, apply, 0} {
		body = binary.BigEndian.AppendUint64(body, uint64(lsn))
	}
	last := byte(0)
	if reply {
		last = 1
	}
	r.pg.Frontend().Send(&pgproto3.CopyData{Data: append(body, last)})
	if err := r.pg.Frontend().Flush(); err != nil {
		r.tb.Logf("write a status: %v", err)
	}
}

// end ends the copy and waits until the server has done so, too: by then it has taken in
// all that it was told. A keepalive proves nothing, since it may have been on its way.
func (r *reader) end() {
	r.tb.Helper()
	r.pg.Frontend().Send(&pgproto3.CopyDone{})
	if err := r.pg.Frontend().Flush(); err != nil {
		r.tb.Fatal(err)
	}
	for kind := ""; kind != "ReadyForQuery"; {
		if kind, _ = r.next(time.Minute); kind == "nothing" || kind == "end" {
			r.tb.Fatalf("the server said %q instead of ending the copy", kind)
		}
	}
}

// ack confirms a position, as the last thing that this reader does, and waits until the
// server has taken it in.
func (r *reader) ack(lsn wal.LSN) {
	r.tb.Helper()
	r.status(lsn, lsn, lsn, true)
	r.end()
}

// refusal is the SQLSTATE of an error.
func refusal(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

// compare names how a position lies to another.
func compare(a, b wal.LSN) string {
	switch {
	case a < b:
		return "before"
	case a > b:
		return "behind"
	default:
		return "at"
	}
}
