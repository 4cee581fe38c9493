package servers_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

func TestKafkaKeepsWhatItAcknowledgedThroughAKill(t *testing.T) {
	k := servers.Kafka(t)
	topic := k.Topic(t, 3)
	client := k.Client(t)
	for _, key := range []string{"a", "b", "c", "d"} {
		r := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte("v" + key)}
		if err := client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	k.Kill9(t)
	k.Start(t)
	got := k.AwaitRecords(t, topic, 4, 30*time.Second)
	if len(got) != 4 {
		t.Fatalf("the topic holds %d records, want 4", len(got))
	}
}
