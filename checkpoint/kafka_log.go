package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// A topic that was just made, or a broker that was, is not known to all of them at
// once. For so long one that is missing is asked for again.
const (
	unknownPatience = 3 * time.Second
	unknownPause    = 100 * time.Millisecond
)

// catchUp reads to the end of the topic as it is now.
func (s *kafkaStore) catchUp(ctx context.Context) error {
	patience := time.Now().Add(unknownPatience)
	for {
		err := s.catchUpOnce(ctx)
		if !errors.Is(err, kerr.UnknownTopicOrPartition) || time.Now().After(patience) {
			return err
		}
		s.drop()
		pause := time.NewTimer(unknownPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		}
	}
}

func (s *kafkaStore) catchUpOnce(ctx context.Context) error {
	first := s.client == nil
	if err := s.connect(); err != nil {
		return err
	}
	admin := kadm.NewClient(s.client)
	var start int64
	if first {
		var err error
		if start, err = s.inspect(ctx, admin); err != nil {
			return err
		}
	}
	ends, err := admin.ListEndOffsets(ctx, s.topic)
	end, there := ends.Lookup(s.topic, 0)
	switch {
	case err != nil:
		return err
	case !there:
		return kerr.UnknownTopicOrPartition
	case end.Err != nil:
		return end.Err
	case end.Offset < s.next:
		return fault.NewOperator(fmt.Errorf("it ends at record %d, and record %d was read", end.Offset, s.next-1),
			"it was made anew or lost its end: find out who did it; outboxcdc verify tells what is missing")
	}
	if err := s.read(ctx, end.Offset); err != nil {
		return err
	}
	for _, damage := range s.damage {
		return damage
	}
	if s.saved == nil && start > 0 {
		return fault.NewOperator(
			fmt.Errorf("it holds no position of slot %s, and its first %d records were removed: there may have been one", s.slot, start),
			"nothing but compaction may remove records of it: set cleanup.policy=compact; to begin as at a first start, use another topic")
	}
	return nil
}

const (
	// idlePoll is how long the records before the end are waited for. The last of them
	// may be a mark of deletion that compaction has removed.
	idlePoll = 5 * time.Second

	// idleAnswers are how many answers of the broker must be without records meanwhile.
	// The first may be from before the end was asked for.
	idleAnswers = 2
)

// answered counts what the broker answered to requests for records. One that is slow, or
// away, answers none, and of what it has not answered nobody knows that it is nothing.
type answered struct{ n atomic.Int64 }

// OnBrokerE2E is kgo.HookBrokerE2E's.
func (a *answered) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if e2e.Err() == nil && key == int16(kmsg.Fetch) {
		a.n.Add(1)
	}
}

func (s *kafkaStore) read(ctx context.Context, end int64) error {
	for s.next < end {
		before := s.fetched.n.Load()
		waiting, cancel := context.WithTimeout(ctx, s.idle)
		fetches := s.client.PollFetches(waiting)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		nothing := fetches.NumRecords() == 0 && s.fetched.n.Load() >= before+idleAnswers
		var failed error
		fetches.EachError(func(_ string, _ int32, err error) {
			switch {
			case errors.Is(err, context.DeadlineExceeded):
			case passes(err):
				nothing = false
			default:
				failed = errors.Join(failed, err)
			}
		})
		if failed != nil {
			return failed
		}
		if nothing {
			s.next = end
		}
		fetches.EachRecord(func(r *kgo.Record) {
			s.apply(r)
			s.next = r.Offset + 1
		})
	}
	return nil
}

// passes says whether the client asks again by itself, as where a leader moves.
func passes(err error) bool {
	return kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition)
}

// apply takes in a record of our slot.
func (s *kafkaStore) apply(r *kgo.Record) {
	key := string(r.Key)
	if key != s.slot && !strings.HasPrefix(key, s.slot+"/") {
		return
	}
	delete(s.damage, key)
	if r.Value == nil {
		if key == s.slot {
			s.saved = nil
		}
		delete(s.entries, key)
		return
	}
	e, err := parseForm(r.Value)
	if err == nil && e.Slot != s.slot {
		err = fmt.Errorf("%w: it is of slot %q", errDamaged, e.Slot)
	}
	if err != nil {
		s.damage[key] = damaged(r, err, s.slot)
		return
	}
	if key != s.slot {
		s.entries[key] = e
		return
	}
	replaces := slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == replaceHeader })
	if s.saved == nil || replaces || follow(*s.saved, e.Position) == nil {
		s.saved = &e.Position
	}
}

func damaged(r *kgo.Record, err error, slot string) error {
	err = fmt.Errorf("record %d of slot %s: %w", r.Offset, slot, err)
	if errors.Is(err, errUnknownFormat) {
		return fault.NewOperator(err, "use the outboxcdc that wrote it, or a newer one")
	}
	return fault.NewOperator(err, "find out who else writes to the topic; to go on as at a first start, use another topic")
}

// inspect refuses a topic that would lose a position, and gives its first record.
func (s *kafkaStore) inspect(ctx context.Context, admin *kadm.Client) (start int64, err error) {
	starts, err := admin.ListStartOffsets(ctx, s.topic)
	if err != nil {
		return 0, err
	}
	first, there := starts.Lookup(s.topic, 0)
	switch {
	case !there:
		return 0, kerr.UnknownTopicOrPartition
	case first.Err != nil:
		return 0, first.Err
	case len(starts[s.topic]) != 1:
		return 0, fault.NewOperator(fmt.Errorf("it has %d partitions", len(starts[s.topic])), "use a topic of one partition: positions have an order")
	}
	configs, err := admin.DescribeTopicConfigs(ctx, s.topic)
	if err != nil {
		return 0, err
	}
	config, err := configs.On(s.topic, nil)
	if err == nil {
		err = config.Err
	}
	if err != nil {
		return 0, err
	}
	for _, c := range config.Configs {
		if c.Key == "cleanup.policy" && c.MaybeValue() != "compact" {
			return 0, fault.NewOperator(fmt.Errorf("its cleanup.policy is %s, which removes positions by their age", c.MaybeValue()),
				"set cleanup.policy=compact on it")
		}
	}
	return first.Offset, nil
}
