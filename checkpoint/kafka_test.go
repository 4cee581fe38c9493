package checkpoint_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/checkpoint/checkpointtest"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// fakeKafka is a broker, with an administrator of it.
type fakeKafka struct {
	cluster *kfake.Cluster
	brokers string
	client  *kgo.Client
	admin   *kadm.Client
}

func newFakeKafka(t *testing.T) *fakeKafka {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f := &fakeKafka{cluster: cluster, brokers: strings.Join(cluster.ListenAddrs(), ",")}
	if f.client, err = kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.client.Close)
	f.admin = kadm.NewClient(f.client)
	return f
}

// topic makes one with a cleanup.policy.
func (f *fakeKafka) topic(t *testing.T, policy string, partitions int32) {
	t.Helper()
	if _, err := f.admin.CreateTopic(t.Context(), partitions, 1, map[string]*string{"cleanup.policy": &policy}, "positions"); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeKafka) store(t *testing.T, settings string) checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(t.Context(), "kafka://"+f.brokers+"/positions"+settings, checkpoint.Options{Slot: checkpointtest.Slot})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKafkaKeepsTheContract(t *testing.T) {
	checkpointtest.Run(t, func(t *testing.T) func() checkpoint.Store {
		f := newFakeKafka(t)
		f.topic(t, "compact", 1)
		return func() checkpoint.Store { return f.store(t, "") }
	})
}

func TestATopicIsMadeOnlyWhereThatIsAskedFor(t *testing.T) {
	f := newFakeKafka(t)
	for settings, want := range map[string]bool{"": false, "?create=false": false, "?create=true": true} {
		s := f.store(t, settings)
		preparer, ok := s.(checkpoint.Preparer)
		if !ok {
			t.Fatal("the store prepares nothing")
		}
		made, err := preparer.Prepare(t.Context())
		if err != nil || len(made) > 0 != want {
			t.Fatalf("%q: Prepare = %q, %v", settings, made, err)
		}
		_, err = s.Load(t.Context())
		if want && !errors.Is(err, checkpoint.ErrNone) {
			t.Errorf("%q: Load = %v, want ErrNone", settings, err)
		}
		if !want && (fault.Classify(err) != fault.Operator || !strings.Contains(err.Error(), "create=true")) {
			t.Errorf("%q: Load = %v, want an operator error with the way out", settings, err)
		}
		if want {
			if again, err := preparer.Prepare(t.Context()); err != nil || len(again) != 0 {
				t.Errorf("Prepare again = %q, %v, want nothing to do", again, err)
			}
			configs, err := f.admin.DescribeTopicConfigs(t.Context(), "positions")
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range configs[0].Configs {
				if c.Key == "cleanup.policy" && c.MaybeValue() != "compact" {
					t.Errorf("the topic is made with cleanup.policy=%s", c.MaybeValue())
				}
			}
			if _, err := f.admin.DeleteTopic(t.Context(), "positions"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What a position in a topic may suffer is refused with a sentence: it must never be
// taken for a first start.
func TestATopicThatCannotBeTrustedIsRefused(t *testing.T) {
	write := func(t *testing.T, f *fakeKafka, value string) {
		t.Helper()
		r := &kgo.Record{Topic: "positions", Key: []byte(checkpointtest.Slot), Value: []byte(value)}
		if err := f.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		policy     string
		partitions int32
		befalls    func(t *testing.T, f *fakeKafka)
		say        string
	}{
		"another policy":    {"delete", 1, func(*testing.T, *fakeKafka) {}, "cleanup.policy is delete"},
		"both policies":     {"compact,delete", 1, func(*testing.T, *fakeKafka) {}, "cleanup.policy is compact,delete"},
		"several":           {"compact", 3, func(*testing.T, *fakeKafka) {}, "3 partitions"},
		"corrupt":           {"compact", 1, func(t *testing.T, f *fakeKafka) { write(t, f, `{"format": 2, "position": {}}`) }, "damaged"},
		"of a newer format": {"compact", 1, func(t *testing.T, f *fakeKafka) { write(t, f, `{"format": 3}`) }, "format is 3"},
		"records removed": {"compact", 1, func(t *testing.T, f *fakeKafka) {
			write(t, f, "{}")
			offsets := kadm.Offsets{}
			offsets.Add(kadm.Offset{Topic: "positions", Partition: 0, At: 1})
			if _, err := f.admin.DeleteRecords(t.Context(), offsets); err != nil {
				t.Fatal(err)
			}
		}, "were removed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeKafka(t)
			f.topic(t, c.policy, c.partitions)
			c.befalls(t, f)
			s := f.store(t, "")
			defer s.Close() //nolint:errcheck // nothing was saved
			_, err := s.Load(t.Context())
			var known *fault.Error
			if errors.Is(err, checkpoint.ErrNone) || !errors.As(err, &known) || known.Class != fault.Operator || known.Advice == "" || !strings.Contains(err.Error(), c.say) {
				t.Errorf("Load = %v, want an operator error that says %q", err, c.say)
			}
		})
	}
}

// A broker that is slow, or is no leader for a while, has not said that nothing is saved:
// a stream would begin anew, or refuse a slot that is sound.
func TestABrokerThatGivesNoRecordsForNowIsNotATopicWithoutAny(t *testing.T) {
	p := checkpoint.Position{Slot: checkpointtest.Slot, System: "7", Timeline: 1, Database: "shop", LSN: 0x100}
	for name, befalls := range map[string]func(f *fakeKafka, over <-chan struct{}, request kmsg.Request) (kmsg.Response, error, bool){
		"slow": func(f *fakeKafka, over <-chan struct{}, _ kmsg.Request) (kmsg.Response, error, bool) {
			f.cluster.SleepControl(func() { <-over })
			return nil, nil, false
		},
		"no leader": func(_ *fakeKafka, over <-chan struct{}, request kmsg.Request) (kmsg.Response, error, bool) {
			select {
			case <-over:
				return nil, nil, false
			default:
				return notLeader(request), nil, true
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeKafka(t)
			f.topic(t, "compact", 1)
			s := f.store(t, "")
			defer s.Close() //nolint:errcheck // nothing is owed to it
			// Closed, since its client waits for records and would end after their broker.
			if err := errors.Join(s.Save(t.Context(), p), s.Close()); err != nil {
				t.Fatal(err)
			}
			over := make(chan struct{})
			f.cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
				f.cluster.KeepControl()
				return befalls(f, over, request)
			})
			checkpoint.PollFor(s, time.Second)
			short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if got, err := s.Load(short); err == nil || errors.Is(err, checkpoint.ErrNone) {
				t.Errorf("Load = %v, %v while the broker gives no records, want an error that passes", got.LSN, err)
			}
			close(over)
			if got, err := s.Load(t.Context()); err != nil || got.LSN != p.LSN {
				t.Errorf("Load = %v, %v afterwards, want %v", got.LSN, err, p.LSN)
			}
		})
	}
}

// notLeader answers a request for records.
func notLeader(request kmsg.Request) kmsg.Response {
	asked, ok := request.(*kmsg.FetchRequest)
	if !ok {
		return nil
	}
	answer := kmsg.NewPtrFetchResponse()
	answer.Version = asked.Version
	for _, t := range asked.Topics {
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			partition := kmsg.NewFetchResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, kerr.NotLeaderForPartition.Code
			topic.Partitions = append(topic.Partitions, partition)
		}
		answer.Topics = append(answer.Topics, topic)
	}
	return answer
}

// An instance that was frozen between its look and its write leaves an earlier
// position behind a later one. It does not count.
func TestAnEarlierPositionBehindALaterOneIsPassedOver(t *testing.T) {
	f := newFakeKafka(t)
	f.topic(t, "compact", 1)
	s := f.store(t, "")
	defer s.Close() //nolint:errcheck // nothing is owed to it
	p := checkpoint.Position{Slot: checkpointtest.Slot, System: "7", Timeline: 1, Database: "shop", LSN: 0x100}
	if err := s.Save(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	early := f.last(t)
	p.LSN = 0x200
	if err := s.Save(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := f.client.ProduceSync(t.Context(), &kgo.Record{Topic: "positions", Key: early.Key, Value: early.Value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context()); err != nil || got.LSN != 0x200 {
		t.Errorf("Load = %v, %v, want 0/200", got.LSN, err)
	}
}

// last is the last record of the topic.
func (f *fakeKafka) last(t *testing.T) *kgo.Record {
	t.Helper()
	reader, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(f.brokers, ",")...), kgo.ConsumeTopics("positions"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	records := reader.PollFetches(ctx).Records()
	if len(records) == 0 {
		t.Fatal("the topic is empty")
	}
	return records[len(records)-1]
}

// The topic holds as many entries as the history, whatever its interval is and was.
func TestEntriesThatAreTooOldAreDeletedFromTheTopic(t *testing.T) {
	f := newFakeKafka(t)
	f.topic(t, "compact", 1)
	s, err := checkpoint.Open(t.Context(), "kafka://"+f.brokers+"/positions", checkpoint.Options{Slot: "orders", HistoryAge: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // of a test
	history, ok := s.(checkpoint.Historian)
	if !ok {
		t.Fatal("the store keeps no history")
	}
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for i := range 40 {
		e := checkpoint.Entry{Position: checkpoint.Position{
			Slot: "orders", System: "7", Timeline: 1, Database: "shop", LSN: 0x1000, Time: at.Add(time.Duration(i) * 10 * time.Second),
		}}
		if err := history.Keep(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := history.History(t.Context())
	if err != nil || len(entries) != 7 {
		t.Errorf("a minute of an entry every ten seconds is %d entries, %v, want 7", len(entries), err)
	}
	if live := f.live(t); live < 7 || live > 8 {
		t.Errorf("the topic holds %d entries that compaction will leave, want the history's", live)
	}
}

// live counts the keys whose last record is no mark of deletion.
func (f *fakeKafka) live(t *testing.T) (n int) {
	t.Helper()
	ends, err := f.admin.ListEndOffsets(t.Context(), "positions")
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup("positions", 0)
	reader, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(f.brokers, ",")...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"positions": {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	there := map[string]bool{}
	for next := int64(0); next < end.Offset; {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			there[string(r.Key)], next = r.Value != nil, r.Offset+1
		})
	}
	for _, is := range there {
		if is {
			n++
		}
	}
	return n
}
