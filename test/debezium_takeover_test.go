package test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// handover is an outbox under load whose slot goes from one program to the other.
type handover struct {
	*walFixture
	kafka   *servers.KafkaServer
	connect *servers.Connect
	load    *workload
	topic   string
	name    string // of the connector
	file    string // its configuration
}

const handoverPartitions = 6

func newHandover(t *testing.T, connect *servers.Connect, kafka *servers.KafkaServer) *handover {
	t.Helper()
	f := newWalFixture(t, servers.SharedPostgres(t))
	prefix := walName("handover")
	h := &handover{
		walFixture: f, kafka: kafka, connect: connect, load: newWorkload(t, f.db, "outbox", 40),
		topic: prefix + ".order", name: prefix, file: filepath.Join(t.TempDir(), "connector.json"),
	}
	kafka.CreateTopic(t, h.topic, handoverPartitions, nil)
	slot := walName("slot")
	// As Debezium's users have it: all kinds of changes.
	f.run(t, "create publication events for table outbox", "select pg_create_logical_replication_slot('"+slot+"', 'pgoutput')")
	config := connectorOf(t, f.db, slot, map[string]string{
		"topic.prefix":                                prefix,
		"table.include.list":                          "public.outbox",
		"key.converter":                               "org.apache.kafka.connect.storage.StringConverter",
		"value.converter":                             "org.apache.kafka.connect.storage.StringConverter",
		"transforms.outbox.table.field.event.id":      "seq",
		"transforms.outbox.table.field.event.key":     "aggregate_id",
		"transforms.outbox.route.by.field":            "aggregate_type",
		"transforms.outbox.route.topic.replacement":   prefix + ".${routedByValue}",
		"transforms.outbox.table.op.invalid.behavior": "warn",
		"producer.override.bootstrap.servers":         strings.Join(kafka.Bootstrap(), ","),
	})
	text, err := json.Marshal(map[string]any{"name": h.name, "config": config})
	if err == nil {
		err = os.WriteFile(h.file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	connect.Add(t, h.name, config)
	t.Cleanup(func() { connect.Remove(t, h.name) })
	return h
}

// takeOver runs the command and gives its exit status.
func (h *handover) takeOver(tb testing.TB) (output string, status int) {
	tb.Helper()
	return outboxcdc(tb, "migrate", "debezium", "--connector", h.file, "--take-over", "--database-url", h.db.URL)
}

// settings are those that the command prints, in a file for --config.
func (h *handover) settings(tb testing.TB) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "outboxcdc.yaml")
	if err := os.WriteFile(file, []byte(mustRun(tb, "migrate", "debezium", "--connector", h.file)), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// more waits until the topic holds some hundred records more.
func (h *handover) more(tb testing.TB, who string) {
	tb.Helper()
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("it was for %s to send; the connector says %.2000q", who, h.connect.Trace(tb, h.name))
		}
	})
	h.kafka.AwaitRecords(tb, h.topic, len(h.kafka.Records(tb, h.topic))+300, 3*time.Minute)
}

// judge: of each aggregate, the topic has every event that was committed, and the
// first occurrences come in the order of the commits, all in one partition.
func (h *handover) judge(tb testing.TB, records []*kgo.Record) (whole bool) {
	tb.Helper()
	seen := map[string]int64{}
	again := 0
	for _, r := range records {
		id, n := string(r.Key), numberOf(tb, r)
		if want := javaPartition(r.Key, handoverPartitions); r.Partition != want {
			tb.Fatalf("aggregate %s is in partition %d, Java puts it into %d", id, r.Partition, want)
		}
		switch {
		case n == seen[id]+1:
			seen[id] = n
		case n <= seen[id]:
			again++
		default:
			tb.Fatalf("event %d of aggregate %s came after event %d: what is between is missing or out of order", n, id, seen[id])
		}
	}
	for id, last := range h.load.last(tb) {
		if seen[id] != last {
			return false
		}
	}
	tb.Logf("%d records, %d of them sent twice", len(records), again)
	return true
}

// TestASlotGoesFromDebeziumToUsAndBack: under load the real connector stops, we take
// its slot over; we stop, the connector goes on; and once more. Nothing is lost, and
// the order of each aggregate is kept.
func TestASlotGoesFromDebeziumToUsAndBack(t *testing.T) {
	t.Parallel()
	h := newHandover(t, servers.SharedConnect(t), servers.SharedKafka(t))
	settings := h.settings(t)
	ctx, cancel := context.WithCancel(context.Background())
	loaded := make(chan error, 1)
	go func() { loaded <- h.load.write(ctx, 1<<40, 1) }()
	defer cancel()

	h.more(t, "Debezium")
	if out, status := h.takeOver(t); status != 3 || !strings.Contains(out, "is held by") {
		t.Fatalf("a take-over beside the running connector ends with %d, want 3 and who holds the slot:\n%s", status, out)
	}
	for round := range 2 {
		h.connect.Stop(t, h.name)
		if out, status := h.takeOver(t); status != 0 {
			t.Fatalf("the take-over ends with %d:\n%s", status, out)
		}
		streaming := stream(t, "--config", settings, "--database-url", h.db.URL, "--http", "off")
		h.more(t, "outboxcdc")
		if round == 1 {
			cancel()
			if err := <-loaded; err != nil && ctx.Err() == nil {
				t.Fatalf("the load: %v", err)
			}
			eventually(t, time.Minute, "all that was committed is on the topic", func() bool { return h.judge(t, h.kafka.Records(t, h.topic)) })
		}
		if status := streaming.stop(t); status != 0 {
			t.Fatalf("outboxcdc ended with %d:\n%s", status, streaming.log)
		}
		if round == 0 {
			h.connect.ForgetOffsets(t, h.name)
			h.connect.Resume(t, h.name)
			h.more(t, "Debezium")
		}
	}
}
