package pipeline

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestWhatIsSentIsCountedByTopic(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		x.batches <- batchOf(0x1100, "a", "bc")
		x.batches <- batchOf(0x1200, "d", "") // of which nothing is sent
		for range 2 {
			(<-x.sink.acks)(nil)
		}
		close(x.sink.flush)
		<-x.done //nolint:errcheck // the bad row
		if diff := cmp.Diff([]TopicCount{{Topic: "all", Messages: 2, Bytes: 3}}, x.s.seen.topics.all()); diff != "" {
			t.Errorf("the topics are counted otherwise (-want +got):\n%s", diff)
		}
	})
}

func TestTopicsBeyondTheFirstHundredAreCountedTogether(t *testing.T) {
	var c topicCounts
	const topics = maxCountedTopics + 7
	for range 2 {
		messages := make([]sink.Message, 0, topics)
		for i := range topics {
			messages = append(messages, sink.Message{Topic: fmt.Sprint("t", i), Key: []byte("k"), Value: []byte("vv")})
		}
		c.sent(messages)
	}
	got := c.all()
	if len(got) != maxCountedTopics+1 {
		t.Fatalf("%d topics are told apart, want %d and the rest", len(got), maxCountedTopics)
	}
	want := []TopicCount{{Topic: "t99", Messages: 2, Bytes: 6}, {Topic: "", Messages: 14, Bytes: 42}}
	if diff := cmp.Diff(want, got[maxCountedTopics-1:]); diff != "" {
		t.Errorf("the last ones are counted otherwise (-want +got):\n%s", diff)
	}
}

func TestCountingTopicsAllocatesNothing(t *testing.T) {
	var c topicCounts
	var messages []sink.Message
	for i := range 1000 {
		messages = append(messages, sink.Message{Topic: fmt.Sprint("t", i%3), Key: []byte("k")})
	}
	c.sent(messages)
	if n := testing.AllocsPerRun(20, func() { c.sent(messages) }); n > 0 {
		t.Errorf("%v allocations a batch, want none", n)
	}
}

// Whoever scrapes must not wait for topics, nor be waited for.
func TestStatsGivesTopicsOfItsOwn(t *testing.T) {
	r := &Runner{logger: slog.New(slog.DiscardHandler)}
	r.seen.topics.sent([]sink.Message{{Topic: "a"}})
	before := r.Stats()
	r.seen.topics.sent([]sink.Message{{Topic: "a"}})
	if before.Topics[0].Messages != 1 || r.Stats().Topics[0].Messages != 2 {
		t.Errorf("stats of then: %+v, of now: %+v, want 1 and 2 messages", before.Topics, r.Stats().Topics)
	}
}

func TestLagIsKnownWhileEventsFlowAndNotOtherwise(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		stats  Stats
		log    uint64
		age    time.Duration // at least
		absent bool
	}{
		"all is confirmed":           {stats: Stats{State: Streaming, LogEnd: 9, Confirmed: 9, LastCommit: old}},
		"confirmed after the look":   {stats: Stats{State: Streaming, LogEnd: 8, Confirmed: 9}},
		"the broker is away":         {stats: Stats{State: Streaming, LogEnd: 90, Confirmed: 9, LastCommit: time.Now(), InFlightRows: 1, Waiting: time.Minute}, log: 81, age: time.Minute},
		"there is a backlog":         {stats: Stats{State: Streaming, LogEnd: 90, Confirmed: 9, LastCommit: old, InFlightRows: 1, Waiting: time.Millisecond}, log: 81, age: time.Hour},
		"their clock is ahead":       {stats: Stats{State: Draining, LogEnd: 90, Confirmed: 9, LastCommit: time.Now().Add(time.Hour), InFlightRows: 1}, log: 81},
		"Postgres is away":           {stats: Stats{State: Retrying, LogEnd: 90, Confirmed: 9}, absent: true},
		"the slot was not looked at": {stats: Stats{State: Streaming, Confirmed: 9}, absent: true},
	} {
		log, age, ok := c.stats.Lag()
		if ok == c.absent || log != c.log || age < c.age || age > c.age+time.Minute {
			t.Errorf("%s: %d bytes, %v, known %v; want %d bytes, %v, %v", name, log, age, ok, c.log, c.age, !c.absent)
		}
	}
}

func TestRowsAreInFlightUntilTheMarkIsBehindThem(t *testing.T) {
	r := &Runner{logger: slog.New(slog.DiscardHandler)}
	tracker := checkpoint.NewTracker(0x1000)
	r.board.begin(&session{
		tracker: tracker, saver: &saver{position: checkpoint.Position{LSN: 0x1000}}, budget: newBudget(1), seen: &r.seen,
		read: func() wal.LSN { return 0x1300 },
	})
	first := tracker.Begin(0x1100, 2, nil)
	tracker.Begin(0x1200, 1, nil).Ack(nil)
	if got := r.Stats().InFlightRows; got != 3 {
		t.Errorf("%d rows are in flight while the first are, want all 3", got)
	}
	first.Ack(nil)
	first.Ack(nil)
	if got := r.Stats().InFlightRows; got != 0 {
		t.Errorf("%d rows are in flight when all are acked", got)
	}
}
