package sim

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

const (
	topic      = "events"
	partitions = 3
	brokers    = 2
	firstPort  = 9092
)

// kafka is a cluster in memory, behind links that fail.
type kafka struct {
	w       *world
	cluster *kfake.Cluster
	network kfake.VirtualNetwork

	mu    sync.Mutex
	down  map[string]bool // by address
	links map[*brokerLink]struct{}
}

// brokerLink is a connection of a process to a broker: the client's end, and what
// carries bytes on to the broker.
type brokerLink struct {
	address string
	client  *waltest.Conn
	server  *waltest.Conn
	broker  net.Conn
}

func newKafka(w *world) *kafka {
	k := &kafka{w: w, down: map[string]bool{}, links: map[*brokerLink]struct{}{}}
	var ports []int
	for i := range brokers {
		ports = append(ports, firstPort+i)
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(brokers), kfake.Ports(ports...),
		kfake.ListenFn(k.network.Listen), kfake.SeedTopics(partitions, topic))
	if err != nil {
		w.t.Fatalf("start the fake cluster: %v", err)
	}
	k.cluster = cluster
	for p := range int32(partitions) { // not where chance has put them
		if err := cluster.MoveTopicPartition(topic, p, p%brokers); err != nil {
			w.t.Fatal(err)
		}
	}
	return k
}

func addresses() (all []string) {
	for i := range brokers {
		all = append(all, fmt.Sprintf("localhost:%d", firstPort+i))
	}
	return all
}

// dial is a process' way to a broker.
func (k *kafka) dial(ctx context.Context, network, address string) (*brokerLink, error) {
	k.mu.Lock()
	down := k.down[address]
	k.mu.Unlock()
	if down {
		return nil, syscall.ECONNREFUSED
	}
	broker, err := k.network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l := &brokerLink{address: address, broker: broker}
	l.client, l.server = waltest.Pipe(k.w.shape())
	k.mu.Lock()
	k.links[l] = struct{}{}
	k.mu.Unlock()
	for _, way := range [][2]net.Conn{{l.server, broker}, {broker, l.server}} {
		go func() {
			io.Copy(way[1], way[0]) //nolint:errcheck // either end may be gone
			l.close()
		}()
	}
	return l, nil
}

func (l *brokerLink) close() {
	l.server.Close() //nolint:errcheck // memory
	l.broker.Close()
}

// reach calls do for each link to an address, all of them when it is empty.
func (k *kafka) reach(address string, do func(*brokerLink)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for l := range k.links {
		if address == "" || l.address == address {
			do(l)
		}
	}
}

func (k *kafka) setDown(address string, down bool) {
	k.mu.Lock()
	k.down[address] = down
	k.mu.Unlock()
	if down {
		k.reach(address, func(l *brokerLink) { l.client.Reset() })
	}
}

func (k *kafka) heal() {
	for _, a := range addresses() {
		k.setDown(a, false)
	}
}

func (k *kafka) close() {
	k.reach("", (*brokerLink).close)
	k.cluster.Close()
}

// stored is how many messages each partition holds.
func (k *kafka) stored() (n [partitions]int64) {
	for i, p := range k.cluster.PartitionInfos(topic) {
		n[i] = p.HighWatermark
	}
	return n
}

// read gives what each partition holds.
func (k *kafka) read() (logs [partitions][]*kgo.Record) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(addresses()...), kgo.Dialer(k.network.DialContext),
		kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		k.w.t.Fatal(err)
	}
	defer c.Close()
	left := int64(0)
	for _, n := range k.stored() {
		left += n
	}
	for left > 0 {
		fetched := c.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			k.w.t.Errorf("read the topic: %v", err)
			return logs
		}
		for _, record := range fetched.Records() {
			logs[record.Partition] = append(logs[record.Partition], record)
			left--
		}
	}
	return logs
}

// passing are answers that time mends, refusing one that an operator does.
var (
	passing = []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend,
		kerr.LeaderNotAvailable, kerr.KafkaStorageError,
	}
	refusing = kerr.PolicyViolation
)

// disturbKafka lets brokers fail in the ways in which brokers do.
func (w *world) disturbKafka() {
	r := w.random("kafka")
	k := w.kafka
	for range r.IntN(10) {
		sleep(r, 20*time.Second)
		length := time.Duration(r.Int64N(int64(20 * time.Second)))
		at := addresses()[r.IntN(brokers)]
		switch r.IntN(9) {
		case 8:
			w.fault("every broker is down", func(t *tally) { t.BrokerOutages++ })
			for _, a := range addresses() {
				k.setDown(a, true)
			}
			time.Sleep(10 * length) // longer than any timeout
			k.heal()
		case 0:
			w.fault("broker "+at+" is down", func(t *tally) { t.BrokerOutages++ })
			k.setDown(at, true)
			time.Sleep(length)
			k.setDown(at, false)
		case 1:
			w.fault("links to broker "+at+" are dead", func(t *tally) { t.BrokerLostLinks++ })
			k.reach(at, func(l *brokerLink) { l.client.Lose() })
		case 2:
			w.fault("brokers hang", func(t *tally) { t.BrokerHolds++ })
			resume := k.hold()
			time.Sleep(length)
			resume()
		case 3:
			p, to := int32(r.IntN(partitions)), int32(r.IntN(brokers))
			w.fault(fmt.Sprintf("partition %d moves to broker %d", p, to), func(t *tally) { t.Moves++ })
			if err := k.cluster.MoveTopicPartition(topic, p, to); err != nil {
				w.t.Error(err)
			}
		case 4:
			w.fault("a batch is refused", func(t *tally) { t.Refusals++ })
			k.answer(refusing, int32(r.IntN(partitions)), 1)
		default:
			e := passing[r.IntN(len(passing))]
			w.fault("batches are answered with "+e.Message, func(t *tally) { t.BrokerErrors++ })
			k.answer(e, int32(r.IntN(partitions)), 1+r.IntN(4))
		}
	}
}

func (k *kafka) answer(err *kerr.Error, partition int32, count int) {
	k.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{partition}, Err: err, Count: count})
}

// hold stops produce requests until resume is called.
func (k *kafka) hold() (resume func()) {
	resumed := make(chan struct{})
	var once sync.Once
	k.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case <-resumed:
			k.cluster.DropControl()
		default:
			k.cluster.KeepControl()
			k.cluster.SleepControl(func() { <-resumed })
		}
		return nil, nil, false
	})
	return func() { once.Do(func() { close(resumed) }) }
}

func kafkaURL(settings ...string) string {
	return "kafka://" + strings.Join(addresses(), ",") + "?" + strings.Join(settings, "&")
}
