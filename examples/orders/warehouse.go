package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

const topic = "outbox.event.order"

// warehouse hears of orders from Kafka and packs what is paid.
type warehouse struct {
	brokers []string
	conn    *pgx.Conn

	handled, repeated atomic.Int64
	crashAfter        int64 // as billing's
}

// run consumes until ctx ends.
func (w *warehouse) run(ctx context.Context) error {
	for {
		err := w.consume(ctx)
		if !errors.Is(err, errCrash) {
			return err
		}
	}
}

func (w *warehouse) consume(ctx context.Context) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(w.brokers...),
		kgo.ConsumerGroup("warehouse"), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), // an offset is committed when its work is
	)
	if err != nil {
		return fmt.Errorf("warehouse: %w", err)
	}
	defer client.Close()
	for {
		fetches := client.PollRecords(ctx, 100)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("warehouse: read: %w", err)
		}
		for _, r := range fetches.Records() {
			if err := w.handle(ctx, r); err != nil {
				return err
			}
		}
		if err := client.CommitRecords(ctx, fetches.Records()...); err != nil && ctx.Err() == nil {
			return fmt.Errorf("warehouse: commit offsets: %w", err)
		}
	}
}

func (w *warehouse) handle(ctx context.Context, r *kgo.Record) error {
	headers := map[string]string{}
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	e, err := readEvent(headers["id"], headers["event_type"], r.Value)
	if err != nil {
		return err
	}
	news, err := once(ctx, w.conn, "warehouse", e, func(tx pgx.Tx) error { return w.pack(ctx, tx, e) })
	if err != nil {
		return fmt.Errorf("warehouse: %w", err)
	}
	if !news {
		w.repeated.Add(1)
	}
	if w.handled.Add(1) == w.crashAfter {
		return errCrash
	}
	return nil
}

// pack does the warehouse's work for an event, in the transaction of its inbox.
func (w *warehouse) pack(ctx context.Context, tx pgx.Tx, e event) error {
	switch e.kind {
	case "OrderPlaced":
		return one(ctx, tx, e, "INSERT INTO warehouse.parcel (order_id) VALUES ($1)", e.Order)
	case "OrderPaid":
		return one(ctx, tx, e, "UPDATE warehouse.parcel SET packed = true WHERE order_id = $1 AND NOT packed", e.Order)
	default:
		return nil
	}
}
