package nemesis

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// broker is what the stream ends in, behind a proxy.
type broker interface {
	link() *servers.Proxy

	// sink is its URL by way of the proxy, and topic the one that the stream uses.
	sink() string
	topic() string

	// pace is how often each writer of the load begins a transaction, so that the broker
	// can keep up.
	pace() time.Duration

	// faults are those of the server itself.
	faults(w *world) []fault

	// records are what it holds now, by partition and offset. The server must be up.
	records(w *world) []*kgo.Record

	// ends looks beside the proxy where each partition ends.
	ends(ctx context.Context) (ends [partitions]int64, ok bool)

	// line names what keeps the order in which it was sent.
	line(r *kgo.Record) string

	// verifies says whether outboxcdc verify can read it.
	verifies() bool
}

// kafka is Apache Kafka with a topic of its own.
type kafka struct {
	server *servers.KafkaServer
	proxy  *servers.Proxy
	name   string
	admin  *kadm.Client // gives up soon
}

func newKafka(t *testing.T, proxy *servers.Proxy) broker {
	t.Helper()
	// A broker tells its clients where they find it: behind the proxy.
	k := &kafka{proxy: proxy, server: servers.Kafka(t, servers.Setting("advertised.listeners", "PLAINTEXT://"+proxy.Addr()))}
	proxy.SetTarget(k.server.Bootstrap()[0])
	k.name = k.server.Topic(t, partitions)
	k.admin = kadm.NewClient(k.client(t, kgo.RetryTimeout(2*time.Second)))
	return k
}

func (k *kafka) link() *servers.Proxy { return k.proxy }
func (k *kafka) sink() string         { return "kafka://" + k.proxy.Addr() }
func (k *kafka) topic() string        { return k.name }
func (k *kafka) pace() time.Duration  { return 15 * time.Millisecond }

// line is a partition: what is sent to one of them stays in order.
func (k *kafka) line(r *kgo.Record) string { return strconv.Itoa(int(r.Partition)) }

func (k *kafka) verifies() bool { return true }

func (k *kafka) faults(w *world) []fault {
	return []fault{
		{name: "kill -9 of the broker", strike: func() { k.server.Kill9(w.t); w.let(4 * time.Second); k.server.Start(w.t) }},
		{name: "restart of the broker", strike: func() { k.server.Stop(w.t); w.let(4 * time.Second); k.server.Start(w.t) }},
	}
}

// client reads from the broker without the proxy, whatever address it gives.
func (k *kafka) client(tb testing.TB, opts ...kgo.Opt) *kgo.Client {
	tb.Helper()
	direct := k.server.Bootstrap()[0]
	return k.server.Client(tb, append([]kgo.Opt{kgo.Dialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, direct)
	})}, opts...)...)
}

func (k *kafka) ends(ctx context.Context) (ends [partitions]int64, ok bool) {
	listed, err := k.admin.ListEndOffsets(ctx, k.name)
	if err != nil || listed.Error() != nil {
		return ends, false
	}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, true
}

func (k *kafka) records(w *world) []*kgo.Record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ends, err := kadm.NewClient(k.client(w.t)).ListEndOffsets(ctx, k.name)
	if err != nil || ends.Error() != nil {
		w.t.Fatalf("ask where the topic ends: %v, %v", err, ends.Error())
	}
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			from[o.Partition], left[o.Partition] = kgo.NewOffset().AtStart(), o.Offset
		}
	})
	client := k.client(w.t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{k.name: from}))
	defer client.Close()
	var records []*kgo.Record
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("read the topic: %v", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			records = append(records, r)
			if end, ok := left[r.Partition]; ok && r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
	}
	slices.SortFunc(records, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return records
}

// rabbit is RabbitMQ with one queue, from which nobody takes anything: its place in the
// queue is a message's offset.
type rabbit struct {
	server *servers.RabbitServer
	proxy  *servers.Proxy
	name   string // of exchange and queue

	// taken is held by who takes messages out of the queue to look at them: until they
	// are back, the queue says that it is shorter.
	taken sync.RWMutex
}

func newRabbit(t *testing.T, proxy *servers.Proxy) broker {
	t.Helper()
	r := &rabbit{proxy: proxy, server: servers.Rabbit(t)}
	proxy.SetTarget(r.server.Address())
	r.name = r.server.Name(t)
	r.server.Exchange(t, r.name, "topic")
	r.server.Queue(t, r.name, nil)
	r.server.Bind(t, r.name, r.name, "#")
	r.server.Settle(t) // that RabbitMQ forgets it is not what is looked for here
	return r
}

func (r *rabbit) link() *servers.Proxy { return r.proxy }
func (r *rabbit) topic() string        { return "order" }
func (r *rabbit) pace() time.Duration  { return 100 * time.Millisecond }

// line is a key: of others, several are on their way at a time.
func (r *rabbit) line(record *kgo.Record) string { return string(record.Key) }

func (r *rabbit) verifies() bool { return false }

// sink has a heart that beats fast enough for a black hole of half a minute to be noticed.
func (r *rabbit) sink() string {
	return r.server.URLAt(r.proxy.Addr()) + "?heartbeat=3&exchange=" + r.name
}

func (r *rabbit) faults(w *world) []fault {
	return []fault{
		{name: "kill -9 of the broker", strike: func() { r.server.Kill9(w.t); r.server.Start(w.t) }},
		{name: "restart of the broker", strike: func() { r.server.Stop(w.t); w.let(4 * time.Second); r.server.Start(w.t) }, slow: true},
		{name: "memory alarm of the broker", strike: func() {
			r.server.Control(w.t, "set_vm_memory_high_watermark", "absolute", "1MB")
			w.let(4 * time.Second)
			r.server.Control(w.t, "set_vm_memory_high_watermark", "0.9")
		}},
		{name: "connections closed by an administrator", strike: func() {
			r.server.Control(w.t, "close_all_connections", "the nemesis")
		}, slow: true},
		{name: "queue unbound for a moment", strike: func() { r.unbind(w) }, calm: true},
	}
}

// unbind leaves messages without a queue. The streamer ends, as it must: nobody but an
// operator can know where they belong.
func (r *rabbit) unbind(w *world) {
	w.recovers("the fault before")
	r.server.Do(w.t, func(ch *amqp.Channel) error { return ch.QueueUnbind(r.name, "#", r.name, nil) })
	w.main.refuses(w.t, "no queue of exchange")
	r.server.Bind(w.t, r.name, r.name, "#")
	r.server.Settle(w.t)
	w.main = w.stream()
}

func (r *rabbit) ends(context.Context) (ends [partitions]int64, ok bool) {
	if !r.taken.TryRLock() {
		return ends, false
	}
	defer r.taken.RUnlock()
	connection, err := amqp.DialConfig(r.server.URL(), amqp.Config{Dial: amqp.DefaultDial(2 * time.Second)})
	if err != nil {
		return ends, false
	}
	defer connection.Close() //nolint:errcheck // nothing is owed to it
	channel, err := connection.Channel()
	if err != nil {
		return ends, false
	}
	queue, err := channel.QueueDeclarePassive(r.name, true, false, false, false, nil)
	ends[0] = int64(queue.Messages)
	return ends, err == nil
}

// awaitReturn waits until messages that were taken out are in the queue again.
func (r *rabbit) awaitReturn(w *world, messages int) {
	w.t.Helper()
	clock := time.NewTicker(50 * time.Millisecond)
	defer clock.Stop()
	for deadline := time.Now().Add(recoveryBound); ; <-clock.C {
		var queue amqp.Queue
		r.server.Do(w.t, func(ch *amqp.Channel) (err error) {
			queue, err = ch.QueueDeclarePassive(r.name, true, false, false, false, nil)
			return err
		})
		if queue.Messages >= messages {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("seed %d: %d of %d messages are back in the queue after %v", *seed, queue.Messages, messages, recoveryBound)
		}
	}
}

func (r *rabbit) records(w *world) []*kgo.Record {
	w.t.Helper()
	r.taken.Lock()
	defer r.taken.Unlock()
	var records []*kgo.Record
	held := r.server.Messages(w.t, r.name)
	r.awaitReturn(w, len(held))
	for i := range held {
		d := &held[i]
		record := &kgo.Record{Offset: int64(i), Value: d.Body}
		for name, value := range d.Headers {
			if text, ok := value.(string); ok {
				record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(text)})
			}
		}
		record.Key = []byte(headerOf(w.t, record, "outboxcdc-key"))
		records = append(records, record)
	}
	return records
}
