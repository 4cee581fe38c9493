package sink_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/sink"
)

// Each partition goes from broker to broker while it is written to, and the client
// learns of it from refusals.
func TestEventsKeepTheirOrderWhileLeadersMove(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			fake := newFakeKafka(t, 3, kfake.SeedTopics(4, topic))
			moves := 0
			s := fake.open(t, fake.options(topic), "linger.ms=1")
			var sent []sink.Message
			for n := range 300 {
				if n%20 == 0 {
					partition, to := rnd.Int32N(4), rnd.Int32N(3)
					if fake.LeaderFor(topic, partition) != to {
						moves++
					}
					if err := fake.MoveTopicPartition(topic, partition, to); err != nil {
						t.Fatal(err)
					}
				}
				m := message(fmt.Sprintf("key-%d", rnd.IntN(12)), n)
				sent = append(sent, m)
				if err := s.Send(t.Context(), []sink.Message{m}, func(err error) {
					if err != nil {
						t.Errorf("message %d failed: %v", n, err)
					}
				}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond)
			}
			flush(t, s)
			if moves < 3 {
				t.Errorf("seed %d: %d moves prove nothing", seed, moves)
			}
			if diff := cmp.Diff(byKey(sent), byKey(fake.stored(t, topic))); diff != "" {
				t.Errorf("seed %d: stored differs from sent (-sent +stored):\n%s", seed, diff)
			}
		})
	}
}

// The broker has too few replicas in sync for an hour. That is waited for.
func TestTooFewReplicasAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		s := fake.open(t, fake.options(topic))
		refused := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotEnoughReplicas, Count: -1})
		acks := 0
		for n := range 5 {
			if err := s.Send(t.Context(), []sink.Message{message("a", n)}, func(err error) {
				if err != nil {
					t.Errorf("message %d failed: %v", n, err)
				}
				acks++
			}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		if acks != 0 || refused.Hits() < 100 {
			t.Errorf("%d messages are acked after %d refusals, want none and one try after the other", acks, refused.Hits())
		}
		refused.Remove()
		flush(t, s)
		if got := len(fake.stored(t, topic)); acks != 5 || got != 5 {
			t.Errorf("%d messages are acked and %d stored, want 5", acks, got)
		}
	})
}

// slowRoad is the network to one of the brokers, whose answers may be long on the
// way.
type slowRoad struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	address string // ends like this
	mu      sync.Mutex
	blocked chan struct{} // nil, or closed when answers arrive again
}

func (r *slowRoad) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := r.dial(ctx, network, address)
	if err != nil || !strings.HasSuffix(address, r.address) {
		return conn, err
	}
	return slowConn{conn, r}, nil
}

func (r *slowRoad) block() (open func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	blocked := make(chan struct{})
	r.blocked = blocked
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.blocked = nil
		close(blocked)
	}
}

type slowConn struct {
	net.Conn
	road *slowRoad
}

func (c slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.road.mu.Lock()
	blocked := c.road.blocked
	c.road.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
	return n, err
}

// roads are a topic of two partitions, each on a broker of its own, with a key for
// each. The road to the second broker can be blocked.
type roads struct {
	*fakeKafka

	options    sink.Options
	second     *slowRoad
	fast, slow string
}

func twoRoads(t *testing.T) roads {
	t.Helper()
	fake := newFakeKafka(t, 2, kfake.SeedTopics(2, topic))
	for p := range int32(2) {
		if err := fake.MoveTopicPartition(topic, p, p); err != nil {
			t.Fatal(err)
		}
	}
	r := roads{fakeKafka: fake, options: fake.options(topic)}
	for n := 0; r.fast == "" || r.slow == ""; n++ {
		key := fmt.Sprintf("k%d", n)
		if partitionOf(key, 2) == 0 {
			r.fast = key
		} else {
			r.slow = key
		}
	}
	r.second = &slowRoad{dial: fake.network.DialContext, address: fmt.Sprintf(":%d", firstPort+1)}
	r.options.Dial = r.second.connect
	return r
}

// A message is refused while another waits for a broker that does not answer. The
// session has ended with the refusal and must not wait for the other broker.
func TestAFailureFailsAtOnceWhatWaitsForAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoRoads(t)
		s := r.open(t, r.options, "request.timeout.ms=120000")
		send := func(key string, ack sink.Ack) {
			if err := s.Send(t.Context(), []sink.Message{message(key, 1)}, ack); err != nil {
				t.Fatal(err)
			}
		}
		send(r.fast, ignore)
		send(r.slow, ignore)
		flush(t, s)

		open := r.second.block()
		defer open()
		waiting := make(chan error, 1)
		send(r.slow, func(err error) { waiting <- err })
		time.Sleep(time.Second)
		r.refuse(topic, r.fast, kerr.PolicyViolation)
		send(r.fast, ignore)
		time.Sleep(10 * time.Second)
		select {
		case err := <-waiting:
			if !errors.Is(err, kerr.PolicyViolation) {
				t.Errorf("what waited is acked with %v, want the reason of the failure", err)
			}
		default:
			t.Error("ten seconds after a failure a message still waits for its broker")
		}
	})
}

// One broker answers nothing for a minute. What goes to the other is acked, what goes
// to it is not, and what is held for it stays within the buffer.
func TestASlowPartitionHoldsUpNoOtherAndTheBufferHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoRoads(t)
		r.options.BufferBytes = 4000
		fast, slow := r.fast, r.slow
		s := r.open(t, r.options, "request.timeout.ms=120000")
		acks := map[string]*atomic.Int64{fast: {}, slow: {}}
		send := func(ctx context.Context, key string, n int) error {
			return s.Send(ctx, []sink.Message{message(key, n)}, func(err error) {
				if err != nil {
					t.Errorf("message %d of %s failed: %v", n, key, err)
				}
				acks[key].Add(1)
			})
		}
		if err := errors.Join(send(t.Context(), fast, 0), send(t.Context(), slow, 0)); err != nil {
			t.Fatal(err)
		}
		flush(t, s)

		open := r.second.block()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		taken := 0
		for send(ctx, slow, taken+1) == nil {
			taken++
			if acked := acks[fast].Load(); send(ctx, fast, taken) == nil {
				time.Sleep(time.Second)
				if acks[fast].Load() != acked+1 {
					t.Error("a message of the fast partition waits for the slow one")
				}
			}
		}
		if taken == 0 || taken > 4000/100 {
			t.Errorf("%d messages were taken for the slow partition, want as many as 4000 bytes hold", taken)
		}
		if got := acks[slow].Load(); got != 1 {
			t.Errorf("%d messages of the slow partition are acked, want only the one before", got)
		}
		open()
		flush(t, s)
		if got := acks[slow].Load(); got != int64(taken+1) {
			t.Errorf("%d messages of the slow partition are acked in the end, want %d", got, taken+1)
		}
	})
}

// The broker wants us to log in again every ten seconds (connections.max.reauth.ms).
func TestALoginThatExpiresIsRenewedUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "app", password),
			kfake.BrokerConfigs(map[string]string{"connections.max.reauth.ms": "10000"}), kfake.SeedTopics(1, topic))
		logins := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, Observe: true, TopLevel: true, Count: -1})
		s := fake.open(t, fake.options(topic), login("SCRAM-SHA-256", "app", password)...)
		var acked atomic.Int64
		for n := range 120 {
			if err := s.Send(t.Context(), []sink.Message{message("a", n)}, func(err error) {
				if err != nil {
					t.Errorf("message %d failed: %v", n, err)
				}
				acked.Add(1)
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		flush(t, s)
		if acked.Load() != 120 {
			t.Errorf("%d messages are acked, want 120", acked.Load())
		}
		if logins.Hits() < 10 {
			t.Errorf("%d steps of logging in for two minutes, want more: the login never expired", logins.Hits())
		}
	})
}

// partitionOf is where Java's client puts a key.
func partitionOf(key string, partitions int) int {
	return kgo.StickyKeyPartitioner(nil).ForTopic(topic).Partition(&kgo.Record{Key: []byte(key)}, partitions)
}
