package test

import (
	"context"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// under runs a workload while disturb does its worst, and then wants everything on
// the topic.
func (l *line) under(t *testing.T, events int64, disturb func()) delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	written := make(chan error, 1)
	go func() { written <- l.w.write(ctx, events, 4) }()
	eventually(t, time.Minute, "the workload has begun", func() bool { return l.w.written.Load() > events/10 })
	disturb()
	if err := <-written; err != nil {
		t.Fatalf("the workload: %v", err)
	}
	return l.delivered(t)
}

func (l *line) delivered(t *testing.T) delivery {
	t.Helper()
	l.reconnect(t)
	last := l.oneMore(t)
	eventually(t, 2*time.Minute, "the slot is confirmed up to the last event", func() bool { return !l.behind(t, last) })
	return checkDelivery(t, l.w, l.kafka.Records(t, l.topic), streamPartitions)
}

// oneMore gives the end of the log and writes one event behind it. Without that event
// the end may lie in idle log, such as that of a save, which is not confirmed for as
// long as there is little of it.
func (l *line) oneMore(t *testing.T) string {
	t.Helper()
	last := l.end(t)
	if err := l.w.write(walContext(t), 1, 1); err != nil {
		t.Fatalf("the last event: %v", err)
	}
	eventually(t, 2*time.Minute, "the topic holds everything", func() bool {
		return int64(len(l.kafka.Records(t, l.topic))) >= l.w.written.Load()
	})
	return last
}

// reconnect asks from a new connection, since the server may have been restarted.
func (l *line) reconnect(t *testing.T) {
	t.Helper()
	l.sql.Close(context.Background()) //nolint:errcheck // it may be broken already
	l.sql = l.db.Server.Conn(t, l.db.Name)
}

func TestABrokerThatGoesAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	kafka := servers.Kafka(t)
	l := newLine(t, servers.SharedPostgres(t), kafka)
	s := l.stream(t)
	d := l.under(t, 20_000, func() {
		kafka.Stop(t)
		before := l.w.written.Load()
		eventually(t, time.Minute, "the service goes on writing", func() bool { return l.w.written.Load() > before+2000 || l.w.written.Load() > 20_000 })
		kafka.Start(t)
	})
	t.Logf("%d events, %d sent again", d.events, d.duplicates)
	s.wantStop(t)
}

func TestACrashOfPostgresIsSurvived(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	s := l.stream(t)
	if err := l.w.write(walContext(t), 5000, 4); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []servers.StopMode{servers.Immediate, servers.Fast} {
		server.Stop(t, mode)
		server.Start(t)
		if err := l.w.write(walContext(t), 5000, 4); err != nil {
			t.Fatal(err)
		}
		l.delivered(t)
	}
	s.wantStop(t)
}

func TestACutLinkIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	db := servers.SharedPostgres(t)
	l := newLine(t, db, servers.SharedKafka(t))
	proxy := servers.NewProxy(t, db.Server.Address())
	s := l.streamFrom(t, l.through(t, proxy))
	d := l.under(t, 20_000, func() {
		for range 5 {
			before := l.w.written.Load()
			proxy.Cut()
			eventually(t, time.Minute, "the service goes on writing", func() bool { return l.w.written.Load() > before+500 || l.w.written.Load() > 20_000 })
		}
	})
	t.Logf("%d events, %d sent again", d.events, d.duplicates)
	s.wantStop(t)
}

// through is the database's URL by way of the proxy.
func (l *line) through(t *testing.T, proxy *servers.Proxy) string {
	t.Helper()
	at, err := url.Parse(l.db.URL)
	if err != nil {
		t.Fatal("the test database has no URL that parses")
	}
	at.Host = proxy.Addr()
	return at.String()
}

func (l *line) streamFrom(t *testing.T, database string) *streamer {
	t.Helper()
	return stream(t, "--slot", l.slot, "--database-url", database, "--topic", l.topic, "--http", "off",
		"--sink", "kafka://"+strings.Join(l.kafka.Bootstrap(), ","))
}

func TestASecondInstanceStandsByAndTakesOver(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	first := l.stream(t)
	eventually(t, time.Minute, "the first instance streams", func() bool { return strings.Contains(first.log.String(), "streaming") })
	second := l.stream(t)
	eventually(t, time.Minute, "the second instance stands by and says who holds the slot", func() bool {
		log := second.log.String()
		return strings.Contains(log, "standby") && strings.Contains(log, "outboxcdc "+l.slot)
	})
	l.under(t, 10_000, func() { first.kill(t) })
	second.wantStop(t)
}

func TestASlotThatWasDroppedOrMadeAnewIsRefused(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	s := l.stream(t)
	if err := l.w.write(walContext(t), 1000, 2); err != nil {
		t.Fatal(err)
	}
	l.delivered(t)
	s.wantStop(t)
	l.free(t)
	sql := l.db.Server.Conn(t, l.db.Name)
	for _, step := range []struct{ sql, say string }{
		{"select pg_drop_replication_slot($1)", "does not exist"},
		{"select pg_create_logical_replication_slot($1, 'pgoutput')", "made anew"},
	} {
		if _, err := sql.Exec(walContext(t), "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'gap', 'lost', '{}')"); err != nil {
			t.Fatal(err)
		}
		if _, err := sql.Exec(walContext(t), step.sql, l.slot); err != nil {
			t.Fatal(err)
		}
		s := l.stream(t)
		if status := s.await(t); status != 3 || !strings.Contains(s.log.String(), step.say) {
			t.Errorf("exit status %d, want 3 and a sentence that says %q:\n%s", status, step.say, s.log)
		}
	}
}

func TestAFirstStartMakesWhatIsMissingAndSaysSo(t *testing.T) {
	t.Parallel()
	db, kafka := servers.SharedPostgres(t), servers.SharedKafka(t)
	f := newWalFixture(t, db)
	l := bareLine(t, db, kafka, f.config.Slot)
	l.w = newWorkload(t, db, "outbox", 10)
	s := l.stream(t)
	eventually(t, time.Minute, "the first instance streams", func() bool { return strings.Contains(s.log.String(), "streaming") })
	for _, say := range []string{"made the publication", "made the slot"} {
		if !strings.Contains(s.log.String(), say) {
			t.Errorf("the log does not say %q:\n%s", say, s.log)
		}
	}
	if err := l.w.write(walContext(t), 1000, 2); err != nil {
		t.Fatal(err)
	}
	l.delivered(t)
	s.wantStop(t)
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	kafka := servers.Kafka(t)
	l := newLine(t, servers.SharedPostgres(t), kafka)
	s := l.stream(t)
	if err := l.w.write(walContext(t), 1000, 2); err != nil {
		t.Fatal(err)
	}
	l.delivered(t)
	kafka.Kill9(t)
	if err := l.w.write(walContext(t), 1000, 2); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the first signal is heard", func() bool { return strings.Contains(s.log.String(), "drain") })
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.await(t)
	if waited := time.Since(began); waited > 15*time.Second {
		t.Errorf("ended %v after the second signal, want at once", waited)
	}
}
