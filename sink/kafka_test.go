package sink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

// wantClass fails unless err has the class and says each of the words.
func wantClass(tb testing.TB, err error, class fault.Class, words ...string) {
	tb.Helper()
	if err == nil || fault.Classify(err) != class {
		tb.Fatalf("error %v is of class %v, want class %v", err, fault.Classify(err), class)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			tb.Errorf("error %q does not say %q", err, word)
		}
	}
}

// within fails unless do ends in d of simulated time.
func within(tb testing.TB, d time.Duration, do func()) {
	tb.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > d {
		tb.Errorf("it took %v, want at most %v", took, d)
	}
}

func TestABrokerThatCannotBeReachedIsATransientErrorWithItsName(t *testing.T) {
	for name, dial := range map[string]func(ctx context.Context, network, address string) (net.Conn, error){
		"refuses": func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") },
		"hangs": func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"hangs up": func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			far.Close()
			return near, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				within(t, 16*time.Second, func() {
					_, err := sink.Open(t.Context(), "kafka://b1,b2:9093", sink.Options{Dial: dial, Topics: []string{topic}})
					wantClass(t, err, fault.Transient, "b1:9092", "b2:9093", "advertised.listeners")
				})
			})
		})
	}
}

func TestOpenIsGivenUpWhenAStopIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		time.AfterFunc(time.Second, cancel)
		within(t, 3*time.Second, func() {
			_, err := sink.Open(ctx, "kafka://b1", sink.Options{Dial: dial})
			if fault.Classify(err) != fault.Stopped {
				t.Errorf("Open gives %v of class %v, want class stopped", err, fault.Classify(err))
			}
		})
	})
}

func TestAMissingTopicIsAnOperatorErrorWithTheWayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, "there"))
		_, err := sink.Open(t.Context(), fake.url(), fake.options("there", "absent", "gone"))
		wantClass(t, err, fault.Operator, "absent, gone do not exist", "--create-topics", "kafka-topics.sh")
		_, err = sink.Open(t.Context(), fake.url(), fake.options("not a topic"))
		wantClass(t, err, fault.Usage, "--topic")
	})
}

func TestAMissingTopicIsMadeWithTheBrokersDefaultsWhenAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 3, kfake.DefaultNumPartitions(5), kfake.SeedTopics(2, "there"))
		o := fake.options("there", topic)
		o.CreateTopics = true
		s := fake.open(t, o)
		if got := fake.partitions(topic); got != 5 {
			t.Errorf("the topic has %d partitions, want the broker's 5", got)
		}
		m := message("a", 1)
		m.Topic = "later"
		if err := s.Send(t.Context(), []sink.Message{m}, ignore); err != nil {
			t.Fatalf("Send to a topic that can be made: %v", err)
		}
		flush(t, s)
		if got := len(fake.stored(t, "later")); got != 1 {
			t.Errorf("%d messages in the topic that was made, want 1", got)
		}
	})
}

func TestABrokerWithoutProducerIDsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		versions := kversion.Stable()
		versions.SetMaxKeyVersion(int16(kmsg.InitProducerID), -1)
		fake := newFakeKafka(t, 1, kfake.MaxVersions(versions), kfake.SeedTopics(1, topic))
		_, err := sink.Open(t.Context(), fake.url(), fake.options(topic))
		wantClass(t, err, fault.Operator, "0.11")
	})
}

// Whether rows fall into one batch is chance; what is sent ahead of the row that halts the
// stream is not to hang on it.
func TestWhatIsAheadOfAMissingTopicIsSentAndNothingBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic, "new"))
		s := fake.open(t, fake.options(topic))
		fresh, absent := message("a", 2), message("a", 3)
		fresh.Topic, absent.Topic = "new", "absent"
		var acked atomic.Int64
		err := s.Send(t.Context(), []sink.Message{message("a", 1), fresh, absent, message("a", 4)}, func(err error) {
			if err != nil {
				t.Errorf("a message was acked with %v", err)
			}
			acked.Add(1)
		})
		wantClass(t, err, fault.Operator, "absent", "--create-topics")
		flush(t, s)
		if got := []int{int(acked.Load()), len(fake.stored(t, topic)), len(fake.stored(t, "new"))}; !slices.Equal(got, []int{2, 1, 1}) {
			t.Errorf("acked, stored and stored in the new topic are %v, want [2 1 1]: what is ahead of the missing topic", got)
		}
		err = s.Send(t.Context(), []sink.Message{message("a", 5)}, ignore)
		wantClass(t, err, fault.Operator, "absent")
	})
}

func TestATopicIsLookedUpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic, "other"))
		asked := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Observe: true, Count: -1})
		s := fake.open(t, fake.options(topic))
		for n := range 5 {
			other := message("a", n)
			other.Topic = "other"
			if err := s.Send(t.Context(), []sink.Message{message("a", n), other, message("a", n), other}, ignore); err != nil {
				t.Fatal(err)
			}
		}
		flush(t, s)
		if got := asked.Hits(); got != 2 {
			t.Errorf("topics were looked up %d times, want twice: at Open and at the first message", got)
		}
	})
}

// A topic may take less than we send at once. The broker refuses a batch that is too
// large as a whole, so batches must keep to the topic's limit.
func TestBatchesKeepToTheTopicsOwnLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1)
		size := "1500"
		if err := fake.CreateTopic(topic, 1, map[string]string{"max.message.bytes": size}); err != nil {
			t.Fatal(err)
		}
		s := fake.open(t, fake.options(topic), "compression.type=none")
		var batch []sink.Message
		for n := range 100 {
			m := message("a", n)
			m.Value = fmt.Appendf(nil, "%200d", n)
			batch = append(batch, m)
		}
		if err := s.Send(t.Context(), batch, func(err error) {
			if err != nil {
				t.Errorf("a message failed: %v", err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		large := message("a", 100)
		large.Value = make([]byte, 1450)
		wantClass(t, s.Send(t.Context(), []sink.Message{large}, ignore), fault.Data, size, topic)
	})
}

// The broker wrote the batch and its answer was an error: it is sent again, and the
// broker knows it by its number.
func TestAMessageThatMayHaveBeenWrittenIsStoredOnce(t *testing.T) {
	for _, answer := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend} {
		t.Run(answer.Message, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
				s := fake.open(t, fake.options(topic))
				for n := range 10 {
					fake.refuse(topic, "a", answer)
					if err := s.Send(t.Context(), []sink.Message{message("a", n)}, func(err error) {
						if err != nil {
							t.Errorf("message %d: %v", n, err)
						}
					}); err != nil {
						t.Fatal(err)
					}
					flush(t, s)
				}
				if got := len(fake.stored(t, topic)); got != 10 {
					t.Errorf("%d messages are stored, want 10", got)
				}
			})
		})
	}
}

func TestWhatTheBrokerRefusesForGoodIsAnOperatorErrorWithTheWayOut(t *testing.T) {
	for answer, words := range map[*kerr.Error]string{
		kerr.MessageTooLarge:          "max.request.size",
		kerr.TopicAuthorizationFailed: "grant Write",
		kerr.OutOfOrderSequenceNumber: "unclean leader",
		kerr.UnknownProducerID:        "unclean leader",
		kerr.InvalidRecord:            "refuses a batch",
		kerr.InvalidTimestamp:         "clocks",
		kerr.PolicyViolation:          "policy",
	} {
		t.Run(answer.Message, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
				s := fake.open(t, fake.options(topic))
				fake.refuse(topic, "a", answer)
				var got error
				if err := s.Send(t.Context(), []sink.Message{message("a", 1)}, func(err error) { got = err }); err != nil {
					t.Fatal(err)
				}
				flush(t, s)
				wantClass(t, got, fault.Operator, topic, words)
			})
		})
	}
}

func TestATopicThatIsDeletedUnderUsIsAnOperatorError(t *testing.T) {
	for name, after := range map[string]func(f *fakeKafka) error{
		"deleted":       func(*fakeKafka) error { return nil },
		"and made anew": func(f *fakeKafka) error { return f.CreateTopic(topic, 1, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
				s := fake.open(t, fake.options(topic))
				if err := s.Send(t.Context(), []sink.Message{message("a", 1)}, ignore); err != nil {
					t.Fatal(err)
				}
				flush(t, s)
				if err := errors.Join(fake.DeleteTopic(topic), after(fake)); err != nil {
					t.Fatal(err)
				}
				var got error
				if err := s.Send(t.Context(), []sink.Message{message("a", 2)}, func(err error) { got = err }); err != nil {
					t.Fatal(err)
				}
				flush(t, s)
				wantClass(t, got, fault.Operator, topic)
			})
		})
	}
}

// A broker that starts up knows no topics for a moment; that ends nothing.
func TestATopicThatIsUnknownForAMomentFailsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		s := fake.open(t, fake.options(topic))
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce, kmsg.Metadata}, Topic: topic, Err: kerr.UnknownTopicOrPartition, Count: 20})
		start := time.Now()
		if err := s.Send(t.Context(), []sink.Message{message("a", 1)}, func(err error) {
			if err != nil {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		t.Log("20 times unknown took", time.Since(start))
	})
}

// The table is what Java's client computes: Utils.toPositive(Utils.murmur2(key)) modulo
// the number of partitions; the first five keys are those of its UtilsTest.
func TestPartitionsAreThoseOfJava(t *testing.T) {
	counts := []int32{1, 2, 3, 6, 12, 50, 1000}
	java := map[string][]int32{
		"21":                         {0, 0, 0, 0, 0, 40, 340},
		"foobar":                     {0, 0, 0, 0, 6, 16, 166},
		"a-little-bit-long-string":   {0, 0, 2, 2, 8, 12, 112},
		"a-little-bit-longer-string": {0, 1, 2, 5, 11, 19, 819},
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": {0, 1, 2, 5, 5, 27, 677},
		"abc":                                  {0, 1, 0, 3, 3, 7, 107},
		"a":                                    {0, 0, 1, 4, 4, 24, 524},
		"1":                                    {0, 1, 0, 3, 3, 9, 159},
		"order-42":                             {0, 0, 0, 0, 0, 24, 24},
		"018f2c5e-7b1a-7c3d-9e4f-0a1b2c3d4e5f": {0, 0, 2, 2, 2, 16, 866},
		"ключ":                                 {0, 0, 2, 2, 8, 24, 24},
		"日本語":                                  {0, 0, 1, 4, 10, 20, 170},
		"😀":                                    {0, 1, 0, 3, 9, 17, 617},
		" ":                                    {0, 1, 0, 3, 9, 21, 521},
		"0":                                    {0, 0, 2, 2, 8, 46, 396},
		"-1":                                   {0, 1, 0, 3, 3, 27, 27},
		"9223372036854775807":                  {0, 1, 0, 3, 9, 41, 741},
	}
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1)
		var names []string
		for _, n := range counts {
			names = append(names, fmt.Sprintf("t%d", n))
			if err := fake.CreateTopic(fmt.Sprintf("t%d", n), n, nil); err != nil {
				t.Fatal(err)
			}
		}
		s := fake.open(t, fake.options(names...))
		for key := range java {
			for _, name := range names {
				m := sink.Message{Topic: name, Key: []byte(key), Value: []byte("1"), Time: time.Now()}
				if err := s.Send(t.Context(), []sink.Message{m}, ignore); err != nil {
					t.Fatal(err)
				}
			}
		}
		flush(t, s)
		for i, name := range names {
			for _, r := range fake.records(t, name) {
				if want := java[string(r.Key)][i]; r.Partition != want {
					t.Errorf("key %q of %s is in partition %d, Java's is %d", r.Key, name, r.Partition, want)
				}
			}
		}
	})
}

// What matters is asked for on the wire, whatever the client's defaults become.
func TestEveryRequestIsIdempotentAndWaitsForAllReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		var codec int16
		requests := 0
		fake.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
			requests++
			produce := request.(*kmsg.ProduceRequest)
			if produce.Acks != -1 || produce.TransactionID != nil || produce.TimeoutMillis != 10_000 {
				t.Errorf("produce request with acks %d, transaction %v and timeout %d, want all, none and 10000", produce.Acks, produce.TransactionID, produce.TimeoutMillis)
			}
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(produce.Topics[0].Partitions[0].Records); err != nil {
				t.Error(err)
			}
			if batch.ProducerID < 0 || batch.ProducerEpoch < 0 {
				t.Errorf("batch of producer %d, epoch %d, want an idempotent one", batch.ProducerID, batch.ProducerEpoch)
			}
			codec = batch.Attributes & 7
			return nil, nil, false
		})
		auto := false
		fake.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
			auto = auto || request.(*kmsg.MetadataRequest).AllowAutoTopicCreation
			return nil, nil, false
		})
		for i, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			s := fake.open(t, fake.options(topic), "compression.type="+name)
			m := message("a", 1)
			m.Value = make([]byte, 10_000)
			if err := s.Send(t.Context(), []sink.Message{m}, ignore); err != nil {
				t.Fatal(err)
			}
			flush(t, s)
			if codec != int16(i) {
				t.Errorf("compression.type=%s sends codec %d, want %d", name, codec, i)
			}
		}
		if auto {
			t.Error("a metadata request allows the broker to make topics")
		}
		if requests == 0 {
			t.Error("no produce request was seen")
		}
	})
}

func TestACallerMayReuseItsSliceOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(3, topic))
		s := fake.open(t, fake.options(topic))
		msgs := make([]sink.Message, 4)
		var sent []sink.Message
		for n := range 50 {
			for i := range msgs {
				msgs[i] = message(fmt.Sprintf("key-%d", i), n)
			}
			sent = append(sent, slices.Clone(msgs)...)
			if err := s.Send(t.Context(), msgs, ignore); err != nil {
				t.Fatal(err)
			}
			clear(msgs)
		}
		flush(t, s)
		if diff := cmp.Diff(byKey(sent), byKey(fake.stored(t, topic))); diff != "" {
			t.Errorf("stored differs from sent (-sent +stored):\n%s", diff)
		}
	})
}
