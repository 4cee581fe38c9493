package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

const (
	liveWriters = 4                    // connections that insert while somebody streams
	liveTick    = 4 * time.Millisecond // between two transactions of one of them at the least
)

// traffic is what services insert while a contestant streams: rate events a second, as
// single rows up to a thousand a second, above that in transactions of rate/1000 rows.
// Each commit waits for the disk, as it does in production; without that the log
// leaves the server only a few times a second.
//
// It lasts for a while from the moment the consumer has what was in the slot before.
type traffic struct {
	rate   int
	lasts  time.Duration
	caught atomic.Int64 // when the consumer had the rest, in Unix nanoseconds; 0 before
}

// over says whether the traffic is to end.
func (t *traffic) over(now time.Time) bool {
	caught := t.caught.Load()
	return caught != 0 && now.Sub(time.Unix(0, caught)) > t.lasts
}

// insertLive writes rows whose payload says when they were.
const insertLive = `INSERT INTO outbox (aggregate_type, aggregate_id, event_type, payload)
	SELECT 'order0', 'order-' || (($2::bigint + i) % 10000), 'OrderPlaced',
		jsonb_build_object('at', $1::bigint, 'text', repeat('paid in full ', 16))
	FROM generate_series(1, $3::int) AS i`

// write inserts until the time is over, and gives how many rows it were.
func (t *traffic) write(ctx context.Context, l *backlog) (int, error) {
	group, ctx := errgroup.WithContext(ctx)
	counts := make([]int, liveWriters)
	for i := range liveWriters {
		group.Go(func() error {
			var err error
			counts[i], err = t.writeOne(ctx, l, time.Duration(i)*liveTick/liveWriters)
			return err
		})
	}
	err := group.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return total, err
}

// writeOne is one connection's part. Whatever is due by now is one transaction, so that
// a slow disk makes transactions larger and not the traffic less.
func (t *traffic) writeOne(ctx context.Context, l *backlog, phase time.Duration) (int, error) {
	conn, err := l.bench.postgres.Connect(ctx, l.name)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	share := float64(t.rate) / liveWriters
	tick := max(liveTick, time.Duration(float64(time.Second)/share))
	timer := time.NewTimer(phase)
	defer timer.Stop()
	written := 0
	for began := time.Now().Add(phase); !t.over(time.Now()); {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return written, ctx.Err()
		}
		now := time.Now()
		due := 1 + int(now.Sub(began).Seconds()*share) - written
		if due > 0 {
			if _, err := conn.Exec(ctx, insertLive, now.UnixNano(), written, due); err != nil {
				return written, fmt.Errorf("insert: %w", err)
			}
			written += due
		}
		timer.Reset(time.Until(now.Add(tick)))
	}
	return written, nil
}

// arrival is a record of live traffic at the consumer.
type arrival struct {
	inserted time.Time
	delay    time.Duration
}

// consumer reads the topics of a run as any consumer would.
type consumer struct {
	client   *kgo.Client
	old      int // records that were in the slot before the traffic
	oldDone  time.Time
	arrivals []arrival
}

func (h *heat) newConsumer() (*consumer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(h.bench.kafka.Bootstrap()...),
		kgo.ConsumeTopics(h.board.names...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	return &consumer{client: client}, err
}

// read takes records until done says so, or ctx ends.
func (c *consumer) read(ctx context.Context, since time.Time, done func(*consumer) bool) error {
	for !done(c) {
		// done may come true without another record.
		short, cancel := context.WithTimeout(ctx, calmPause)
		fetches := c.client.PollFetches(short)
		cancel()
		if err := fetches.Err(); err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return fmt.Errorf("consume: %w", err)
		}
		now := time.Now()
		fetches.EachRecord(func(r *kgo.Record) { c.take(r, now, since) })
	}
	return nil
}

func (c *consumer) take(r *kgo.Record, now, since time.Time) {
	inserted, ok := insertedAt(r.Value)
	if !ok || inserted.Before(since) {
		c.old++
		c.oldDone = now
		return
	}
	c.arrivals = append(c.arrivals, arrival{inserted, now.Sub(inserted)})
}

// insertedAt reads the time out of a payload of live traffic.
func insertedAt(payload []byte) (time.Time, bool) {
	_, digits, ok := bytes.Cut(payload, []byte(`"at": `))
	end := bytes.IndexAny(digits, ",}")
	if !ok || end < 0 {
		return time.Time{}, false
	}
	nanos, err := strconv.ParseInt(string(digits[:end]), 10, 64)
	return time.Unix(0, nanos), err == nil
}

// stream runs one contestant while traffic is written, and gives what arrived. old is
// how many events are in the slot before that.
func (h *heat) stream(ctx context.Context, t *traffic, old int) (*consumer, error) {
	var err error
	if h.child, err = start(h.contestant.run(context.WithoutCancel(ctx), h.bench, h.entry)); err != nil {
		return nil, err
	}
	if err := until(ctx, h.child.ended, h.active); err != nil {
		return nil, fmt.Errorf("wait for the slot to be read: %w; it said:\n%s", err, h.child.log.String())
	}
	c, err := h.newConsumer()
	if err != nil {
		return nil, err
	}
	defer c.client.Close()
	total, err := h.exchange(ctx, c, t, old)
	if err != nil {
		return nil, fmt.Errorf("%d of %d old and %d of %d new events came: %w", c.old, old, len(c.arrivals), total, err)
	}
	if len(c.arrivals) != total || c.old != old {
		return nil, fmt.Errorf("%d events came, %d were written", c.old+len(c.arrivals), old+total)
	}
	return c, errors.Join(h.child.stop(ctx), h.child.err)
}

// exchange writes traffic and consumes until all of it has come, and gives how many
// events it was.
func (h *heat) exchange(ctx context.Context, c *consumer, t *traffic, old int) (total int, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.lasts+drainTimeout)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	written := make(chan int, 1)
	group.Go(func() error {
		n, err := t.write(ctx, h.backlog)
		written <- n
		return err
	})
	total = -1 // not known yet
	group.Go(func() error {
		return c.read(ctx, began, func(c *consumer) bool {
			if c.old >= old {
				t.caught.CompareAndSwap(0, time.Now().UnixNano())
			}
			select {
			case total = <-written:
			default:
			}
			return total >= 0 && len(c.arrivals) >= total && c.old >= old
		})
	})
	err = group.Wait()
	return total, err
}

// delays are those of events inserted from one time up to another, the shortest first.
func (c *consumer) delays(from, to time.Time) []time.Duration {
	var all []time.Duration
	for _, a := range c.arrivals {
		if !a.inserted.Before(from) && a.inserted.Before(to) {
			all = append(all, a.delay)
		}
	}
	slices.Sort(all)
	return all
}

// first is when the traffic began.
func (c *consumer) first() time.Time {
	earliest := c.arrivals[0].inserted
	for _, a := range c.arrivals {
		if a.inserted.Before(earliest) {
			earliest = a.inserted
		}
	}
	return earliest
}

// quantile is in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))].Seconds() * 1000
}
