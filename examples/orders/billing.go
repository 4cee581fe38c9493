package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	exchange     = "orders"
	billingQueue = "billing"
)

// billing hears of orders from RabbitMQ and keeps an invoice for each.
type billing struct {
	url  string // of RabbitMQ
	conn *pgx.Conn

	handled, repeated atomic.Int64
	crashAfter        int64 // deliveries: then it ends between its work and the ack, once
}

// declare makes what billing consumes from. One consumer at a time works on the queue,
// so that the events of an order are worked on in their order.
func (b *billing) declare() error {
	return b.on(func(ch *amqp.Channel) error {
		if err := ch.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
			return err
		}
		_, err := ch.QueueDeclare(billingQueue, true, false, false, false, amqp.Table{
			amqp.QueueTypeArg: "quorum", "x-single-active-consumer": true,
		})
		if err != nil {
			return err
		}
		return ch.QueueBind(billingQueue, "outbox.event.order", exchange, false, nil)
	})
}

func (b *billing) on(do func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(b.url)
	if err != nil {
		return fmt.Errorf("billing: connect: %w", err)
	}
	defer conn.Close() //nolint:errcheck // what is not acked comes again
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("billing: open a channel: %w", err)
	}
	return do(ch)
}

// errCrash stands for a consumer that dies after its work and before its ack.
var errCrash = errors.New("crash")

// run consumes until ctx ends.
func (b *billing) run(ctx context.Context) error {
	for {
		err := b.on(func(ch *amqp.Channel) error { return b.consume(ctx, ch) })
		if !errors.Is(err, errCrash) {
			return err
		}
	}
}

func (b *billing) consume(ctx context.Context, ch *amqp.Channel) error {
	if err := ch.Qos(50, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.ConsumeWithContext(ctx, billingQueue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, open := <-deliveries:
			if !open {
				return errors.New("billing: the channel was closed")
			}
			if err := b.handle(ctx, &d); err != nil {
				return err
			}
		}
	}
}

func (b *billing) handle(ctx context.Context, d *amqp.Delivery) error {
	kind, _ := d.Headers["event_type"].(string)
	e, err := readEvent(d.MessageId, kind, d.Body)
	if err != nil {
		return err
	}
	news, err := once(ctx, b.conn, "billing", e, func(tx pgx.Tx) error { return b.account(ctx, tx, e) })
	if err != nil {
		return fmt.Errorf("billing: %w", err)
	}
	if !news {
		b.repeated.Add(1)
	}
	if b.handled.Add(1) == b.crashAfter {
		return errCrash
	}
	return d.Ack(false)
}

// account does billing's work for an event, in the transaction of its inbox.
func (b *billing) account(ctx context.Context, tx pgx.Tx, e event) error {
	switch e.kind {
	case "OrderPlaced":
		return one(ctx, tx, e, "INSERT INTO billing.invoice (order_id, cents) VALUES ($1, $2)", e.Order, e.Cents)
	case "OrderPaid":
		return one(ctx, tx, e, "UPDATE billing.invoice SET paid = true WHERE order_id = $1 AND NOT paid", e.Order)
	default:
		return nil // not billing's business
	}
}
