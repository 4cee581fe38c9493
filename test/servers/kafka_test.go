package servers

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// produce sends records in order and waits until the broker holds them.
func produce(tb testing.TB, client *kgo.Client, records ...*kgo.Record) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		tb.Fatalf("produce: %v", err)
	}
}

// values are the records' values in order.
func values(records []*kgo.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, string(r.Value))
	}
	return all
}

func TestKafkaSurvivesAKillWithAllThatItAcknowledged(t *testing.T) {
	k := Kafka(t)
	topic, brokers := k.Topic(t, 3), k.Bootstrap()
	client := k.Client(t)
	var want []string
	for i := range 30 {
		value := strconv.Itoa(i + 10)
		want = append(want, value)
		produce(t, client, &kgo.Record{Topic: topic, Key: []byte{byte(i)}, Value: []byte(value)})
	}
	pid := k.Pid(t)
	k.Kill9(t)
	if k.Pid(t) != 0 || k.ready(context.Background()) == nil {
		t.Error("the server still runs")
	}
	k.Start(t)
	if pid != 0 && k.Pid(t) == pid || !cmp.Equal(k.Bootstrap(), brokers) {
		t.Errorf("pid %d at %v, want another than %d at %v", k.Pid(t), k.Bootstrap(), pid, brokers)
	}
	got := map[string]bool{}
	for _, value := range values(k.AwaitRecords(t, topic, len(want), startTimeout)) {
		got[value] = true
	}
	for _, value := range want {
		if !got[value] {
			t.Errorf("record %s is lost", value)
		}
	}
	produce(t, client, &kgo.Record{Topic: topic, Value: []byte("after")}) // the client finds it again
	k.Stop(t)
	k.Start(t)
	k.AwaitRecords(t, topic, len(want)+1, startTimeout)
}

func TestRecordsAreTheWholeTopicInOrder(t *testing.T) {
	k := SharedKafka(t)
	topic := k.Topic(t, 3)
	client := k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	at := time.UnixMilli(1_700_000_000_123)
	for i := range int32(9) {
		produce(t, client, &kgo.Record{
			Topic: topic, Partition: 2 - i%3, Key: []byte("k"), Value: []byte(strconv.Itoa(int(i))), Timestamp: at,
			Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{byte(i)}}},
		})
	}
	got := k.Records(t, topic)
	want := []string{"2", "5", "8", "1", "4", "7", "0", "3", "6"} // partitions 0, 1, 2
	if diff := cmp.Diff(want, values(got)); diff != "" {
		t.Fatalf("values (-want +got):\n%s", diff)
	}
	r := got[3]
	if r.Partition != 1 || r.Offset != 0 || !r.Timestamp.Equal(at) || string(r.Key) != "k" {
		t.Errorf("partition %d, offset %d, time %v, key %q", r.Partition, r.Offset, r.Timestamp, r.Key)
	}
	if len(r.Headers) != 1 || r.Headers[0].Key != "h" || !bytes.Equal(r.Headers[0].Value, []byte{1}) {
		t.Errorf("headers %v", r.Headers)
	}
}

// TestRecordsAreTheWholeTopicInOrder alone would depend on how the broker answers:
// here the fetches mix the partitions for sure, and the client has little at once.
func TestRecordsOfManyFetchesAreInOrder(t *testing.T) {
	k := SharedKafka(t)
	topic := k.Topic(t, 2)
	client := k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	value := make([]byte, 900_000) // a fetch takes one megabyte of a partition
	for i := range int32(12) {
		produce(t, client, &kgo.Record{Topic: topic, Partition: i % 2, Value: value})
	}
	got := k.Records(t, topic)
	if len(got) != 12 || !slices.IsSortedFunc(got, inOrder) {
		t.Errorf("%d records, sorted: %v; want 12 in order", len(got), slices.IsSortedFunc(got, inOrder))
	}
}

func TestRecordsOfAnEmptyTopicAreNone(t *testing.T) {
	k := SharedKafka(t)
	if got := k.Records(t, k.Topic(t, 2)); len(got) != 0 {
		t.Errorf("%d records, want none", len(got))
	}
}

// TestRecordsEndWhereTheTopicEnds covers what is not a record at the end of a
// partition: the marker of a transaction, and a transaction that is still open.
func TestRecordsEndWhereTheTopicEnds(t *testing.T) {
	k := SharedKafka(t)
	topic := k.Topic(t, 1)
	client := k.Client(t, kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic))
	ctx := context.Background()
	write := func(value string) {
		must(t, client.BeginTransaction())
		produce(t, client, &kgo.Record{Value: []byte(value)})
	}
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		write("end " + strconv.FormatBool(bool(end)))
		must(t, client.EndTransaction(ctx, end))
	}
	write("open")
	want := []string{"end true"}
	if diff := cmp.Diff(want, values(k.Records(t, topic))); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	must(t, client.EndTransaction(ctx, kgo.TryCommit))
	want = append(want, "open")
	if diff := cmp.Diff(want, values(k.AwaitRecords(t, topic, 2, startTimeout))); diff != "" {
		t.Errorf("values after the commit (-want +got):\n%s", diff)
	}
}

func TestRecordsBeginWhereTheTopicBegins(t *testing.T) {
	k := SharedKafka(t)
	topic := k.Topic(t, 1)
	client := k.Client(t)
	for _, value := range []string{"a", "b", "c"} {
		produce(t, client, &kgo.Record{Topic: topic, Value: []byte(value)})
	}
	must(t, k.admin(func(admin *kadm.Client) error {
		offsets := kadm.Offsets{}
		offsets.AddOffset(topic, 0, 2, -1)
		deleted, err := admin.DeleteRecords(context.Background(), offsets)
		return errors.Join(err, deleted.Error())
	}))
	if diff := cmp.Diff([]string{"c"}, values(k.Records(t, topic))); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestAwaitRecordsGivesUp(t *testing.T) {
	k := SharedKafka(t)
	topic := k.Topic(t, 1)
	produce(t, k.Client(t), &kgo.Record{Topic: topic, Value: []byte("one")})
	said := fatal(t, func(r *recorder) { k.AwaitRecords(r, topic, 2, time.Second) })
	if !strings.Contains(said, "2 records") {
		t.Error(said)
	}
}

func TestKafkaMakesNoTopicByItself(t *testing.T) {
	k := SharedKafka(t)
	client := k.Client(t, kgo.UnknownTopicRetries(1))
	ctx, cancel := bounded()
	defer cancel()
	err := client.ProduceSync(ctx, &kgo.Record{Topic: "nobody-made-this", Value: []byte("v")}).FirstErr()
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("produce to a topic that is not there: %v", err)
	}
}

func TestSettingsReachKafka(t *testing.T) {
	k := Kafka(t, Setting("message.max.bytes", "2000"))
	k.CreateTopic(t, "small", 1, nil)
	k.CreateTopic(t, "large", 1, map[string]string{"max.message.bytes": "100000"})
	client := k.Client(t, kgo.ProducerBatchCompression(kgo.NoCompression()))
	err := client.ProduceSync(context.Background(), &kgo.Record{Topic: "small", Value: make([]byte, 5000)}).FirstErr()
	if !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("a large record: %v", err)
	}
	produce(t, client, &kgo.Record{Topic: "large", Value: make([]byte, 5000)})
}

func TestASharedKafkaIsNotStopped(t *testing.T) {
	k := SharedKafka(t)
	for _, do := range []func(*recorder){
		func(r *recorder) { k.Stop(r) },
		func(r *recorder) { k.Kill9(r) },
		func(r *recorder) { k.Start(r) },
	} {
		if said := fatal(t, do); !strings.Contains(said, "other tests use it") {
			t.Error(said)
		}
	}
	must(t, k.ready(context.Background()))
}

func TestAGivenKafkaIsUsedAndLeftAlone(t *testing.T) {
	own := SharedKafka(t)
	t.Setenv(EnvKafkaBrokers, strings.Join(own.Bootstrap(), ","))
	k := Kafka(t)
	if !cmp.Equal(k.Bootstrap(), own.Bootstrap()) {
		t.Fatalf("%v is used, want the given %v", k.Bootstrap(), own.Bootstrap())
	}
	for what, do := range map[string]func(*recorder){
		"stop":    func(r *recorder) { k.Stop(r) },
		"kill":    func(r *recorder) { k.Kill9(r) },
		"start":   func(r *recorder) { k.Start(r) },
		"setting": func(r *recorder) { Kafka(r, Setting("message.max.bytes", "1")) },
	} {
		if said := fatal(t, do); !strings.Contains(said, EnvKafkaBrokers) {
			t.Errorf("%s: the error does not name the variable: %s", what, said)
		}
	}
	must(t, k.Close())
	must(t, own.ready(context.Background()))
}

func TestKafkaThatCannotStartShowsItsLog(t *testing.T) {
	began := time.Now()
	said := fatal(t, func(r *recorder) { Kafka(r, Setting("num.network.threads", "nonsense")) })
	if !strings.Contains(said, "nonsense") {
		t.Errorf("the log is missing: %s", said)
	}
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("it took %v to see that the server cannot start", took)
	}
}

func TestDockerRunsTheKafkaThatMavenFetches(t *testing.T) {
	want := "<artifactId>kafka_2.13</artifactId>\n      <version>" + kafkaVersion + "</version>"
	if !bytes.Contains(kafkaPOM, []byte(want)) {
		t.Errorf("the pom does not name version %s", kafkaVersion)
	}
}
