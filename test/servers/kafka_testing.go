package servers

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Stop stops the server in order and waits until it is gone.
func (k *KafkaServer) Stop(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, k.stop(ctx, syscall.SIGTERM))
}

// Kill9 kills the server with SIGKILL and waits until it is gone.
func (k *KafkaServer) Kill9(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, k.stop(ctx, syscall.SIGKILL))
}

// Start brings a stopped server up again, on the same ports and data.
func (k *KafkaServer) Start(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, k.start(ctx))
}

// Pid is the broker's process, 0 when the server does not run on this host.
func (k *KafkaServer) Pid(tb testing.TB) int {
	tb.Helper()
	return k.machine.pid(context.Background())
}

// Client is a client of the server; it is closed with the test.
func (k *KafkaServer) Client(tb testing.TB, opts ...kgo.Opt) *kgo.Client {
	tb.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.brokers...)}, opts...)...)
	if err != nil {
		tb.Fatalf("make a client of the test server: %v", err)
	}
	tb.Cleanup(client.Close)
	return client
}

// Topic makes a topic for this test, of a name that no other test has.
func (k *KafkaServer) Topic(tb testing.TB, partitions int32) string {
	tb.Helper()
	name := plain(tb.Name(), '-') + "-" + strings.ToLower(rand.Text()[:10])
	k.CreateTopic(tb, name, partitions, nil)
	return name
}

// CreateTopic makes a topic whose configs, such as max.message.bytes, are on top
// of the server's, and waits until each of its partitions answers: the controller says
// that a topic is there before a broker leads its partitions.
func (k *KafkaServer) CreateTopic(tb testing.TB, name string, partitions int32, configs map[string]string) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	values := map[string]*string{}
	for config, value := range configs {
		values[config] = &value
	}
	err := k.admin(func(admin *kadm.Client) error {
		_, err := admin.CreateTopic(ctx, partitions, 1, values, name)
		return err
	})
	if err == nil {
		err = poll(ctx, 20*time.Millisecond, func(ctx context.Context) error { return k.leads(ctx, name, partitions) })
	}
	if err != nil {
		tb.Fatalf("make the topic %s: %v", name, err)
	}
}

// leads says whether each partition of a topic answers.
func (k *KafkaServer) leads(ctx context.Context, topic string, partitions int32) error {
	s, err := k.span(ctx, topic)
	if err == nil && len(s) < int(partitions) {
		err = fmt.Errorf("%d of %d partitions answer", len(s), partitions)
	}
	return err
}

// Records reads a topic from its beginning to where it ended when Records was
// called: ordered by partition and offset. What an aborted transaction wrote is
// left out, and so are the markers of transactions.
func (k *KafkaServer) Records(tb testing.TB, topic string) []*kgo.Record {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	records, err := k.read(ctx, topic)
	if err != nil {
		tb.Fatalf("read the topic %s: %v", topic, err)
	}
	return records
}

// Held is how many offsets the partitions of a topic span now: its records, unless some
// were compacted or written in transactions.
func (k *KafkaServer) Held(ctx context.Context, topic string) (int64, error) {
	s, err := k.span(ctx, topic)
	return s.offsets(), err
}

// AwaitRecords reads a topic as Records does once it holds at least n records,
// and fails the test when it does not within the time given.
func (k *KafkaServer) AwaitRecords(tb testing.TB, topic string, n int, within time.Duration) []*kgo.Record {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var records []*kgo.Record
	err := poll(ctx, 100*time.Millisecond, func(ctx context.Context) error {
		// The offsets first: to read all of it ten times a second would slow down
		// what it waits for.
		span, err := k.span(ctx, topic)
		if err != nil {
			return err
		}
		if held := span.offsets(); held < int64(n) {
			return fmt.Errorf("the topic spans %d offsets", held)
		}
		records, err = k.readSpan(ctx, topic, span)
		if err == nil && len(records) < n {
			err = fmt.Errorf("the topic holds %d records", len(records))
		}
		return err
	})
	if err != nil {
		tb.Fatalf("wait until the topic %s holds %d records: %v", topic, n, err)
	}
	return records
}

// span is where each partition of a topic starts and ends.
type span map[int32]struct{ start, end int64 }

// offsets is how many offsets lie in the span; a topic has at most as many records.
func (s span) offsets() int64 {
	var n int64
	for _, at := range s {
		n += at.end - at.start
	}
	return n
}

// span asks the server where the partitions of a topic start and end now.
func (k *KafkaServer) span(ctx context.Context, topic string) (span, error) {
	s := span{}
	err := k.admin(func(admin *kadm.Client) error {
		starts, err := admin.ListStartOffsets(ctx, topic)
		if err := errors.Join(err, starts.Error()); err != nil {
			return fmt.Errorf("ask where it starts: %w", err)
		}
		ends, err := admin.ListCommittedOffsets(ctx, topic)
		if err := errors.Join(err, ends.Error()); err != nil {
			return fmt.Errorf("ask where it ends: %w", err)
		}
		ends.Each(func(end kadm.ListedOffset) {
			start, _ := starts.Lookup(topic, end.Partition)
			at := s[end.Partition]
			at.start, at.end = start.Offset, end.Offset
			s[end.Partition] = at
		})
		return nil
	})
	return s, err
}

// read reads all of a topic.
func (k *KafkaServer) read(ctx context.Context, topic string) ([]*kgo.Record, error) {
	s, err := k.span(ctx, topic)
	if err != nil {
		return nil, err
	}
	return k.readSpan(ctx, topic, s)
}

// readSpan reads what lies in the span.
func (k *KafkaServer) readSpan(ctx context.Context, topic string, s span) ([]*kgo.Record, error) {
	from, left := map[int32]kgo.Offset{}, map[int32]int64{} // left: ends not reached yet
	for partition, at := range s {
		if at.end > at.start {
			from[partition], left[partition] = kgo.NewOffset().At(at.start), at.end
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(k.brokers...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords()) // a partition may end with one
	if err != nil {
		return nil, fmt.Errorf("make a client of the test server: %w", err)
	}
	defer client.Close()
	var records []*kgo.Record
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("fetch: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end := s[r.Partition].end
			if r.Offset < end && !r.Attrs.IsControl() {
				records = append(records, r)
			}
			if r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
	}
	slices.SortFunc(records, inOrder)
	return records, nil
}

// inOrder orders records by partition and offset: fetches mix the partitions.
func inOrder(a, b *kgo.Record) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}

// Truncate cuts the end off each partition of a topic, about half of its bytes, as a
// disk does that did not write what it was told. The server is stopped, and an
// embedded one.
func (k *KafkaServer) Truncate(tb testing.TB, topic string) {
	tb.Helper()
	if k.dataDir == "" {
		tb.Fatal("truncate a topic: only the files of an embedded server can be reached")
	}
	logs, err := filepath.Glob(filepath.Join(k.dataDir, topic+"-*", "*.log"))
	must(tb, err)
	for _, log := range logs {
		info, err := os.Stat(log)
		must(tb, err)
		must(tb, os.Truncate(log, info.Size()/2)) // recovery drops the batch that is cut
	}
}
