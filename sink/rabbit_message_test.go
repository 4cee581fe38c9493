package sink

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func rabbitOf(tb testing.TB, url string) *rabbitSettings {
	tb.Helper()
	t, err := parse(url)
	if err != nil {
		tb.Fatal(err)
	}
	s, ok := t.(*rabbitSettings)
	if !ok {
		tb.Fatalf("%s is a %T", url, t)
	}
	return s
}

func TestARowCannotRouteByItsHeaders(t *testing.T) {
	m := Message{Topic: "t", Key: []byte("k"), Time: time.UnixMilli(5), Headers: []Header{
		{Key: "CC", Value: []byte("elsewhere")},
		{Key: "BCC", Value: []byte("elsewhere")},
		{Key: "x-death", Value: []byte("seen before")},
		{Key: "x-first-death-queue", Value: []byte("seen before")},
		{Key: "x-received-from", Value: []byte("seen before")},
		{Key: "x-opt-deaths", Value: []byte("seen before")},
		{Key: rabbitKeyHeader, Value: []byte("another")},
		{Key: rabbitTimeHeader, Value: []byte("1")},
		{Key: rabbitNullHeader, Value: nil},
		{Key: "id", Value: []byte("7")},
		{Key: "raw", Value: []byte{0xFF}},
	}}
	p := publishing(&m)
	want := amqp.Table{rabbitKeyHeader: "k", rabbitNullHeader: true, rabbitTimeHeader: int64(5), "id": "7", "raw": []byte{0xFF}}
	if diff := cmp.Diff(want, p.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if p.MessageId != "7" || p.DeliveryMode != amqp.Persistent {
		t.Errorf("message-id %q, delivery mode %d", p.MessageId, p.DeliveryMode)
	}
}

func TestRoutesFollowTheirTemplates(t *testing.T) {
	m := Message{Topic: "order", Key: []byte("42")}
	for url, want := range map[string]route{
		"amqp://h":           {"outbox", "order"},
		"amqp://h?exchange=": {"", "order"},
		"amqp://h?exchange=ev.{topic}&routing_key=x": {"ev.order", "x"},
		"amqp://h?routing_key={topic}.{key}":         {"outbox", "order.42"},
		"amqp://h?exchange=amq.topic":                {"amq.topic", "order"},
	} {
		if got, err := rabbitOf(t, url).route(&m); err != nil || got != want {
			t.Errorf("%s routes to %+v and %v, want %+v", url, got, err, want)
		}
	}
}

func TestWhatRabbitMQCannotTakeIsADataError(t *testing.T) {
	long := strings.Repeat("x", maxShortString+1)
	for what, m := range map[string]Message{
		"no key":                 {Topic: "t"},
		"no topic":               {Key: []byte("k")},
		"a long routing key":     {Topic: long, Key: []byte("k")},
		"a large value":          {Topic: "t", Key: []byte("k"), Value: make([]byte, 2001)},
		"a long header name":     {Topic: "t", Key: []byte("k"), Headers: []Header{{Key: long}}},
		"headers of a frame":     {Topic: "t", Key: []byte("k"), Headers: []Header{{Key: "h", Value: make([]byte, rabbitFrameBytes-1000)}}},
		"a key of a frame":       {Topic: "t", Key: make([]byte, rabbitFrameBytes)},
		"the broker's own place": {Topic: "amq.x", Key: []byte("k")},
		"the broker's own queue": {Topic: "amq.rabbitmq.reply-to.x", Key: []byte("k")},
	} {
		url := "amqp://h?max_message_size=2000"
		switch what {
		case "the broker's own place":
			url += "&exchange={topic}"
		case "the broker's own queue":
			url += "&exchange="
		}
		if _, err := rabbitOf(t, url).route(&m); fault.Classify(err) != fault.Data {
			t.Errorf("%s gives %v of class %v, want a data error", what, err, fault.Classify(err))
		}
	}
	m := Message{Topic: "t", Key: []byte("k"), Value: make([]byte, 2000), Headers: []Header{{Key: "h", Value: make([]byte, rabbitFrameBytes-2000)}}}
	if _, err := rabbitOf(t, "amqp://h?max_message_size=2000").route(&m); err != nil {
		t.Errorf("a message of the largest size is refused: %v", err)
	}
}
