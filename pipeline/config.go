// Package pipeline runs a stream: it reads a slot, publishes each row, and
// confirms to the slot what the broker holds and the checkpoint store keeps.
//
// It is the one place that knows both ends. A session is one connection's life; a
// Runner begins one after the other for as long as time alone can mend what broke
// them, and says why it stopped where time cannot.
package pipeline

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Defaults of Config.
const (
	DefaultCheckpoint   = "database"
	DefaultDrainTimeout = 30 * time.Second
	DefaultSaveInterval = 250 * time.Millisecond
	DefaultBufferBytes  = 10 << 20
	DefaultQueueBatches = 4
)

// Config says what a Runner does. Wal.Slot, Wal.Publication, the names in
// Wal.Tables and Sink are required; every other zero value means its default.
type Config struct {
	// Wal names database, slot, publication and tables. The columns of the tables
	// are set by New.
	Wal wal.Config

	Sink        string        // URL of the sink
	SinkOptions sink.Options  // Topics is set by New
	Outbox      outbox.Config // how rows become messages
	Checkpoint  string        // URL of the checkpoint store

	// AcceptGap is the saved position at which a stream was refused and is to go on
	// all the same; 0 accepts nothing.
	AcceptGap wal.LSN

	OnError         OnError   // what becomes of rows that cannot be sent
	DeadLetterTopic string    // where copies of parked rows go
	ParkLimit       ParkLimit // what may be parked at most

	// MarkSent is a column of text that is set to SENT once the broker holds a row;
	// DeleteSent deletes the row instead. Neither is done unless asked for.
	MarkSent   string
	DeleteSent bool

	// HistoryInterval is how often a stream adds what is delivered to the history, and
	// HistoryKeep how old an entry becomes there. What is not a stream forgets nothing.
	HistoryInterval, HistoryKeep time.Duration

	SweepInterval time.Duration // between two rounds of either
	DrainTimeout  time.Duration // for acks after a stop
	SaveInterval  time.Duration // between two saves; bounds what a crash repeats
	WatchInterval time.Duration // between two looks at slot and publication
	BufferBytes   int           // of rows that are sent and not yet acked
	QueueBatches  int           // between reading and sending

	// ReplayWindow is how far behind the stream a slot is kept for exact replays.
	ReplayWindow  Window
	TrailInterval time.Duration // between two moves of that slot

	// Jitter gives the random part of a pause between two sessions, from 0 to most.
	// It is for simulation, where every choice comes from one seed; nil means
	// rand.N.
	Jitter func(most time.Duration) time.Duration

	Logger *slog.Logger // nil discards
}

// validate fills in the defaults and gives every problem at once.
func (c *Config) validate() (*outbox.Plan, error) {
	c.setDefaults()
	c.reserve()
	plan, planErr := outbox.NewPlan(c.Outbox, c.Wal.Tables)
	if plan != nil {
		c.Wal.Tables = plan.Tables()
		c.SinkOptions.Topics = plan.Topics()
		if c.OnError == OnErrorPark {
			c.SinkOptions.Topics = append(c.SinkOptions.Topics, c.DeadLetterTopic)
		}
		planErr = c.judgePartitions(plan)
	}
	errs := []error{planErr, c.Wal.Validate(), sink.CheckURL(c.Sink), checkpoint.CheckURL(c.Checkpoint)}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"drain timeout", c.DrainTimeout}, {"save interval", c.SaveInterval}, {"watch interval", c.WatchInterval}} {
		if d.value < 0 {
			errs = append(errs, fault.NewUsage(fmt.Errorf("%s %v is negative", d.name, d.value), "give a duration such as 30s"))
		}
	}
	errs = append(errs, c.checkHistory())
	if c.MarkSent != "" && c.DeleteSent {
		errs = append(errs, fault.NewUsage(errors.New("rows cannot be both marked and deleted"), "give --mark-sent or --delete-sent"))
	}
	if (c.MarkSent != "" || c.DeleteSent) && strings.HasPrefix(c.Checkpoint, "memory") {
		errs = append(errs, fault.NewUsage(errors.New("memory:// forgets which rows may never have been sent, so none can be marked or deleted"),
			"use another --checkpoint with --mark-sent and --delete-sent"))
	}
	return plan, errors.Join(errs...)
}

// reserve keeps events from what we write ourselves and then believe: one could say that
// everything was sent.
func (c *Config) reserve() {
	if own := checkpoint.OwnTopic(c.Checkpoint); own != "" {
		c.Outbox.Reserved = append(slices.Clip(c.Outbox.Reserved), own)
	}
	if c.OnError == OnErrorPark {
		c.Outbox.Reserved = append(slices.Clip(c.Outbox.Reserved), c.DeadLetterTopic)
	}
}

// judgePartitions refuses to choose partitions where there are none.
func (c *Config) judgePartitions(plan *outbox.Plan) error {
	if !plan.Places() || sink.Partitioned(c.Sink) {
		return nil
	}
	return fault.NewUsage(errors.New("a column chooses the partition of events, and the sink has no partitions"),
		"take it away; RabbitMQ spreads events by the routing key, see docs/rabbitmq.md")
}

func (c *Config) setDefaults() {
	setDefault(&c.Checkpoint, DefaultCheckpoint)
	setDefault(&c.DrainTimeout, DefaultDrainTimeout)
	setDefault(&c.SaveInterval, DefaultSaveInterval)
	setDefault(&c.HistoryInterval, checkpoint.DefaultHistoryInterval)
	setDefault(&c.HistoryKeep, checkpoint.DefaultHistoryAge)
	setDefault(&c.WatchInterval, wal.DefaultWatchInterval)
	setDefault(&c.TrailInterval, DefaultTrailInterval)
	setDefault(&c.SweepInterval, sweepInterval)
	setDefault(&c.DeadLetterTopic, DefaultDeadLetterTopic)
	limit := DefaultParkLimit()
	setDefault(&c.ParkLimit.Rows, limit.Rows)
	setDefault(&c.ParkLimit.Aggregates, limit.Aggregates)
	setDefault(&c.ParkLimit.Bytes, limit.Bytes)
	setDefault(&c.BufferBytes, DefaultBufferBytes)
	setDefault(&c.QueueBatches, DefaultQueueBatches)
	if c.Jitter == nil {
		c.Jitter = func(most time.Duration) time.Duration { return rand.N(most + 1) }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Wal.Logger == nil {
		c.Wal.Logger = c.Logger
	}
	if c.SinkOptions.Logger == nil {
		c.SinkOptions.Logger = c.Logger
	}
}

// Bounds of the history: the database and a topic of Kafka hold it beside the position,
// and a file is read whole once an interval.
const (
	leastHistoryInterval = time.Second
	mostHistoryEntries   = 100_000
)

func (c *Config) checkHistory() error {
	switch {
	case c.HistoryInterval < leastHistoryInterval:
		return fault.NewUsage(fmt.Errorf("history interval %v is below %v", c.HistoryInterval, leastHistoryInterval), "give a duration such as 1m")
	case c.HistoryKeep < c.HistoryInterval || c.HistoryKeep > checkpoint.Forever:
		return fault.NewUsage(fmt.Errorf("a history of %v cannot be kept with an entry every %v", c.HistoryKeep, c.HistoryInterval), "give --history-keep a duration such as 168h")
	case c.HistoryKeep/c.HistoryInterval > mostHistoryEntries:
		return fault.NewUsage(fmt.Errorf("a history of %v with an entry every %v has more than %d entries", c.HistoryKeep, c.HistoryInterval, mostHistoryEntries),
			"give a longer --history-interval or a shorter --history-keep")
	default:
		return nil
	}
}

// storeOptions are those of a command that looks or mends: only a stream knows how long
// the history is to be kept.
func (c *Config) storeOptions() checkpoint.Options {
	return checkpoint.Options{Slot: c.Wal.Slot, Database: c.Wal.Database, HistoryAge: checkpoint.Forever, Dial: c.Wal.Dial, Logger: c.Logger}
}

// streamsOptions are those of the store that a stream saves to.
func (c *Config) streamsOptions() checkpoint.Options {
	options := c.storeOptions()
	options.HistoryAge = c.HistoryKeep
	return options
}

func setDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}
