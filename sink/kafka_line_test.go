package sink_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/sink/sinktest"
)

const topic = "outbox.event.order"

func message(key string, n int) sink.Message {
	return sink.Message{Topic: topic, Key: []byte(key), Value: fmt.Appendf(nil, "%d", n), Time: time.UnixMilli(1).UTC()}
}

func ignore(error) {}

func flush(tb testing.TB, s sink.Sink) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Flush(ctx); err != nil {
		tb.Errorf("Flush: %v", err)
	}
}

func closeSink(tb testing.TB, s sink.Sink) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Errorf("Close: %v", err)
	}
}

// keysApart are two keys of different partitions.
func keysApart(partitions int) (a, b string) {
	java := kgo.StickyKeyPartitioner(nil).ForTopic(topic)
	partition := func(key string) int { return java.Partition(&kgo.Record{Key: []byte(key)}, partitions) }
	a = "a"
	for i := 0; ; i++ {
		if b = fmt.Sprintf("b%d", i); partition(b) != partition(a) {
			return a, b
		}
	}
}

// The client tells of a failure on another goroutine, in turn. Here its turn does not
// come: an ack before it takes long. So all that Send takes meanwhile is taken in
// ignorance, and only the barrier keeps it from the broker.
func TestNothingPassesAFailedMessageWhoseAckIsLate(t *testing.T) {
	for name, failing := range map[string]func(f *fakeKafka, key string){
		// The broker refuses a batch that was written.
		"produce": func(f *fakeKafka, key string) { f.refuse(topic, key, kerr.InvalidRecord) },
		// Records fail that were never written, and the client's epoch stays as it was.
		"metadata": func(f *fakeKafka, _ string) {
			f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: 1})
			time.Sleep(5*time.Minute + time.Millisecond) // the client asks anew
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := newFakeKafka(t, 1, kfake.SeedTopics(4, topic))
				s := fake.open(t, fake.options(topic))
				good, bad := keysApart(4)
				var sent []sink.Message
				send := func(ack sink.Ack, m sink.Message) {
					sent = append(sent, m)
					if err := s.Send(t.Context(), []sink.Message{m}, ack); err != nil {
						t.Errorf("Send before the failure is known: %v", err)
					}
				}

				release := make(chan struct{})
				send(func(error) { <-release }, message(good, 1))
				synctest.Wait()
				time.Sleep(time.Second) // it is stored, and its ack goes on and on
				failing(fake, bad)
				var failed atomic.Int64
				count := func(err error) {
					if err != nil {
						failed.Add(1)
					}
				}
				send(count, message(bad, 1))
				time.Sleep(10 * time.Second) // it has failed
				for n := 2; n < 20; n++ {
					send(count, message(bad, n))
					time.Sleep(10 * time.Second) // each would be stored
				}
				close(release)
				closeSink(t, s)
				if failed.Load() == 0 {
					t.Error("no message failed")
				}
				sinktest.WantPrefixes(t, sent, fake.stored(t, topic))
			})
		})
	}
}

// One batch fails, at a random time, while Send goes on as fast as it can. Over the
// seeds this meets the windows that nobody thought of.
func TestStoredIsAPrefixOfEachKeyWhicheverBatchFails(t *testing.T) {
	errs := []*kerr.Error{
		kerr.InvalidRecord, kerr.PolicyViolation, kerr.MessageTooLarge, kerr.TopicAuthorizationFailed, kerr.OutOfOrderSequenceNumber,
		kerr.UnknownProducerID,
	}
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 0))
				fake := newFakeKafka(t, 1+rnd.IntN(3), kfake.SeedTopics(int32(1+rnd.IntN(4)), topic))
				s := fake.open(t, fake.options(topic), fmt.Sprintf("linger.ms=%d", rnd.IntN(3)))
				var failed atomic.Int64
				pace := rand.New(rand.NewPCG(seed, 1))
				ack := func(err error) {
					if err != nil {
						failed.Add(1)
					}
					if pace.IntN(8) == 0 { // a slow machine
						time.Sleep(time.Duration(pace.IntN(2000)) * time.Microsecond)
					}
				}
				sent := sendUntilItEnds(t, s, rnd, ack, func() {
					fake.refuse(topic, fmt.Sprintf("key-%d", rnd.IntN(8)), errs[rnd.IntN(len(errs))])
				})
				closeSink(t, s)
				if failed.Load() == 0 {
					t.Error("no message failed")
				}
				sinktest.WantPrefixes(t, sent, fake.stored(t, topic))
			})
		})
	}
}

// sendUntilItEnds sends batches of random size and pace until Send refuses, and calls
// fail somewhere on the way.
func sendUntilItEnds(t *testing.T, s sink.Sink, rnd *rand.Rand, ack sink.Ack, fail func()) []sink.Message {
	t.Helper()
	var sent []sink.Message
	at := rnd.IntN(50)
	for n := range 1000 {
		if n == at {
			fail()
		}
		batch := make([]sink.Message, 1+rnd.IntN(20))
		for i := range batch {
			batch[i] = message(fmt.Sprintf("key-%d", rnd.IntN(8)), len(sent)+i)
		}
		sent = append(sent, batch...)
		if err := s.Send(t.Context(), batch, ack); err != nil {
			return sent
		}
		if rnd.IntN(3) == 0 {
			time.Sleep(time.Duration(rnd.IntN(8)) * time.Millisecond)
		}
	}
	t.Error("Send never refused")
	return sent
}

func TestAFailedMessageFailsAllBehindItWithItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		s := fake.open(t, fake.options(topic))
		fake.refuse(topic, "a", kerr.PolicyViolation)
		resume := fake.hold()
		var errs []error
		ack := func(err error) { errs = append(errs, err) }
		for n := range 3 {
			if err := s.Send(t.Context(), []sink.Message{message("a", n)}, ack); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		resume()
		flush(t, s) // every message is acked
		if len(errs) != 3 {
			t.Fatalf("%d acks, want 3: %v", len(errs), errs)
		}
		for _, err := range errs {
			if !errors.Is(err, kerr.PolicyViolation) || fault.Classify(err) != fault.Operator {
				t.Errorf("acked with %v of class %v, want the broker's reason and class operator", err, fault.Classify(err))
			}
		}
		if err := s.Send(t.Context(), []sink.Message{message("b", 1)}, ignore); !errors.Is(err, kerr.PolicyViolation) {
			t.Errorf("the next Send gives %v, want the reason of the failure", err)
		}
	})
}

func TestAnImpossibleMessageStopsTheLineAndKeepsWhatWasSent(t *testing.T) {
	for name, bad := range map[string]sink.Message{
		"too large":     {Topic: topic, Key: []byte("a"), Value: make([]byte, 1<<20)},
		"headers":       {Topic: topic, Key: []byte("a"), Headers: []sink.Header{{Key: "h", Value: make([]byte, 1<<20)}}},
		"no key":        {Topic: topic, Value: []byte("1")},
		"empty key":     {Topic: topic, Key: []byte{}, Value: []byte("1")},
		"illegal topic": {Topic: "outbox event", Key: []byte("a"), Value: []byte("1")},
		"dot":           {Topic: "..", Key: []byte("a"), Value: []byte("1")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
				s := fake.open(t, fake.options(topic))
				var stored int
				var errs []error
				err := s.Send(t.Context(), []sink.Message{message("a", 0), message("a", 1), bad, message("a", 2)}, func(err error) {
					if err == nil {
						stored++
						return
					}
					errs = append(errs, err)
				})
				if fault.Classify(err) != fault.Data {
					t.Errorf("Send gives %v of class %v, want class data", err, fault.Classify(err))
				}
				flush(t, s)
				if stored != 2 || len(errs) != 1 || fault.Classify(errs[0]) != fault.Data {
					t.Errorf("%d messages acked, errors %v; want 2 and one of class data: what is behind it is not taken", stored, errs)
				}
				if err := s.Send(t.Context(), []sink.Message{message("b", 1)}, ignore); fault.Classify(err) != fault.Data {
					t.Errorf("the next Send gives %v, want the reason", err)
				}
				if got := len(fake.stored(t, topic)); got != 2 {
					t.Errorf("%d messages are stored, want 2", got)
				}
			})
		})
	}
}

// A format may mean a message without a key: null stays null and empty stays empty,
// which is a key with a partition of its own.
func TestAKeylessMessageKeepsItsNullOrEmptyKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		s := fake.open(t, fake.options(topic))
		err := s.Send(t.Context(), []sink.Message{
			{Topic: topic, Value: []byte("1"), Keyless: true}, {Topic: topic, Key: []byte{}, Value: []byte("2"), Keyless: true},
		}, ignore)
		if err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		stored := fake.stored(t, topic)
		if len(stored) != 2 || stored[0].Key != nil || stored[1].Key == nil || len(stored[1].Key) != 0 {
			t.Errorf("stored %v, want a null key and an empty one", stored)
		}
	})
}

// Whatever our own check lets through must be taken by the client: what the client
// refuses would be overtaken. And it must not refuse much more than the broker would.
func TestMessagesUpToTheLimitAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 2000
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		s := fake.open(t, fake.options(topic), fmt.Sprintf("max.request.size=%d", limit), "compression.type=none")
		for headers := range 20 {
			for size := limit - 400; ; size++ {
				m := sink.Message{Topic: topic, Key: []byte("a"), Value: make([]byte, size), Time: time.Now()}
				for i := range headers {
					m.Headers = append(m.Headers, sink.Header{Key: fmt.Sprint(i)})
				}
				err := s.Send(t.Context(), []sink.Message{m}, func(err error) {
					if err != nil && fault.Classify(err) != fault.Data {
						t.Errorf("%d bytes and %d headers were sent and failed: %v", size, headers, err)
					}
				})
				if err == nil {
					flush(t, s)
					continue
				}
				if size < limit-150-12*headers {
					t.Errorf("%d bytes and %d headers are refused where %d are allowed", size, headers, limit)
				}
				break
			}
			closeSink(t, s)
			s = fake.open(t, fake.options(topic), fmt.Sprintf("max.request.size=%d", limit), "compression.type=none")
		}
	})
}

func TestNewPartitionsEndTheSessionAndMoveNoKeyWithinIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(2, topic))
		s := fake.open(t, fake.options(topic))
		keys := make([]sink.Message, 50)
		for i := range keys {
			keys[i] = message(fmt.Sprintf("key-%d", i), 0)
		}
		if err := s.Send(t.Context(), keys, ignore); err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		fake.addPartitions(t, topic, 7)
		time.Sleep(6 * time.Minute) // the client looks at its metadata
		if err := s.Send(t.Context(), keys, ignore); err != nil {
			t.Fatalf("the Send that finds out gives %v, want nil: its messages are where they belong", err)
		}
		err := s.Send(t.Context(), keys, ignore)
		if err == nil || fault.Classify(err) != fault.Transient {
			t.Errorf("the next Send gives %v of class %v, want a transient error: a new session", err, fault.Classify(err))
		}
		flush(t, s)
		closeSink(t, s)
		for _, r := range fake.records(t, topic) {
			if r.Partition > 1 {
				t.Fatalf("key %s went to partition %d, which was added", r.Key, r.Partition)
			}
		}
	})
}

func (f *fakeKafka) addPartitions(tb testing.TB, topic string, count int32) {
	tb.Helper()
	c := f.client(tb)
	defer c.Close()
	request := kmsg.NewPtrCreatePartitionsRequest()
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = topic, count
	request.Topics = append(request.Topics, t)
	answer, err := request.RequestWith(context.Background(), c)
	if err != nil || answer.Topics[0].ErrorCode != 0 {
		tb.Fatalf("add partitions: %v, %v", err, answer)
	}
}
