package test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// rabbitLine is a stream from a database to a queue.
type rabbitLine struct {
	*line

	rabbit *servers.RabbitServer
	name   string // of exchange and queue
}

func newRabbitLine(tb testing.TB, rabbit *servers.RabbitServer) *rabbitLine {
	tb.Helper()
	db, slot := servers.SharedPostgres(tb), walName("rabbit")
	l := &rabbitLine{rabbit: rabbit, name: rabbit.Name(tb), line: &line{db: db, slot: slot, sql: db.Server.Conn(tb, db.Name)}}
	mustRun(tb, "init", "--slot", l.slot, "--database-url", l.db.URL)
	rabbit.Exchange(tb, l.name, "topic")
	rabbit.Queue(tb, l.name, nil)
	return l
}

func (l *rabbitLine) args(more ...string) []string {
	return append([]string{"--slot", l.slot, "--database-url", l.db.URL, "--sink", rabbitSinkURL(l.rabbit, "exchange="+l.name)}, more...)
}

// event commits one event of an aggregate.
func (l *rabbitLine) event(tb testing.TB, kind, id, payload string) {
	tb.Helper()
	l.exec(tb, "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ($1, $2, 'raised', to_jsonb($3::text))", kind, id, payload)
}

// awaitPayloads waits until the queue holds just these, in order.
func (l *rabbitLine) awaitPayloads(tb testing.TB, queue string, want ...string) {
	tb.Helper()
	var got []string
	defer func() {
		if tb.Failed() {
			tb.Logf("queue %s holds %q, want %q", queue, got, want)
		}
	}()
	eventually(tb, time.Minute, "the queue holds what was written", func() bool {
		got = nil
		for _, m := range rabbitMessages(tb, l.rabbit, queue) {
			got = append(got, strings.Trim(string(m.Value), `"`))
		}
		return strings.Join(got, " ") == strings.Join(want, " ")
	})
}

// TestAMessageThatNoQueueTakesStopsTheStream and is neither lost nor passed by what is
// behind it.
func TestAMessageThatNoQueueTakesStopsTheStream(t *testing.T) {
	t.Parallel()
	l := newRabbitLine(t, servers.SharedRabbit(t))
	l.rabbit.Bind(t, l.name, l.name, "outbox.event.order")
	s := stream(t, l.args("--http", "off")...)
	l.event(t, "order", "42", "1")
	l.awaitPayloads(t, l.name, "1")
	l.event(t, "invoice", "42", "2") // nobody has bound a queue for invoices
	l.event(t, "order", "42", "3")
	if status := s.await(t); status != 3 || !strings.Contains(s.log.String(), "send to topic outbox.event.invoice: no queue of exchange "+l.name) {
		t.Fatalf("exit status %d, want 3 and the topic:\n%s", status, s.log)
	}
	l.rabbit.Bind(t, l.name, l.name, "outbox.event.invoice")
	s = stream(t, l.args("--http", "off")...)
	eventually(t, time.Minute, "the queue holds what follows", func() bool { return len(rabbitMessages(t, l.rabbit, l.name)) >= 3 })
	s.wantStop(t)
	var seen []string
	for _, m := range rabbitMessages(t, l.rabbit, l.name) {
		if text := strings.Trim(string(m.Value), `"`); len(seen) == 0 || seen[len(seen)-1] != text && text > seen[len(seen)-1] {
			seen = append(seen, text)
		}
	}
	if strings.Join(seen, " ") != "1 2 3" {
		t.Errorf("first deliveries are %q, want 1 2 3", seen)
	}
}

// TestAQueueThatIsDeletedStopsTheStream: what it held went with it, what follows waits
// for the next queue.
func TestAQueueThatIsDeletedStopsTheStream(t *testing.T) {
	t.Parallel()
	l := newRabbitLine(t, servers.SharedRabbit(t))
	l.rabbit.Bind(t, l.name, l.name, "#")
	s := stream(t, l.args("--http", "off")...)
	l.event(t, "order", "42", "1")
	l.awaitPayloads(t, l.name, "1")
	l.rabbit.Do(t, func(ch *amqp.Channel) error { _, err := ch.QueueDelete(l.name, false, false, false); return err })
	l.event(t, "order", "42", "2")
	l.event(t, "order", "42", "3")
	if status := s.await(t); status != 3 || !strings.Contains(s.log.String(), "bind a queue") {
		t.Fatalf("exit status %d, want 3 and the way out:\n%s", status, s.log)
	}
	l.rabbit.Queue(t, l.name, nil)
	l.rabbit.Bind(t, l.name, l.name, "#")
	s = stream(t, l.args("--http", "off")...)
	eventually(t, time.Minute, "the new queue holds what the old one did not get", func() bool {
		var got []string
		for _, m := range rabbitMessages(t, l.rabbit, l.name) {
			got = append(got, strings.Trim(string(m.Value), `"`))
		}
		return strings.HasSuffix(strings.Join(got, " "), "2 3")
	})
	s.wantStop(t)
}

// TestAnAlarmIsWaitedFor: while the broker has no memory left nothing is sent, the
// stream is not ready and says why, and nothing is lost.
func TestAnAlarmIsWaitedFor(t *testing.T) {
	t.Parallel()
	rabbit := servers.Rabbit(t)
	l := newRabbitLine(t, rabbit)
	rabbit.Bind(t, l.name, l.name, "#")
	s := stream(t, l.args("--http", "127.0.0.1:0")...)
	address := s.address(t)
	l.event(t, "order", "42", "1")
	l.awaitPayloads(t, l.name, "1")
	rabbit.Control(t, "set_vm_memory_high_watermark", "absolute", "1MB")
	l.event(t, "order", "42", "2")
	l.event(t, "order", "43", "3")
	eventually(t, time.Minute, "the stream is not ready, because of the alarm", func() bool {
		status, text := get(t, "http://"+address+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(text, "low on memory")
	})
	rabbit.Control(t, "set_vm_memory_high_watermark", "0.9")
	l.awaitPayloads(t, l.name, "1", "2", "3")
	eventually(t, time.Minute, "the stream is ready again", func() bool {
		status, _ := get(t, "http://"+address+"/readyz")
		return status == http.StatusOK
	})
	if strings.Contains(s.log.String(), "session ended") {
		t.Errorf("the alarm ended a session:\n%s", s.log)
	}
	s.wantStop(t)
}

func get(tb testing.TB, url string) (status int, text string) {
	tb.Helper()
	answer, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close() //nolint:errcheck // it is read
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// TestCheckLooksAtExchangeAndQueue of RabbitMQ.
func TestCheckLooksAtExchangeAndQueue(t *testing.T) {
	t.Parallel()
	rabbit := servers.SharedRabbit(t)
	l := newRabbitLine(t, rabbit)
	for _, c := range []struct {
		url, topic string
		status     int
		want       string
	}{
		{rabbitSinkURL(rabbit, "exchange="+l.name), "outbox.event.{aggregate_type}", 0, "which queues are bound"},
		{rabbitSinkURL(rabbit, "exchange="+l.name+"-none"), "outbox.event.{aggregate_type}", 3, "exchange " + l.name + "-none: it does not exist"},
		{rabbitSinkURL(rabbit, "exchange="), l.name, 0, "queue " + l.name + ": it exists"},
		{rabbitSinkURL(rabbit, "exchange="), "nowhere", 3, "queue nowhere: it does not exist"},
		{strings.Replace(rabbit.URL(), ":outboxcdc@", ":wrong@", 1) + "?exchange=" + l.name, "order", 3, "check user and password"},
		{rabbit.URL() + "nowhere?exchange=" + l.name, "order", 3, "check the virtual host"},
	} {
		out, status := outboxcdc(t, "check", "--slot", l.slot, "--database-url", l.db.URL, "--sink", c.url, "--topic", c.topic)
		if status != c.status || !strings.Contains(out, c.want) {
			t.Errorf("check of topic %s gives %d, want %d and %q:\n%s", c.topic, status, c.status, c.want, out)
		}
	}
}

// TestOfAKeyOneMessageIsOnItsWay: while the broker's answers are held back, the second
// message of a key stays with us, although another key's is published behind it. So
// whatever becomes of the first, the second cannot be stored ahead of it.
func TestOfAKeyOneMessageIsOnItsWay(t *testing.T) {
	rabbit := servers.SharedRabbit(t)
	name := rabbit.Name(t)
	rabbit.Queue(t, name, nil)
	w := new(wire)
	s := openSink(t, rabbitSinkURL(rabbit, "exchange="), sink.Options{Topics: []string{name}, Dial: w.dial})
	resume := w.hold()
	var msgs []sink.Message
	for _, m := range []struct{ key, value string }{{"a", "a1"}, {"a", "a2"}, {"b", "b1"}} {
		msgs = append(msgs, sink.Message{Topic: name, Key: []byte(m.key), Value: []byte(m.value), Time: time.Now()})
	}
	if err := s.Send(t.Context(), msgs, func(err error) {
		if err != nil {
			t.Errorf("a message failed: %v", err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	held := func() (values []string) {
		for _, m := range rabbitMessages(t, rabbit, name) {
			values = append(values, string(m.Value))
		}
		return values
	}
	// One channel: when the broker has b1, it has all that was published before it.
	eventually(t, time.Minute, "the broker has what was published last", func() bool { return slices.Contains(held(), "b1") })
	if got := held(); slices.Contains(got, "a2") {
		t.Errorf("the broker has %q while a1 is not confirmed, want a1 and b1", got)
	}
	resume()
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(held(), " "); got != "a1 b1 a2" {
		t.Errorf("the broker has %q, want a1 b1 a2", got)
	}
}
