package test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

const (
	streamPartitions = 12
	streamAggregates = 1000
	streamEvents     = 100_000
	streamWriters    = 8
)

// line is a database and a topic with outboxcdc between them.
type line struct {
	db    *servers.Database
	kafka *servers.KafkaServer
	topic string
	slot  string
	flags []string
	sql   *pgx.Conn
	w     *workload
}

// newLine sets everything up as a user would, with `outboxcdc init`.
func newLine(tb testing.TB, db *servers.Database, kafka *servers.KafkaServer) *line {
	tb.Helper()
	l := bareLine(tb, db, kafka, walName("line"))
	mustRun(tb, append([]string{"init"}, l.flags...)...)
	l.w = newWorkload(tb, db, "outbox", streamAggregates)
	return l
}

// bareLine is a line without its tables.
func bareLine(tb testing.TB, db *servers.Database, kafka *servers.KafkaServer, slot string) *line {
	tb.Helper()
	return &line{
		db: db, kafka: kafka, topic: kafka.Topic(tb, streamPartitions), slot: slot,
		flags: []string{"--slot", slot, "--database-url", db.URL},
		sql:   db.Server.Conn(tb, db.Name),
	}
}

func (l *line) stream(tb testing.TB, more ...string) *streamer {
	tb.Helper()
	args := append([]string{"--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","), "--topic", l.topic, "--http", "off"}, l.flags...)
	return stream(tb, append(args, more...)...)
}

// behind says whether the slot is not yet confirmed up to lsn.
func (l *line) behind(tb testing.TB, lsn string) bool {
	tb.Helper()
	var behind bool
	err := l.sql.QueryRow(walContext(tb),
		"select confirmed_flush_lsn < $2::pg_lsn from pg_replication_slots where slot_name = $1", l.slot, lsn).Scan(&behind)
	if err != nil {
		tb.Fatal(err)
	}
	return behind
}

// end is the end of the log now.
func (l *line) end(tb testing.TB) string {
	tb.Helper()
	var lsn string
	if err := l.sql.QueryRow(walContext(tb), "select pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
		tb.Fatal(err)
	}
	return lsn
}

func TestCommittedEventsReachKafkaExactlyAndInOrder(t *testing.T) {
	t.Parallel()
	db := servers.SharedPostgres(t)
	l := newLine(t, db, servers.SharedKafka(t))
	quiet := neighbour(t, db.Server)
	s := l.stream(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := l.w.write(ctx, streamEvents, streamWriters); err != nil {
		t.Fatalf("the workload: %v", err)
	}
	last := l.end(t)
	eventually(t, time.Minute, "the slot is confirmed up to the last event while another database is busy", func() bool { return !l.behind(t, last) })

	d := checkDelivery(t, l.w, l.kafka.Records(t, l.topic), streamPartitions)
	if d.duplicates > 0 {
		t.Errorf("%d duplicates in a session that nothing disturbed, want none", d.duplicates)
	}
	later := l.end(t)
	eventually(t, 2*time.Minute, "the slot follows the log while only the neighbour writes", func() bool { return !l.behind(t, later) })
	quiet()
	s.wantStop(t)
}

func TestKilledStreamersLoseNothingAndKeepTheOrder(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	written := make(chan error, 1)
	go func() { written <- l.w.write(ctx, streamEvents, streamWriters) }()

	s := l.stream(t)
	for kills := range int64(10) {
		eventually(t, time.Minute, "the service goes on writing", func() bool { return l.w.written.Load() >= (kills+1)*streamEvents/11 })
		moment := time.NewTimer(rand.N(500 * time.Millisecond))
		<-moment.C
		s.kill(t)
		t.Logf("kill %d after %d events", kills+1, l.w.written.Load())
		s = l.stream(t)
	}
	if err := <-written; err != nil {
		t.Fatalf("the workload: %v", err)
	}
	last := l.oneMore(t)
	eventually(t, 2*time.Minute, "the slot is confirmed up to the last event", func() bool { return !l.behind(t, last) })
	d := checkDelivery(t, l.w, l.kafka.Records(t, l.topic), streamPartitions)
	t.Logf("%d events, %d sent again after ten kills", d.events, d.duplicates)
	s.wantStop(t)
}
