package test

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// The rows of the fault matrix in which one server takes the place of another.
// Clients reach whichever it is through a proxy, as through a virtual address.

// failoverMajor is the first version whose standbys copy slots.
const failoverMajor = 17

// address is a line whose server can be exchanged behind its back.
type address struct {
	*line
	proxy *servers.Proxy
	file  string        // of the saved position
	user  *url.Userinfo // nil for the superuser
}

// newAddress has its tables, its publication and a failover slot.
func newAddress(tb testing.TB, db *servers.Database) *address {
	tb.Helper()
	a := &address{line: newLine(tb, db, servers.SharedKafka(tb)), file: filepath.Join(tb.TempDir(), "position")}
	a.proxy = servers.NewProxy(tb, db.Server.Address())
	if db.Server.Major() >= failoverMajor {
		a.exec(tb, "select pg_drop_replication_slot($1)", a.slot)
		a.exec(tb, "select pg_create_logical_replication_slot($1, 'pgoutput', false, false, true)", a.slot)
	}
	return a
}

// start streams from whoever is behind the address.
func (a *address) start(tb testing.TB, more ...string) *streamer {
	tb.Helper()
	at, err := url.Parse(a.db.URL)
	if err != nil {
		tb.Fatal("the test database has no URL that parses")
	}
	at.Host = a.proxy.Addr()
	if a.user != nil {
		at.User = a.user
	}
	return stream(tb, append([]string{
		"--slot", a.slot, "--database-url", at.String(), "--topic", a.topic, "--http", "off",
		"--sink", "kafka://" + strings.Join(a.kafka.Bootstrap(), ","),
	}, more...)...)
}

// inFile keeps the saved position where no server can take it along.
func (a *address) inFile() []string { return []string{"--checkpoint", "file://" + a.file} }

// switchTo puts another server behind the address.
func (a *address) switchTo(tb testing.TB, server *servers.PostgresServer) {
	tb.Helper()
	a.db = &servers.Database{Server: server, Name: a.db.Name, URL: server.URL(a.db.Name)}
	a.w.db = a.db
	a.proxy.SetTarget(server.Address())
	a.proxy.Cut()
	a.sql.Close(context.Background()) //nolint:errcheck // its server may be gone
	a.sql = server.Conn(tb, a.db.Name)
}

// received waits until a standby has the log up to here.
func (a *address) received(tb testing.TB, standby *servers.PostgresServer) {
	tb.Helper()
	last, there := a.end(tb), standby.Conn(tb, "postgres")
	eventually(tb, time.Minute, "the standby has the log", func() bool {
		var has bool
		if err := there.QueryRow(walContext(tb), "select coalesce(pg_last_wal_receive_lsn() >= $1::pg_lsn, false)", last).Scan(&has); err != nil {
			tb.Fatal(err)
		}
		return has
	})
}

// syncTo waits until a standby has copied the slot. The service goes on writing, since only what
// is confirmed lets the primary's slot come near enough. The standby's worker sleeps twice as
// long each time that it could not, up to half a minute.
func (a *address) syncTo(tb testing.TB, standby *servers.PostgresServer) {
	tb.Helper()
	eventually(tb, 3*time.Minute, "the standby has a copy of the slot", func() bool {
		if err := a.w.write(walContext(tb), 1, 1); err != nil {
			tb.Fatal(err)
		}
		return standby.HasSlot(tb, a.db.Server, a.slot)
	})
}

// wantEnd waits for the streamer to give up, as an operator must see it.
func (s *streamer) wantEnd(tb testing.TB, says ...string) {
	tb.Helper()
	if status := s.await(tb); status != fault.ExitOperator {
		tb.Errorf("exit status %d, want %d:\n%s", status, fault.ExitOperator, s.log)
	}
	for _, say := range says {
		if !strings.Contains(s.log.String(), say) {
			tb.Errorf("the log does not say %q:\n%s", say, s.log)
		}
	}
}

func (s *streamer) says(text string) func() bool {
	return func() bool { return strings.Contains(s.log.String(), text) }
}

func TestAFailoverWithASlotThatWasCopiedLosesNothing(t *testing.T) {
	t.Parallel()
	primary := servers.Postgres(t, servers.Major(failoverMajor))
	a := newAddress(t, primary.Database(t))
	standby, _ := primary.Standby(t)
	s := a.start(t)
	if err := a.w.write(walContext(t), 2000, 2); err != nil {
		t.Fatal(err)
	}
	a.delivered(t)
	a.syncTo(t, standby)
	if err := a.w.write(walContext(t), 2000, 2); err != nil { // the copy is now behind
		t.Fatal(err)
	}
	a.received(t, standby)
	primary.Kill9(t)
	standby.Promote(t)
	a.switchTo(t, standby)
	if err := a.w.write(walContext(t), 2000, 2); err != nil {
		t.Fatal(err)
	}
	d := a.delivered(t)
	t.Logf("%d events, %d sent again", d.events, d.duplicates)
	s.wantStop(t)
}

// What is saved lies beyond where the new primary took over. Below that number it
// has other transactions now, and a stream that begins there skips them in silence.
func TestAFailoverThatLostTheEndOfTheLogSkipsNoNewEvent(t *testing.T) {
	t.Parallel()
	primary := servers.Postgres(t, servers.Major(failoverMajor))
	a := newAddress(t, primary.Database(t))
	standby, _ := primary.Standby(t)
	s := a.start(t, a.inFile()...)
	a.event(t, "both")
	a.settle(t)
	a.syncTo(t, standby)
	a.received(t, standby)
	standby.Stop(t, servers.Fast)
	for i := range 50 {
		a.event(t, fmt.Sprintf("lost-%d", i))
	}
	a.settle(t)
	primary.Kill9(t)
	standby.Start(t)
	standby.Promote(t)
	a.switchTo(t, standby)
	a.event(t, "new")
	eventually(t, time.Minute, "the first new event arrives", func() bool { return a.arrived(t, "new") == 1 })
	if log := s.log.String(); !strings.Contains(log, "were lost by the database") {
		t.Errorf("the log does not say what was lost:\n%s", log)
	}
	if both, lost := a.arrived(t, "both"), a.arrived(t, "lost-49"); both == 0 || lost != 1 {
		t.Errorf("an event that both servers have came %d times, one that was lost %d times; want at least once, and once", both, lost)
	}
	s.wantStop(t)
	again := a.start(t, a.inFile()...)
	a.event(t, "later")
	eventually(t, time.Minute, "the stream goes on from what was saved on the new timeline", func() bool { return a.arrived(t, "later") == 1 })
	again.wantStop(t)
	if strings.Contains(again.log.String(), "were lost by the database") {
		t.Error("the window is told of again, on the timeline that is saved already")
	}
}

func TestANewPrimaryWithoutTheSlotIsRefused(t *testing.T) {
	t.Parallel()
	primary := servers.Postgres(t)
	a := newAddress(t, primary.Database(t))
	standby, _ := primary.Standby(t)
	s := a.start(t)
	a.event(t, "before")
	a.settle(t)
	a.received(t, standby)
	primary.Kill9(t)
	standby.Promote(t)
	a.switchTo(t, standby)
	s.wantEnd(t, a.slot, "does not exist", "outboxcdc recover --slot")
	var slots int
	if err := a.sql.QueryRow(walContext(t), "select count(*) from pg_replication_slots where slot_name = $1", a.slot).Scan(&slots); err != nil {
		t.Fatal(err)
	}
	if slots != 0 {
		t.Error("the slot was made anew, which hides the gap")
	}
}

func TestAFormerPrimaryIsRefused(t *testing.T) {
	t.Parallel()
	primary := servers.Postgres(t)
	a := newAddress(t, primary.Database(t))
	former := primary.Snapshot(t)
	a.reconnect(t)
	primary.Stop(t, servers.Fast)
	primary.BecomeStandby(t)
	primary.Promote(t)
	a.switchTo(t, primary)
	s := a.start(t, a.inFile()...)
	a.event(t, "new")
	a.settle(t)

	former.Start(t)
	a.switchTo(t, former)
	a.event(t, "split")
	s.wantEnd(t, "timeline 1", "timeline 2", "former primary")
	if n := a.arrived(t, "split"); n != 0 {
		t.Errorf("an event of the former primary was sent %d times", n)
	}
}

func TestARestoreToAnEarlierStateIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		restore func(*servers.PostgresServer, testing.TB)
		say     string
	}{
		"a snapshot of the disk": {(*servers.PostgresServer).Start, "restored to an earlier state"},
		"a base backup":          {(*servers.PostgresServer).Restore, "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			primary := servers.Postgres(t)
			a := newAddress(t, primary.Database(t))
			earlier := primary.Snapshot(t)
			a.reconnect(t)
			s := a.start(t, a.inFile()...)
			for i := range 50 {
				a.event(t, fmt.Sprintf("gone-%d", i))
			}
			a.settle(t)
			primary.Kill9(t)
			c.restore(earlier, t)
			a.switchTo(t, earlier)
			s.wantEnd(t, a.slot, c.say)
		})
	}
}

// A position means nothing in another cluster, and the other cluster's own slot and
// tables look as if all were well.
func TestAnotherClusterBehindTheSameAddressIsRefused(t *testing.T) {
	t.Parallel()
	a := newAddress(t, servers.Postgres(t).Database(t))
	other := servers.Postgres(t)
	other.CreateDatabase(t, a.db.Name)
	a.twin(t, other)
	mustRun(t, "init", "--slot", a.slot, "--database-url", other.URL(a.db.Name))
	s := a.start(t, a.inFile()...)
	a.event(t, "here")
	a.settle(t)
	a.switchTo(t, other)
	a.event(t, "elsewhere")
	s.wantEnd(t, "was saved in cluster", "--database-url")
	if n := a.arrived(t, "elsewhere"); n != 0 {
		t.Errorf("an event of the other cluster was sent %d times", n)
	}
}

// twin lets the stream into both clusters with the same name and password.
func (a *address) twin(tb testing.TB, other *servers.PostgresServer) {
	tb.Helper()
	a.user = url.UserPassword("twin", "the-same")
	for _, server := range []*servers.PostgresServer{a.db.Server, other} {
		if _, err := server.Conn(tb, "postgres").Exec(walContext(tb), "create role twin superuser login password 'the-same'"); err != nil {
			tb.Fatal(err)
		}
	}
}
