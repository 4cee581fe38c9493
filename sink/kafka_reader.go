package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// kafkaReader reads topics back.
type kafkaReader struct {
	settings *kafkaSettings
	options  []kgo.Opt
	client   *kgo.Client // for questions
	admin    *kadm.Client
	dialer   *kafkaDialer
}

const (
	// readPatience is how long a read may bring nothing before it is given up.
	readPatience = 30 * time.Second

	// readBytes bounds what a broker sends at once, and so what we hold.
	readBytes          = 8 << 20
	readPartitionBytes = 1 << 20
	readsAtOnce        = 3
)

func (s *kafkaSettings) reader(ctx context.Context, o Options) (Reader, error) {
	secure, err := s.security.config()
	if err != nil {
		return nil, err
	}
	dialer := &kafkaDialer{network: o.Dial, tls: secure, barrier: &barrier{line: newLine()}}
	options := append([]kgo.Opt{
		kgo.SeedBrokers(s.brokers...),
		kgo.ClientID(s.clientID),
		kgo.WithLogger(clientLogger{o.Logger}),
		kgo.DisableClientMetrics(),
		kgo.AlwaysRetryEOF(),
	}, dialer.options(s)...)
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fault.NewUsage(fmt.Errorf("set up the kafka client: %w", err), "check the settings in the sink's URL")
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, s.openError(ctx, err, &dialer.last)
	}
	return &kafkaReader{settings: s, options: options, client: client, admin: kadm.NewClient(client), dialer: dialer}, nil
}

// Close is Reader's.
func (r *kafkaReader) Close() { r.client.Close() }

// Spans is Reader's. The ends are those of what is committed.
func (r *kafkaReader) Spans(ctx context.Context, topics []string, since time.Time) ([]Span, []string, error) {
	if len(topics) == 0 {
		return nil, nil, nil
	}
	ends, err := r.admin.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, nil, r.explain(ctx, "ask where topics end", err)
	}
	starts, err := r.admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, nil, r.explain(ctx, "ask where topics begin", err)
	}
	froms := starts
	if !since.IsZero() {
		if froms, err = r.admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topics...); err != nil {
			return nil, nil, r.explain(ctx, "ask what came since", err)
		}
	}
	configs, err := topicConfigs(ctx, r.client, topics)
	if err != nil {
		return nil, nil, r.explain(ctx, "ask how topics are configured", err)
	}
	var spans []Span
	var absent []string
	for topic, partitions := range ends {
		for _, end := range partitions {
			start, _ := starts.Lookup(topic, end.Partition)
			from, _ := froms.Lookup(topic, end.Partition)
			err := cmp.Or(end.Err, start.Err, from.Err)
			if errors.Is(err, kerr.UnknownTopicOrPartition) {
				absent = append(absent, topic)
				break
			}
			if err != nil {
				return nil, nil, r.explain(ctx, "ask where topic "+topic+" begins and ends", err)
			}
			spans = append(spans, Span{
				Topic: topic, Partition: end.Partition, Start: start.Offset,
				From: max(from.Offset, start.Offset), End: end.Offset,
				Compacted: strings.Contains(configs[topic]["cleanup.policy"], "compact"),
			})
		}
	}
	slices.SortFunc(spans, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return spans, absent, nil
}

func (r *kafkaReader) explain(ctx context.Context, doing string, err error) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return fault.NewOperator(fmt.Errorf("%s: %w", doing, err), "grant Read and Describe on the topics to our user")
	}
	return fmt.Errorf("%s: %w", doing, r.settings.openError(ctx, err, &r.dialer.last))
}

// place is one partition.
type place struct {
	topic     string
	partition int32
}

// Read is Reader's. A client of its own reads, and is closed at the end.
func (r *kafkaReader) Read(ctx context.Context, spans []Span, visit func(Record) error) error {
	from, left := map[string]map[int32]kgo.Offset{}, map[place]int64{} // left: the ends that are not reached
	for _, s := range spans {
		if s.From >= s.End {
			continue
		}
		if from[s.Topic] == nil {
			from[s.Topic] = map[int32]kgo.Offset{}
		}
		from[s.Topic][s.Partition] = kgo.NewOffset().At(s.From)
		left[place{s.Topic, s.Partition}] = s.End
	}
	if len(left) == 0 {
		return nil
	}
	client, err := kgo.NewClient(append(slices.Clone(r.options),
		kgo.ConsumePartitions(from),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a partition may end with one
		kgo.FetchMaxBytes(readBytes),
		kgo.FetchMaxPartitionBytes(readPartitionBytes),
		kgo.MaxConcurrentFetches(readsAtOnce),
	)...)
	if err != nil {
		return fault.NewUsage(fmt.Errorf("set up the kafka client: %w", err), "check the settings in the sink's URL")
	}
	defer client.Close()
	for len(left) > 0 {
		if err := r.poll(ctx, client, left, visit); err != nil {
			return err
		}
	}
	return nil
}

// poll reads what comes next, and gives up when nothing comes.
func (r *kafkaReader) poll(ctx context.Context, client *kgo.Client, left map[place]int64, visit func(Record) error) error {
	waiting, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	fetches := client.PollFetches(waiting)
	if err := ctx.Err(); err != nil {
		return err
	}
	if waiting.Err() != nil {
		return fmt.Errorf("read topics: nothing came for %v, with %d partitions not read to their end", readPatience, len(left))
	}
	for _, failed := range fetches.Errors() {
		return r.explain(ctx, fmt.Sprintf("read partition %d of topic %s", failed.Partition, failed.Topic), failed.Err)
	}
	for records := fetches.RecordIter(); !records.Done(); {
		k := records.Next()
		at := place{k.Topic, k.Partition}
		end, open := left[at]
		if !open || k.Offset >= end {
			delete(left, at)
			continue
		}
		if !k.Attrs.IsControl() {
			if err := visit(asRecord(k)); err != nil {
				return err
			}
		}
		if k.Offset+1 >= end {
			delete(left, at)
		}
	}
	return nil
}

func asRecord(k *kgo.Record) Record {
	headers := make([]Header, len(k.Headers))
	for i, h := range k.Headers {
		headers[i] = Header{Key: h.Key, Value: h.Value}
	}
	return Record{
		Message:   Message{Topic: k.Topic, Key: k.Key, Value: k.Value, Headers: headers, Time: k.Timestamp},
		Partition: k.Partition, Offset: k.Offset,
	}
}
