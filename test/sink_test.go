package test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/sink/sinktest"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// wire is the network between a sink and a real broker, with a hand on it.
type wire struct {
	mu      sync.Mutex
	held    chan struct{} // nil, or closed when answers may go on
	corrupt []byte        // damages the next write that contains it
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &wiredConn{Conn: conn, wire: w, closed: make(chan struct{})}, nil
}

// hold keeps the broker's answers from the sink.
func (w *wire) hold() (resume func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := make(chan struct{})
	w.held = held
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held = nil
		close(held)
	}
}

// damage changes a byte of the next write that contains text. The broker finds the
// batch's checksum wrong and refuses it, and only it.
func (w *wire) damage(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corrupt = []byte(text)
}

func (w *wire) damaged(b []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := bytes.Index(b, w.corrupt)
	if w.corrupt == nil || at < 0 {
		return b
	}
	w.corrupt = nil
	b = slices.Clone(b)
	b[at] ^= 1
	return b
}

type wiredConn struct {
	net.Conn
	wire   *wire
	closed chan struct{}
	once   sync.Once
}

func (c *wiredConn) Write(b []byte) (int, error) { return c.Conn.Write(c.wire.damaged(b)) }

func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.wire.mu.Lock()
	held := c.wire.held
	c.wire.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (c *wiredConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func sinkURL(k *servers.KafkaServer, settings ...string) string {
	return "kafka://" + strings.Join(k.Bootstrap(), ",") + "?" + strings.Join(settings, "&")
}

// openSink opens a sink that the test closes, at the latest when it ends.
func openSink(tb testing.TB, url string, o sink.Options) sink.Sink {
	tb.Helper()
	s, err := sink.Open(tb.Context(), url, o)
	if err != nil {
		tb.Fatalf("open the sink: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close the sink: %v", err)
		}
	})
	return s
}

// storedMessages is what a topic holds, as the sink was given it.
func storedMessages(tb testing.TB, k *servers.KafkaServer, topic string) []sink.Message {
	tb.Helper()
	var msgs []sink.Message
	for _, r := range k.Records(tb, topic) {
		m := sink.Message{Topic: r.Topic, Key: r.Key, Value: r.Value, Time: r.Timestamp.UTC()}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, sink.Header(h))
		}
		msgs = append(msgs, m)
	}
	return msgs
}

func TestKafkaSinkKeepsItsPromisesOnARealBroker(t *testing.T) {
	t.Parallel()
	kafka := servers.SharedKafka(t)
	sinktest.Run(t, func(tb testing.TB) *sinktest.Harness {
		tb.Helper()
		const buffer = 64 << 10
		topic := kafka.Topic(tb, 6)
		w := new(wire)
		return &sinktest.Harness{
			Sink:        openSink(tb, sinkURL(kafka, "compression.type=none"), sink.Options{Topics: []string{topic}, BufferBytes: buffer, Dial: w.dial}),
			Topic:       topic,
			Stored:      func(tb testing.TB) []sink.Message { tb.Helper(); return storedMessages(tb, kafka, topic) },
			Hold:        func(testing.TB) func() { return w.hold() },
			Refuse:      func(_ testing.TB, key string) { w.damage(key) },
			BufferBytes: buffer,
		}
	})
}

// The same failure over and over, at another moment each time and under load on many
// keys, without a simulated clock to make goroutines take turns.
func TestKafkaSinkStopsTheLineOnARealBroker(t *testing.T) {
	t.Parallel()
	kafka := servers.SharedKafka(t)
	for round := range 20 {
		topic := kafka.Topic(t, 3)
		w := new(wire)
		s := openSink(t, sinkURL(kafka, "compression.type=none", fmt.Sprintf("linger.ms=%d", round%3)),
			sink.Options{Topics: []string{topic}, Dial: w.dial})
		var sent []sink.Message
		var err error
		for n := 0; err == nil && n < 1_000_000; n++ {
			if n == 50 { // a new topic's first batches may come before its leaders know, and are sent twice
				if err := s.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if n == 100+37*round {
				w.damage(fmt.Sprintf("key-%d", round%10))
			}
			m := sink.Message{Topic: topic, Key: fmt.Appendf(nil, "key-%d", n%10), Value: fmt.Append(nil, n), Time: time.Now()}
			sent = append(sent, m)
			err = s.Send(t.Context(), []sink.Message{m}, func(error) {})
		}
		if fault.Classify(err) != fault.Operator {
			t.Errorf("the line was stopped with %v of class %v, want class operator", err, fault.Classify(err))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		sinktest.WantPrefixes(t, sent, storedMessages(t, kafka, topic))
	}
}

func TestKafkaSinkMakesMissingTopicsOnlyWhenAskedTo(t *testing.T) {
	kafka := servers.SharedKafka(t)
	absent := kafka.Topic(t, 1) + "-absent"
	o := sink.Options{Topics: []string{absent}}
	if _, err := sink.Open(t.Context(), sinkURL(kafka), o); fault.Classify(err) != fault.Operator || !strings.Contains(err.Error(), absent) {
		t.Fatalf("Open with a missing topic gives %v, want an operator error that names it", err)
	}
	if findings := sink.Check(t.Context(), sinkURL(kafka), o); fault.Failures(findings) == nil {
		t.Errorf("Check with a missing topic finds %+v, want a failure", findings)
	}
	o.CreateTopics = true
	s := openSink(t, sinkURL(kafka), o)
	sendOne(t, s, absent, nil)
	if got := len(kafka.Records(t, absent)); got != 1 {
		t.Errorf("%d messages in the topic that was made, want 1", got)
	}
	if findings := sink.Check(t.Context(), sinkURL(kafka), o); fault.Failures(findings) != nil {
		t.Errorf("Check of the topic that was made finds %+v", findings)
	}
}

// sendOne sends a message and wants want of its ack: nil, or an error of a class.
func sendOne(tb testing.TB, s sink.Sink, topic string, want *fault.Class) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	var got error
	m := sink.Message{Topic: topic, Key: []byte("a"), Value: []byte("1"), Time: time.Now()}
	if err := s.Send(ctx, []sink.Message{m}, func(err error) { got = err }); err != nil {
		tb.Fatalf("send: %v", err)
	}
	if err := s.Flush(ctx); err != nil {
		tb.Fatalf("flush: %v", err)
	}
	if (got == nil) != (want == nil) || want != nil && fault.Classify(got) != *want {
		tb.Errorf("acked with %v of class %v, want %v", got, fault.Classify(got), want)
	}
}

func TestKafkaSinkStopsWhenATopicIsDeletedUnderIt(t *testing.T) {
	t.Parallel()
	kafka := servers.SharedKafka(t)
	admin := kadm.NewClient(kafka.Client(t))
	operator := fault.Operator
	for _, anew := range []bool{false, true} {
		topic := kafka.Topic(t, 1)
		s := openSink(t, sinkURL(kafka), sink.Options{Topics: []string{topic}})
		sendOne(t, s, topic, nil)
		if _, err := admin.DeleteTopic(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		if anew {
			kafka.CreateTopic(t, topic, 1, nil)
		}
		sendOne(t, s, topic, &operator)
	}
}

// A batch of small messages must not grow beyond what the topic takes.
func TestKafkaSinkKeepsToTheTopicsLimit(t *testing.T) {
	kafka := servers.SharedKafka(t)
	topic := kafka.Topic(t, 1) + "-small"
	kafka.CreateTopic(t, topic, 1, map[string]string{"max.message.bytes": "2000"})
	s := openSink(t, sinkURL(kafka, "compression.type=none"), sink.Options{Topics: []string{topic}})
	var msgs []sink.Message
	for n := range 500 {
		msgs = append(msgs, sink.Message{Topic: topic, Key: []byte("a"), Value: fmt.Appendf(nil, "%300d", n), Time: time.Now()})
	}
	if err := s.Send(t.Context(), msgs, func(err error) {
		if err != nil {
			t.Errorf("a message failed: %v", err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(kafka.Records(t, topic)); got != len(msgs) {
		t.Errorf("%d messages are stored, want %d", got, len(msgs))
	}
}

// BenchmarkKafkaSink is messages of 300 bytes over 1,000 keys, in batches as the reader
// of a busy log makes them. One operation is one message.
func BenchmarkKafkaSink(b *testing.B) {
	kafka := servers.SharedKafka(b)
	for _, settings := range []string{"", "linger.ms=0", "linger.ms=1", "compression.type=none", "compression.type=lz4", "compression.type=zstd"} {
		b.Run(cmp.Or(settings, "defaults"), func(b *testing.B) {
			const size = 256
			topic := kafka.Topic(b, 6)
			s := openSink(b, sinkURL(kafka, settings), sink.Options{Topics: []string{topic}})
			msgs := make([]sink.Message, size)
			for n := range msgs {
				msgs[n] = sink.Message{
					Topic: topic, Key: fmt.Appendf(nil, "order-%d", n*7919%1000), Time: time.Now(),
					Value:   fmt.Appendf(nil, `{"id": %d, "customer": "%x", "lines": [{"sku": "%x", "amount": %d}], "note": "%s"}`, n, n*31, n*37, n%9, strings.Repeat("as agreed, ", 16)),
					Headers: []sink.Header{{Key: "id", Value: []byte("018f2c5e-7b1a-7c3d-9e4f-0a1b2c3d4e5f")}, {Key: "event_type", Value: []byte("placed")}},
				}
			}
			b.ReportAllocs()
			b.SetBytes(300)
			for left := b.N; left > 0; left -= size {
				if err := s.Send(b.Context(), msgs[:min(left, size)], func(err error) {
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
