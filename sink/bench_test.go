package sink_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/sink"
)

// BenchmarkSend sends batches of 256 messages through Kafka's client to a fake broker
// in this process, whose work is counted too.
func BenchmarkSend(b *testing.B) {
	const size = 256
	fake := newFakeKafka(b, 1, kfake.SeedTopics(12, topic))
	s := fake.open(b, fake.options(topic))
	batch := make([]sink.Message, size)
	for i := range batch {
		batch[i] = message(fmt.Sprint("key-", i), i)
		batch[i].Value = make([]byte, 300)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Send(b.Context(), batch, ignore); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/event")
}
