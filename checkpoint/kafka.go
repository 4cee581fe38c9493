package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

const kafkaExample = "kafka://b1:9092,b2:9092/topic?create=true"

func init() { registerOpaque("kafka", kafkaExample, checkKafka, openKafka) }

// kafkaStore keeps the position in a compacted topic of one partition, which slots may
// share. A record has the slot for its key, and entries of the history have keys
// behind it, which are deleted when they are too old: the topic stays as large as the
// history.
//
// Each call reads to the end of the topic first, so that what counts is there and not
// what this process remembers. Kafka has no write that depends on what is there, so an
// instance that was frozen between its look and its write may write an earlier
// position behind a later one. Such a record is passed over by all who read it, and
// gone with the next save; a slot is always saved before it is confirmed, so nothing
// hangs on the moment in between.
type kafkaStore struct {
	slot    string
	age     time.Duration
	topic   string
	create  bool
	idle    time.Duration
	options []kgo.Opt

	client  *kgo.Client // nil when there is none
	fetched *answered   // by that client
	next    int64       // the record to read next
	saved   *Position   // nil when nothing is saved
	entries map[string]Entry
	damage  map[string]error // records that could not be read and have no later one, by key
}

// kafkaTarget is a URL taken apart: the brokers with their settings for the sink, and
// what is the store's own.
type kafkaTarget struct {
	brokers string
	topic   string
	create  bool
}

func parseKafkaTarget(rawURL string) (kafkaTarget, error) {
	address, query, _ := strings.Cut(strings.TrimPrefix(rawURL, "kafka://"), "?")
	brokers, topic, _ := strings.Cut(address, "/")
	t := kafkaTarget{topic: topic}
	var settings []string
	for setting := range strings.SplitSeq(query, "&") {
		switch {
		case setting == "create=true":
			t.create = true
		case setting == "create=false", setting == "":
		case strings.HasPrefix(setting, "create="):
			return t, badURL("create is true or false")
		default:
			settings = append(settings, setting)
		}
	}
	if topic == "" || strings.Trim(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || len(topic) > 249 {
		return t, badURL("kafka takes the name of a topic behind the brokers, as in " + kafkaExample)
	}
	t.brokers = "kafka://" + brokers
	if len(settings) > 0 {
		t.brokers += "?" + strings.Join(settings, "&")
	}
	if err := sink.CheckKafkaURL(t.brokers); err != nil {
		return t, fmt.Errorf("the checkpoint URL, whose brokers are named as a sink's: %w", err)
	}
	return t, nil
}

// OwnTopic is the topic that the store of rawURL writes, which no event may reach: what
// stands there is believed. Empty is none.
func OwnTopic(rawURL string) string {
	if !strings.HasPrefix(rawURL, "kafka://") {
		return ""
	}
	t, err := parseKafkaTarget(rawURL)
	if err != nil { // which CheckURL tells
		return ""
	}
	return t.topic
}

func checkKafka(u *url.URL) error {
	_, err := parseKafkaTarget(u.Opaque)
	return err
}

func openKafka(_ context.Context, u *url.URL, o Options) (Store, error) {
	t, err := parseKafkaTarget(u.Opaque)
	if err != nil {
		return nil, err
	}
	options, err := sink.KafkaClient(t.brokers, o.Logger)
	if err != nil {
		return nil, err
	}
	return &kafkaStore{slot: o.Slot, age: o.historyAge(), topic: t.topic, create: t.create, idle: idlePoll, options: options}, nil
}

// Prepare is Preparer's: it makes the topic when that was asked for.
func (s *kafkaStore) Prepare(ctx context.Context) (made []string, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		if err := s.connect(); err != nil {
			return err
		}
		admin := kadm.NewClient(s.client)
		topics, err := admin.ListTopics(ctx, s.topic)
		if err != nil || topics.Has(s.topic) || !s.create {
			return err
		}
		policy := "compact"
		answers, err := admin.CreateTopics(ctx, 1, -1, map[string]*string{"cleanup.policy": &policy}, s.topic)
		if err == nil {
			err = answers[s.topic].Err
		}
		switch {
		case errors.Is(err, kerr.TopicAlreadyExists):
			return nil
		case err == nil:
			made = []string{"compacted topic " + s.topic}
		}
		return err
	})
	return made, err
}

// Load is Store's.
func (s *kafkaStore) Load(ctx context.Context) (p Position, err error) {
	s.drop() // a session begins: the last one may have left a connection that is dead
	err = s.bounded(ctx, func(ctx context.Context) error {
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		if s.saved == nil {
			return ErrNone
		}
		p = *s.saved
		return nil
	})
	return p, err
}

// Save is Store's.
func (s *kafkaStore) Save(ctx context.Context, p Position) error {
	if err := complete(p, s.slot); err != nil {
		return err
	}
	return s.write(ctx, func() ([]*kgo.Record, error) {
		if s.saved != nil {
			if err := follow(*s.saved, p); err != nil {
				return nil, err
			}
		}
		record, err := s.record(s.slot, Entry{Position: p})
		return []*kgo.Record{record}, err
	})
}

// Keep is Historian's.
func (s *kafkaStore) Keep(ctx context.Context, e Entry) error {
	if err := completeEntry(e, s.slot); err != nil {
		return err
	}
	return s.write(ctx, func() ([]*kgo.Record, error) {
		record, err := s.record(s.entryKey(e), e)
		return append(s.outdated(e), record), err
	})
}

// outdated gives marks of deletion for entries that an entry makes too old; no more of
// them at once than keep a batch small.
func (s *kafkaStore) outdated(e Entry) (records []*kgo.Record) {
	oldest := e.Time.Add(-s.age)
	for key := range s.entries {
		if old := s.entries[key]; old.Time.Before(oldest) && old.Gap.Reason == "" && len(records) < mostOutdated {
			records = append(records, &kgo.Record{Topic: s.topic, Key: []byte(key)})
		}
	}
	return records
}

const mostOutdated = 100

// Replace is Historian's. The entry comes first, as in a fileStore; the position's own
// record carries the gap too, which says that it counts whatever stood there.
func (s *kafkaStore) Replace(ctx context.Context, e Entry) error {
	if err := completeEntry(e, s.slot); err != nil {
		return err
	}
	return s.write(ctx, func() ([]*kgo.Record, error) {
		entry, err := s.record(s.entryKey(e), e)
		if err != nil {
			return nil, err
		}
		position, err := s.record(s.slot, e)
		if err != nil {
			return nil, err
		}
		position.Headers = []kgo.RecordHeader{{Key: replaceHeader}}
		return []*kgo.Record{entry, position}, nil
	})
}

// Delete is Historian's.
func (s *kafkaStore) Delete(ctx context.Context) error {
	return s.write(ctx, func() ([]*kgo.Record, error) {
		records := []*kgo.Record{{Topic: s.topic, Key: []byte(s.slot)}}
		for key := range s.entries {
			records = append(records, &kgo.Record{Topic: s.topic, Key: []byte(key)})
		}
		return records, nil
	})
}

// History is Historian's.
func (s *kafkaStore) History(ctx context.Context) (entries []Entry, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		for key := range s.entries {
			entries = append(entries, s.entries[key])
		}
		return nil
	})
	slices.SortFunc(entries, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	if n := len(entries); n > 0 {
		entries = trim(entries, entries[n-1].Time.Add(-s.age))
	}
	return entries, err
}

// Close is Store's.
func (s *kafkaStore) Close() error {
	s.drop()
	return nil
}

// replaceHeader marks a position that counts whatever stood before it.
const replaceHeader = "replace"

// entryKey is an entry's own.
func (s *kafkaStore) entryKey(e Entry) string {
	kind := "history"
	if e.Gap.Reason != "" {
		kind = "gap"
	}
	return fmt.Sprintf("%s/%s/%d", s.slot, kind, e.Time.UnixMicro())
}

func (s *kafkaStore) record(key string, e Entry) (*kgo.Record, error) {
	value, err := renderForm(e)
	if err != nil {
		return nil, bug("%w", err)
	}
	return &kgo.Record{Topic: s.topic, Key: []byte(key), Value: value}, nil
}

// write reads to the end, asks what is to be written there, and writes it.
func (s *kafkaStore) write(ctx context.Context, ask func() ([]*kgo.Record, error)) error {
	return s.bounded(ctx, func(ctx context.Context) error {
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		records, err := ask()
		if err != nil {
			return err
		}
		return s.client.ProduceSync(ctx, records...).FirstErr()
	})
}

// bounded bounds the time that do takes. A client with an error behind it is not used
// again; an answer about positions is no such error.
func (s *kafkaStore) bounded(ctx context.Context, do func(context.Context) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	answer, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	err := do(answer)
	if err == nil || errors.Is(err, ErrNone) || errors.Is(err, ErrBackwards) || errors.Is(err, ErrForeign) {
		return err
	}
	s.drop()
	if answer.Err() != nil && ctx.Err() == nil {
		return &fault.Error{
			Class:  fault.Transient,
			Err:    fmt.Errorf("topic %s of positions: no answer within %v: %w", s.topic, answerTimeout, err),
			Advice: "look at the brokers of --checkpoint",
		}
	}
	return s.explain(err)
}

func (s *kafkaStore) explain(err error) error {
	err = fmt.Errorf("topic %s of positions: %w", s.topic, err)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fault.NewOperator(err, "make it, with one partition and cleanup.policy=compact, or add create=true to --checkpoint; "+
			"if it was there before, what was saved is gone: outboxcdc verify tells what is missing")
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fault.NewOperator(err, "grant Read, Write, Describe and DescribeConfigs on the topic to our user")
	default:
		return sink.KafkaFault(err)
	}
}

func (s *kafkaStore) drop() {
	if s.client != nil {
		s.client.Close()
	}
	s.client, s.fetched, s.next, s.saved, s.entries, s.damage = nil, nil, 0, nil, nil, nil
}

func (s *kafkaStore) connect() error {
	if s.client != nil {
		return nil
	}
	fetched := new(answered)
	client, err := kgo.NewClient(append(slices.Clone(s.options),
		kgo.WithHooks(fetched),
		kgo.KeepRetryableFetchErrors(), // or an answer with one would look like one without records
		kgo.FetchMaxWait(s.idle/5),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(*kgo.Record, int) int { return 0 }
		})),
		kgo.ProducerLinger(0),
		kgo.UnknownTopicRetries(1),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: {0: kgo.NewOffset().AtStart()}}),
	)...)
	if err != nil {
		return fault.NewUsage(fmt.Errorf("set up the kafka client: %w", err), "check the settings in --checkpoint")
	}
	s.client, s.fetched, s.entries, s.damage = client, fetched, map[string]Entry{}, map[string]error{}
	return nil
}
