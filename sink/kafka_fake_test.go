package sink_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/sink"
)

// fakeKafka is a cluster in memory, for a bubble.
type fakeKafka struct {
	*kfake.Cluster
	network *kfake.VirtualNetwork
	brokers int
}

const firstPort = 9092

func newFakeKafka(tb testing.TB, brokers int, opts ...kfake.Opt) *fakeKafka {
	tb.Helper()
	f := &fakeKafka{network: new(kfake.VirtualNetwork), brokers: brokers}
	var ports []int
	for i := range brokers {
		ports = append(ports, firstPort+i)
	}
	cluster, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(brokers), kfake.Ports(ports...), kfake.ListenFn(f.network.Listen),
	}, opts...)...)
	if err != nil {
		tb.Fatalf("start the fake cluster: %v", err)
	}
	f.Cluster = cluster
	tb.Cleanup(cluster.Close)
	return f
}

// url names the brokers, with settings behind the question mark.
func (f *fakeKafka) url(settings ...string) string {
	var brokers []string
	for i := range f.brokers {
		brokers = append(brokers, fmt.Sprintf("localhost:%d", firstPort+i))
	}
	return "kafka://" + strings.Join(brokers, ",") + "?" + strings.Join(settings, "&")
}

func (f *fakeKafka) options(topics ...string) sink.Options {
	return sink.Options{Topics: topics, Dial: f.network.DialContext}
}

func (f *fakeKafka) open(tb testing.TB, o sink.Options, settings ...string) sink.Sink {
	tb.Helper()
	s, err := sink.Open(tb.Context(), f.url(settings...), o)
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	tb.Cleanup(func() { closeSink(tb, s) })
	return s
}

func (f *fakeKafka) client(tb testing.TB, opts ...kgo.Opt) *kgo.Client {
	tb.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(fmt.Sprintf("localhost:%d", firstPort)), kgo.Dialer(f.network.DialContext),
	}, opts...)...)
	if err != nil {
		tb.Fatalf("make a client: %v", err)
	}
	return c
}

// stored reads every partition of topic to its end.
func (f *fakeKafka) stored(tb testing.TB, topic string) []sink.Message {
	tb.Helper()
	var msgs []sink.Message
	for _, r := range f.records(tb, topic) {
		m := sink.Message{Topic: r.Topic, Key: r.Key, Value: r.Value, Time: r.Timestamp.UTC()}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, sink.Header(h))
		}
		msgs = append(msgs, m)
	}
	return msgs
}

func (f *fakeKafka) records(tb testing.TB, topic string) []*kgo.Record {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := f.client(tb, kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	defer c.Close()
	left := f.count(ctx, tb, c, topic)
	var records []*kgo.Record
	for left > 0 {
		fetched := c.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			tb.Fatalf("read topic %s: %v", topic, err)
		}
		records = append(records, fetched.Records()...)
		left -= int64(fetched.NumRecords())
	}
	return records
}

// count is how many records a topic holds.
func (f *fakeKafka) count(ctx context.Context, tb testing.TB, c *kgo.Client, topic string) int64 {
	tb.Helper()
	request := kmsg.NewPtrListOffsetsRequest()
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for p := range f.partitions(topic) {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = p, -1
		t.Partitions = append(t.Partitions, partition)
	}
	request.Topics = append(request.Topics, t)
	answer, err := request.RequestWith(ctx, c)
	if err != nil {
		tb.Fatalf("ask for the end of topic %s: %v", topic, err)
	}
	var n int64
	for _, p := range answer.Topics[0].Partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			tb.Fatalf("ask for the end of topic %s: %v", topic, err)
		}
		n += p.Offset
	}
	return n
}

func (f *fakeKafka) partitions(topic string) int32 {
	n := int32(0)
	for f.LeaderFor(topic, n) >= 0 {
		n++
	}
	return n
}

// hold stops produce requests until resume is called.
func (f *fakeKafka) hold() (resume func()) {
	resumed := make(chan struct{})
	var done atomic.Bool
	f.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if done.Load() {
			f.DropControl()
			return nil, nil, false
		}
		f.SleepControl(func() { <-resumed })
		return nil, nil, false
	})
	return func() { done.Store(true); close(resumed) }
}

// refuse fails the next batch for the partition of key, and none after it.
func (f *fakeKafka) refuse(topic, key string, err *kerr.Error) *kfake.FaultHandle {
	partition := kgo.StickyKeyPartitioner(nil).ForTopic(topic).Partition(&kgo.Record{Key: []byte(key)}, int(f.partitions(topic)))
	return f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{int32(partition)}, Err: err, Count: 1})
}
