package test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// The rows of the fault matrix in which the broker fails in ways that one real
// broker can.

// configureTopic changes a topic while it is written to.
func configureTopic(tb testing.TB, k *servers.KafkaServer, topic, name, value string) {
	tb.Helper()
	_, err := kadm.NewClient(k.Client(tb)).AlterTopicConfigs(walContext(tb),
		[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
	if err != nil {
		tb.Fatalf("configure the topic: %v", err)
	}
}

// The limit of a topic is looked up once. When it is lowered later, the broker
// refuses a whole batch.
func TestATopicThatTakesLessThanBeforeStopsTheStreamBeforeTheEvent(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	s := l.stream(t)
	l.event(t, "before")
	l.settle(t)
	configureTopic(t, l.kafka, l.topic, "max.message.bytes", "200")
	const large = "insert into outbox (aggregate_type, aggregate_id, event_type, payload) select 'order', $1, 'raised', to_jsonb(string_agg(gen_random_uuid()::text, '')) from generate_series(1, 1000)"
	l.exec(t, large, "large")
	l.event(t, "behind")
	last := l.end(t)
	s.wantEnd(t, "larger than the topic takes", "max.message.bytes")
	if large, behind := l.arrived(t, "large"), l.arrived(t, "behind"); large != 0 || behind != 0 {
		t.Errorf("%d and %d of the refused event and the one behind it are stored", large, behind)
	}
	if !l.behind(t, last) {
		t.Error("the slot is confirmed past an event that the broker refused")
	}
	configureTopic(t, l.kafka, l.topic, "max.message.bytes", "1048588")
	again := l.stream(t)
	l.settle(t)
	if large, behind := l.arrived(t, "large"), l.arrived(t, "behind"); large != 1 || behind != 1 {
		t.Errorf("%d and %d are stored after the limit was raised, want one each", large, behind)
	}
	again.wantStop(t)
}

func TestAQuotaSlowsTheStreamAndBreaksNothing(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	id := walName("client")
	quota := kadm.AlterClientQuotaEntry{
		Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: &id}},
		Ops:    []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: 20_000}},
	}
	admin := kadm.NewClient(l.kafka.Client(t))
	if _, err := admin.AlterClientQuotas(walContext(t), []kadm.AlterClientQuotaEntry{quota}); err != nil {
		t.Fatal(err)
	}
	s := stream(t, append([]string{
		"--topic", l.topic, "--http", "off", "--log-level", "debug",
		"--sink", sinkURL(l.kafka, "client.id="+id, "compression.type=none"),
	}, l.flags...)...)
	began := time.Now()
	var d delivery
	for range 4 { // the broker delays what follows too large a request
		if err := l.w.write(walContext(t), 500, 2); err != nil {
			t.Fatal(err)
		}
		d = l.delivered(t)
	}
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("delivered after %v: the broker throttled nothing, and this proves nothing", took)
	}
	if d.duplicates > 0 || s.says("another follows")() {
		t.Errorf("%d events were sent again, want none and one session:\n%s", d.duplicates, s.log)
	}
	s.wantStop(t)
}

// A record's time is that of its commit. Brokers refuse what is more than an hour
// ahead of them (message.timestamp.after.max.ms), and take any past.
func TestClocksMayDifferByAnHourAndFurtherOnesAreToldOf(t *testing.T) {
	kafka := servers.SharedKafka(t)
	topic := kafka.Topic(t, 1)
	s := openSink(t, sinkURL(kafka), sink.Options{Topics: []string{topic}})
	for n, apart := range []time.Duration{0, -24 * time.Hour, 55 * time.Minute, -time.Hour, 0} {
		sendAt(t, s, topic, time.Now().Add(apart), func(err error) {
			if err != nil {
				t.Errorf("an event %v from now is refused: %v", apart, err)
			}
		})
		if got := len(kafka.Records(t, topic)); got != n+1 {
			t.Errorf("%d events are stored, want %d", got, n+1)
		}
	}
	sendAt(t, s, topic, time.Now().Add(2*time.Hour), func(err error) {
		wantClass(t, err, fault.Operator, "compare the clocks", topic)
	})
}

func sendAt(tb testing.TB, s sink.Sink, topic string, at time.Time, ack sink.Ack) {
	tb.Helper()
	if err := s.Send(tb.Context(), []sink.Message{{Topic: topic, Key: []byte("a"), Value: []byte("1"), Time: at}}, ack); err != nil {
		tb.Fatalf("send: %v", err)
	}
	if err := s.Flush(tb.Context()); err != nil {
		tb.Fatalf("flush: %v", err)
	}
}

// A producer that was silent for so long that the broker forgot it goes on.
func TestAProducerThatTheBrokerForgotGoesOn(t *testing.T) {
	t.Parallel()
	kafka := servers.Kafka(t, servers.Setting("producer.id.expiration.ms", "500"), servers.Setting("producer.id.expiration.check.interval.ms", "200"))
	topic := kafka.Topic(t, 1)
	admin := kadm.NewClient(kafka.Client(t))
	s := openSink(t, sinkURL(kafka), sink.Options{Topics: []string{topic}})
	for range 3 {
		sendOne(t, s, topic, nil)
		sendOne(t, s, topic, nil)
		eventually(t, time.Minute, "the broker forgets the producer", func() bool { return knownProducers(t, admin, topic) == 0 })
	}
	sendOne(t, s, topic, nil)
	if got := len(kafka.Records(t, topic)); got != 7 {
		t.Errorf("%d events are stored, want 7", got)
	}
}

func knownProducers(tb testing.TB, admin *kadm.Client, topic string) int {
	tb.Helper()
	described, err := admin.DescribeProducers(walContext(tb), kadm.TopicsSet{topic: {0: {}}})
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	described.EachPartition(func(p kadm.DescribedProducersPartition) { n += len(p.ActiveProducers) })
	return n
}

// The broker comes back without the end of its log, as after the election of a
// replica that lagged. What it acknowledged is gone, and was confirmed to Postgres.
func TestABrokerThatLostWhatItAcknowledgedStopsTheStream(t *testing.T) {
	t.Parallel()
	kafka := servers.Kafka(t)
	l := newLine(t, servers.SharedPostgres(t), kafka)
	s := l.stream(t)
	for n := range 20 {
		l.event(t, fmt.Sprintf("event-%d", n))
		l.settle(t)
	}
	kafka.Kill9(t)
	kafka.Truncate(t, l.topic)
	kafka.Start(t)
	for n := range 200 { // until one meets a partition that lost something
		l.event(t, fmt.Sprintf("event-%d", n%20))
	}
	s.wantEnd(t, "no longer knows the events that it acknowledged", "unclean leader", "sent again from the table")
}
