package sink_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/sink/sinktest"
)

func TestKafkaIsASink(t *testing.T) {
	sinktest.RunInBubble(t, func(tb testing.TB) *sinktest.Harness {
		tb.Helper()
		const topic, buffer = "outbox.event.order", 64 << 10
		fake := newFakeKafka(tb, 3, kfake.SeedTopics(8, topic))
		o := fake.options(topic)
		o.BufferBytes = buffer
		return &sinktest.Harness{
			Sink:        fake.open(tb, o),
			Topic:       topic,
			Stored:      func(tb testing.TB) []sink.Message { tb.Helper(); return fake.stored(tb, topic) },
			Hold:        func(testing.TB) func() { return fake.hold() },
			Refuse:      func(_ testing.TB, key string) { fake.refuse(topic, key, kerr.InvalidRecord) },
			BufferBytes: buffer,
		}
	})
}
