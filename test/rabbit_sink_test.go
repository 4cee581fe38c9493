package test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/sink/sinktest"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// rabbitSinkURL is the server's URL with settings of the sink.
func rabbitSinkURL(r *servers.RabbitServer, settings ...string) string {
	return r.URL() + "?" + strings.Join(settings, "&")
}

// rabbitMessages is what a queue holds, as the sink was given it.
func rabbitMessages(tb testing.TB, r *servers.RabbitServer, queue string) []sink.Message {
	tb.Helper()
	var msgs []sink.Message
	held := r.Messages(tb, queue)
	for i := range held {
		msgs = append(msgs, asMessage(tb, &held[i]))
	}
	return msgs
}

// asMessage turns what RabbitMQ holds back into what it was made of.
func asMessage(tb testing.TB, d *amqp.Delivery) sink.Message {
	tb.Helper()
	if d.DeliveryMode != amqp.Persistent {
		tb.Errorf("a message has delivery mode %d, want %d", d.DeliveryMode, amqp.Persistent)
	}
	millis, ok := d.Headers["timestamp_in_ms"].(int64)
	if !ok {
		tb.Fatalf("timestamp_in_ms is %v", d.Headers["timestamp_in_ms"])
	}
	m := sink.Message{Topic: d.RoutingKey, Key: headerBytes(d.Headers["outboxcdc-key"]), Value: d.Body, Time: time.UnixMilli(millis).UTC()}
	if d.Headers["outboxcdc-null"] == true {
		m.Value = nil
	}
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		if name == "timestamp_in_ms" || name == "outboxcdc-key" || name == "outboxcdc-null" {
			continue
		}
		if list, ok := d.Headers[name].([]any); ok {
			for _, value := range list {
				m.Headers = append(m.Headers, sink.Header{Key: name, Value: headerBytes(value)})
			}
			continue
		}
		m.Headers = append(m.Headers, sink.Header{Key: name, Value: headerBytes(d.Headers[name])})
	}
	return m
}

func headerBytes(value any) []byte {
	switch v := value.(type) {
	case string:
		return []byte(v)
	case []byte:
		return v
	default:
		return nil
	}
}

// ear hears when the broker has sent text to the sink.
type ear struct {
	mu    sync.Mutex
	text  []byte
	heard chan struct{}
}

// await listens from now on.
func (e *ear) await(text string) (heard <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text, e.heard = []byte(text), make(chan struct{})
	return e.heard
}

func (e *ear) hear(b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.text != nil && bytes.Contains(b, e.text) {
		e.text = nil
		close(e.heard)
	}
}

func (e *ear) dial(through func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := through(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &earConn{conn, e}, nil
	}
}

type earConn struct {
	net.Conn
	ear *ear
}

func (c *earConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.ear.hear(b[:n])
	return n, err
}

// The broker refuses by having no queue for a message, until it has said so once: then
// the queue is bound again, and takes whatever is behind it.
func TestRabbitSinkKeepsItsPromisesOnARealBroker(t *testing.T) {
	t.Parallel()
	rabbit := servers.SharedRabbit(t)
	sinktest.Run(t, func(tb testing.TB) *sinktest.Harness {
		tb.Helper()
		const buffer = 64 << 10
		name := rabbit.Name(tb)
		rabbit.Exchange(tb, name, "topic")
		rabbit.Queue(tb, name, nil)
		rabbit.Bind(tb, name, name, "#")
		hand := rabbit.Channel(tb)
		w, e := new(wire), new(ear)
		return &sinktest.Harness{
			Sink: openSink(tb, rabbitSinkURL(rabbit, "exchange="+name),
				sink.Options{Topics: []string{"order"}, BufferBytes: buffer, Dial: e.dial(w.dial)}),
			Topic:  "order",
			Stored: func(tb testing.TB) []sink.Message { tb.Helper(); return rabbitMessages(tb, rabbit, name) },
			Hold:   func(testing.TB) func() { return w.hold() },
			Refuse: func(tb testing.TB, _ string) {
				tb.Helper()
				returned := e.await("NO_ROUTE")
				if err := hand.QueueUnbind(name, "#", name, nil); err != nil {
					tb.Fatal(err)
				}
				go func() {
					select {
					case <-returned:
					case <-tb.Context().Done():
					}
					hand.QueueBind(name, "#", name, false, nil) //nolint:errcheck // the test may be over
				}()
			},
			BufferBytes: buffer,
			Table:       true,
		}
	})
}

// BenchmarkRabbitSink is messages of 300 bytes over keys, in batches as the reader of a
// busy log makes them. One operation is one message.
func BenchmarkRabbitSink(b *testing.B) {
	rabbit := servers.SharedRabbit(b)
	for _, kind := range []string{"classic", "quorum"} {
		for _, keys := range []int{1, 10, 1000} {
			b.Run(fmt.Sprintf("%s/%d", kind, keys), func(b *testing.B) {
				name := rabbit.Name(b)
				rabbit.Exchange(b, name, "topic")
				rabbit.Queue(b, name, amqp.Table{amqp.QueueTypeArg: kind})
				rabbit.Bind(b, name, name, "#")
				s := openSink(b, rabbitSinkURL(rabbit, "exchange="+name), sink.Options{Topics: []string{"order"}})
				value := bytes.Repeat([]byte("x"), 300)
				b.ReportAllocs()
				for n := range b.N {
					m := sink.Message{Topic: "order", Key: fmt.Appendf(nil, "order-%d", n%keys), Value: value, Time: time.Now()}
					if err := s.Send(b.Context(), []sink.Message{m}, func(err error) {
						if err != nil {
							b.Error(err)
						}
					}); err != nil {
						b.Fatal(err)
					}
				}
				if err := s.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
