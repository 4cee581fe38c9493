package test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Four writers commit as fast as they can while samples are taken. In none of them is
// a transaction visible whose commit record lies behind the sample's position: it
// would be called delivered before it is.
func TestASampleShowsNothingThatCommitsBehindItsPosition(t *testing.T) {
	t.Parallel()
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	f.run(t, "create table samples (snapshot pg_snapshot, at pg_lsn)")
	writing, stop := context.WithCancel(walContext(t))
	defer stop()
	var writers sync.WaitGroup
	for range 4 {
		conn := f.db.Conn(t)
		writers.Go(func() {
			for writing.Err() == nil {
				// Not waiting for the disk leaves more of a commit between its parts.
				_, _ = conn.Exec(writing, `set synchronous_commit = off; insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'a', 'e', '1')`)
			}
		})
	}
	conn, err := wal.Connect(walContext(t), f.config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // nothing is owed to it
	// For a second, and on a slow machine until there is enough to prove something. The
	// rows are counted before an insert that waits for the disk, so they are on it.
	rows, began := 0, time.Now()
	for samples := 0; samples <= 30 || rows <= 300 || time.Since(began) < time.Second; samples++ {
		s, err := conn.Sample(writing)
		if err != nil {
			t.Fatalf("after %d samples and %d rows: %v", samples, rows, err)
		}
		f.ask(t, "select count(*) from outbox", &rows)
		f.run(t, fmt.Sprintf("insert into samples values ('%s', '%s')", s.Snapshot, s.At))
	}
	stop()
	writers.Wait()
	// A commit message of pgoutput holds where its record begins (protocol, Commit).
	const commits = `create table commits as select xid, '0/0'::pg_lsn + ('x' || encode(substring(data from 3 for 8), 'hex'))::bit(64)::bigint::numeric as at
		from pg_logical_slot_peek_binary_changes('%s', null, null, 'proto_version', '1', 'publication_names', '%s') where get_byte(data, 0) = 67`
	f.run(t, fmt.Sprintf(commits, f.config.Slot, f.config.Publication))
	counted := firstColumn(t, f.db.Conn(t), `select concat_ws(' ', (select count(*) from samples) > 30, (select count(*) from commits) > 300)`)
	if counted[0] != "t t" {
		t.Fatalf("too few samples or commits to prove anything: %q", counted)
	}
	wrong := firstColumn(t, f.db.Conn(t), `select concat_ws(' ', 'transaction', c.xid, 'commits at', c.at, 'and is visible in', s.snapshot, 'of', s.at)
		from samples s join commits c on c.at >= s.at and pg_visible_in_snapshot(c.xid::text::xid8, s.snapshot) limit 3`)
	if len(wrong) > 0 {
		t.Errorf("a sample shows what commits behind it: %q", wrong)
	}
}
