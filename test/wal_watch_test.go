package test

import (
	"context"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// watching is a Watch that runs beside the test.
type watching struct {
	seen  chan wal.WatchState // the latest
	ended chan error
	stop  func()
}

// watch starts a Watch and waits for its first look.
func (f *walFixture) watch(tb testing.TB, interval time.Duration) *watching {
	tb.Helper()
	ctx, stop := context.WithCancel(walContext(tb))
	tb.Cleanup(stop)
	w := &watching{seen: make(chan wal.WatchState, 1), ended: make(chan error, 1), stop: stop}
	go func() {
		w.ended <- wal.Watch(ctx, f.config, interval, new(wal.Memory), func(s wal.WatchState) {
			select {
			case <-w.seen:
			default:
			}
			w.seen <- s
		})
	}()
	select {
	case <-w.seen:
	case err := <-w.ended:
		tb.Fatalf("watch ended at once: %v", err)
	case <-time.After(30 * time.Second):
		tb.Fatal("watch has not looked within 30 s")
	}
	return w
}

func (w *watching) end(tb testing.TB, within time.Duration) error {
	tb.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(within):
		tb.Fatalf("watch has not ended within %v", within)
		return nil
	}
}

func TestWatchEndsWhenRowsWouldPassUnsent(t *testing.T) {
	const publication = "create publication outboxcdc for table outbox "
	for name, c := range map[string]struct {
		since int
		sql   []string // one transaction, so that no look falls in between
		want  string
	}{
		"table dropped":                {0, []string{"drop table outbox"}, "there is no such table"},
		"table renamed":                {0, []string{"alter table outbox rename to gone"}, "there is no such table"},
		"table made anew":              {0, []string{"drop table outbox", walOutbox}, "not in it"},
		"table made anew and added":    {0, []string{"drop table outbox", walOutbox, "alter publication outboxcdc add table outbox"}, "dropped and made again"},
		"table removed":                {0, []string{"alter publication outboxcdc drop table outbox"}, "not in it"},
		"table removed and returned":   {0, []string{"alter publication outboxcdc drop table outbox", "alter publication outboxcdc add table outbox"}, "left the publication and came back"},
		"publication dropped":          {0, []string{"drop publication outboxcdc"}, "publication outboxcdc"},
		"publication made anew":        {0, []string{"drop publication outboxcdc", publication + "with (publish = 'insert')"}, "its publication was dropped and made again"},
		"inserts left out for a while": {0, []string{"alter publication outboxcdc set (publish = 'delete')", "alter publication outboxcdc set (publish = 'insert')"}, "its publication was altered"},
		"inserts not published":        {0, []string{"alter publication outboxcdc set (publish = 'delete')"}, "does not publish inserts"},
		"row filter":                   {15, []string{"alter publication outboxcdc set table outbox where (aggregate_id <> '')"}, "row filter"},
		"column list":                  {15, []string{"alter publication outboxcdc set table outbox (aggregate_id)"}, "leaves out"},
		"column dropped":               {0, []string{"alter table outbox drop column payload"}, "no column payload"},
		"slot dropped":                 {0, []string{"select pg_drop_replication_slot('SLOT')"}, "it does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newWalFixture(t, servers.SharedPostgres(t))
			if f.db.Server.Major() < c.since {
				return // this server cannot be brought into that state
			}
			f.ready(t)
			w := f.watch(t, 20*time.Millisecond)
			// Rename keeps membership, and a healthy publication is no event.
			f.run(t, "insert into outbox (aggregate_type, aggregate_id, event_type) values ('a', 'b', 'c')", "begin")
			for _, statement := range c.sql {
				if statement == "select pg_drop_replication_slot('SLOT')" {
					statement = "select pg_drop_replication_slot('" + f.config.Slot + "')"
				}
				f.run(t, statement)
			}
			f.run(t, "commit")
			wantClass(t, w.end(t, 30*time.Second), fault.Operator, c.want)
		})
	}
}

func TestWatchSeesTheSlotAndEndsWithItsContext(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	w := f.watch(t, 10*time.Millisecond)
	f.run(t, "insert into outbox (aggregate_type, aggregate_id, event_type) select 'a', 'b', repeat('c', 100) from generate_series(1, 1000)")
	f.eventually(t, "watch sees the retained log grow", func() bool {
		s := <-w.seen
		return s.Slot.Name == f.config.Slot && s.Slot.RetainedBytes > 100_000 && s.End > s.Slot.Confirmed && !s.Slot.Active
	})
	w.stop()
	wantClass(t, w.end(t, 10*time.Second), fault.Stopped)
}

func TestWatchNoticesAtOnceThatTheServerShutsDown(t *testing.T) {
	server := servers.Postgres(t)
	f := newWalFixture(t, server.Database(t))
	f.ready(t)
	// The next look is far away, so only listening can notice.
	w := f.watch(t, time.Hour)
	server.BeginStop(t, servers.Fast)
	wantClass(t, w.end(t, 10*time.Second), fault.Transient, "57P01")
	server.AwaitStop(t, 30*time.Second)
}

func TestWatchNoticesALostConnection(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	w := f.watch(t, time.Hour)
	f.run(t, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
	wantClass(t, w.end(t, 10*time.Second), fault.Transient, f.config.Slot)
}
