package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

// The hot path as a whole: a fake walsender, the session with everything that it has,
// and at the other end a sink that acks at once, or Kafka's client and a fake broker.

const (
	speedOID       = 16401
	speedTopic     = "outbox.event.order"
	speedKeys      = 100
	speedTimeLimit = 2 * time.Minute
)

// drainLog gives the frames of transactions of rows rows each, and their end.
func drainLog(from wal.LSN, rows, perTransaction int) (frames []byte, end wal.LSN) {
	at := time.Unix(1_700_000_000, 0)
	frames = waltest.AppendXLogData(frames, waltest.Relation(speedOID, "public", "outbox", "id", "aggregate_type", "aggregate_id", "event_type", "payload", "headers"))
	payload := fmt.Appendf(nil, `{"total": 12.50, "note": "%0250d"}`, 7)
	end = from
	for n := 0; n < rows; n += perTransaction {
		commit := end + 0x100
		end = commit + 0x30
		frames = waltest.AppendXLogData(frames, waltest.Begin(commit, at, 7))
		for i := range min(perTransaction, rows-n) {
			frames = waltest.AppendXLogData(frames, waltest.Insert(speedOID,
				fmt.Appendf(nil, "6f1c3a52-0000-4000-8000-%012d", n+i), []byte("order"),
				fmt.Appendf(nil, "o-%d", (n+i)%speedKeys), []byte("OrderPlaced"), payload, nil))
		}
		frames = waltest.AppendXLogData(frames, waltest.Commit(commit, end, at))
	}
	return frames, end
}

// ackSink acks at once.
type ackSink struct{}

func (ackSink) Send(_ context.Context, msgs []sink.Message, ack sink.Ack) error {
	for range msgs {
		ack(nil)
	}
	return nil
}

func (ackSink) Flush(context.Context) error { return nil }
func (ackSink) Close() error                { return nil }

// savedStore tells what is saved.
type savedStore struct{ saved chan wal.LSN }

func (s *savedStore) Load(context.Context) (checkpoint.Position, error) {
	return checkpoint.Position{}, checkpoint.ErrNone
}

func (s *savedStore) Save(_ context.Context, p checkpoint.Position) error {
	select {
	case <-s.saved:
	default:
	}
	s.saved <- p.LSN
	return nil
}

func (s *savedStore) Close() error { return nil }

// drainer is a running session whose log the test writes.
type drainer struct {
	server *waltest.Server
	store  *savedStore
	end    wal.LSN
}

func newDrainer(tb testing.TB, broker sink.Sink) *drainer {
	tb.Helper()
	const from = 0x1000
	d := &drainer{server: waltest.NewServer(from), store: &savedStore{make(chan wal.LSN, 1)}, end: from}
	plan := mustPlan(tb, outbox.DefaultTopic)
	r := &Runner{
		config: Config{
			Wal: wal.Config{
				Database: "host=db user=u dbname=d sslmode=disable", Slot: "orders", Publication: "outboxcdc",
				Tables: plan.Tables(), Dial: d.server.Dial,
			},
			SaveInterval: time.Millisecond,
		},
		store: d.store, plan: plan,
	}
	r.config.setDefaults()
	conn, err := wal.Connect(tb.Context(), r.config.Wal)
	if err != nil {
		tb.Fatal(err)
	}
	stream, err := conn.Start(tb.Context(), from)
	if err != nil {
		tb.Fatal(err)
	}
	s := r.newSession(stream, broker, checkpoint.Position{Slot: "orders", System: "1", Timeline: 1, Database: "d", LSN: from})
	s.watch = nil
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.run(context.Background(), stop) }()
	tb.Cleanup(func() {
		close(stop)
		if err := <-done; err != nil {
			tb.Errorf("the session ended with: %v", err)
		}
		s.close(slog.New(slog.DiscardHandler))
		d.server.Cut()
	})
	return d
}

// drain sends rows, and returns when all of them are acked and saved.
func (d *drainer) drain(tb testing.TB, frames []byte, end wal.LSN) {
	tb.Helper()
	d.end = end
	d.server.Raw(frames)
	limit := time.NewTimer(speedTimeLimit)
	defer limit.Stop()
	for {
		select {
		case saved := <-d.store.saved:
			if saved >= end {
				return
			}
		case <-limit.C:
			tb.Fatal("not all rows were acked")
		}
	}
}

// fakeKafka is Kafka's client on a broker in this process.
func fakeKafka(tb testing.TB) sink.Sink {
	tb.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(12, speedTopic))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cluster.Close)
	broker, err := sink.Open(tb.Context(), "kafka://"+cluster.ListenAddrs()[0], sink.Options{Topics: []string{speedTopic}})
	if err != nil {
		tb.Fatal(err)
	}
	return broker
}

// TestAnEventCostsAtMostTwoAllocations counts all that this process does for an event
// that comes in a backlog: read, decode, map, track, send by Kafka's client, ack,
// save; and what the fake broker needs to take it.
func TestAnEventCostsAtMostTwoAllocations(t *testing.T) {
	const rows = 20_000
	for name, perTransaction := range map[string]int{"one row a transaction": 1, "a hundred rows": 100} {
		t.Run(name, func(t *testing.T) {
			d := newDrainer(t, fakeKafka(t))
			warm, end := drainLog(d.end, rows, perTransaction)
			d.drain(t, warm, end)
			frames, end := drainLog(d.end, rows, perTransaction)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d.drain(t, frames, end)
			runtime.ReadMemStats(&after)
			each := float64(after.Mallocs-before.Mallocs) / rows
			t.Logf("%.2f allocations and %.0f bytes an event", each, float64(after.TotalAlloc-before.TotalAlloc)/rows)
			if each > 2 {
				t.Errorf("%.2f allocations an event, want 2 at the most", each)
			}
		})
	}
}

func BenchmarkSession(b *testing.B) {
	sinks := map[string]func(tb testing.TB) sink.Sink{
		"none":  func(testing.TB) sink.Sink { return ackSink{} },
		"kafka": fakeKafka,
	}
	for _, to := range []string{"none", "kafka"} {
		for _, perTransaction := range []int{1, 100} {
			b.Run(fmt.Sprintf("sink=%s/rows=%d", to, perTransaction), func(b *testing.B) {
				d := newDrainer(b, sinks[to](b))
				warm, end := drainLog(d.end, 10_000, perTransaction)
				d.drain(b, warm, end)
				frames, end := drainLog(d.end, b.N, perTransaction)
				b.ReportAllocs()
				b.ResetTimer()
				d.drain(b, frames, end)
			})
		}
	}
}
