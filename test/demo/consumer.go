package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer reads the topic as any consumer would, prints each event, and keeps what
// it needs to check the promises.
type consumer struct {
	client *kgo.Client
	out    *screen

	mu       sync.Mutex
	seen     map[string]bool // positions
	last     map[string]int  // version of each order
	problems []string
	repeated int
	delays   []time.Duration // from commit to here
}

func newConsumer(brokers []string, out *screen) (*consumer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return nil, fmt.Errorf("make a consumer: %w", err)
	}
	return &consumer{client: client, out: out, seen: map[string]bool{}, last: map[string]int{}}, nil
}

func (c *consumer) close() { c.client.Close() }

// read prints what arrives until ctx ends.
func (c *consumer) read(ctx context.Context) error {
	for {
		fetches := c.client.PollFetches(ctx)
		switch err := fetches.Err(); {
		case errors.Is(err, context.Canceled):
			return nil
		case err != nil:
			return err
		}
		for _, r := range fetches.Records() {
			if err := c.take(r); err != nil {
				return err
			}
		}
	}
}

// event is the payload that the services write.
type event struct {
	Order    int64       `json:"order"`
	Version  int         `json:"version"`
	Customer string      `json:"customer"`
	Total    json.Number `json:"total"`
}

func (c *consumer) take(r *kgo.Record) error {
	var e event
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return fmt.Errorf("read an event: %w", err)
	}
	delay := max(0, time.Since(r.Timestamp))
	c.out.printf("  %s  order %-3d v%d  %-16s %-9s %6s   partition %d, %d ms after commit\n",
		r.Timestamp.Format("15:04:05.000"), e.Order, e.Version, header(r, "event_type"), e.Customer, e.Total,
		r.Partition, delay.Milliseconds())

	c.mu.Lock()
	defer c.mu.Unlock()
	position := header(r, "outboxcdc-position")
	if c.seen[position] {
		c.repeated++
		return nil
	}
	c.seen[position] = true
	c.delays = append(c.delays, delay)
	key := string(r.Key)
	if want := c.last[key] + 1; e.Version != want {
		c.problems = append(c.problems, fmt.Sprintf("order %s: version %d came where %d was due", key, e.Version, want))
	}
	c.last[key] = e.Version
	return nil
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// count is how many different events have come.
func (c *consumer) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

// summary compares what came with what was written.
func (c *consumer) summary(written ledger) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for order, version := range written.versions {
		if c.last[order] != version {
			c.problems = append(c.problems, fmt.Sprintf("order %s: delivered up to version %d of %d", order, c.last[order], version))
		}
	}
	for order := range c.last {
		if written.versions[order] == 0 {
			c.problems = append(c.problems, fmt.Sprintf("order %s was rolled back and delivered", order))
		}
	}
	if len(c.seen) != written.events {
		c.problems = append(c.problems, fmt.Sprintf("%d events were delivered, %d were committed", len(c.seen), written.events))
	}
	c.out.printf("  written      %d events, each in the transaction that changed its order\n", written.events)
	c.out.printf("  rolled back  %d more, with their transactions\n", written.rolledBack)
	c.out.printf("  delivered    %d events, %d of them again\n", len(c.seen), c.repeated)
	if len(c.problems) > 0 {
		slices.Sort(c.problems)
		return errors.New("the promises do not hold: " + fmt.Sprint(c.problems))
	}
	c.out.printf("  checked      %d orders: every committed version came, in order, and nothing that was rolled back\n", len(c.last))
	c.out.printf("  delay        median %v from commit to consumer, 99 of 100 within %v\n", c.quantile(0.5), c.quantile(0.99))
	return nil
}

func (c *consumer) quantile(q float64) time.Duration {
	if len(c.delays) == 0 {
		return 0
	}
	slices.Sort(c.delays)
	return c.delays[int(q*float64(len(c.delays)-1))].Round(time.Millisecond)
}
