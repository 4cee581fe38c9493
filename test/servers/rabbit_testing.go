package servers

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Stop stops the server in order and waits until it is gone.
func (r *RabbitServer) Stop(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, r.stop(ctx, syscall.SIGTERM))
}

// Kill9 kills the server with SIGKILL and waits until it is gone.
func (r *RabbitServer) Kill9(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, r.stop(ctx, syscall.SIGKILL))
}

// Settle writes to disk what was declared and bound so far. RabbitMQ acknowledges a
// queue or a binding and may still forget it, a queue with what was confirmed into it,
// when it is killed a second later (seen with 3.10 and its Mnesia tables).
func (r *RabbitServer) Settle(tb testing.TB) {
	tb.Helper()
	r.Control(tb, "eval", "mnesia:sync_log().")
}

// Start brings a stopped server up again, on the same ports and data.
func (r *RabbitServer) Start(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, r.start(ctx))
}

// Control runs rabbitmqctl and gives what it printed.
func (r *RabbitServer) Control(tb testing.TB, args ...string) string {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	out, err := r.control(ctx, args...)
	must(tb, err)
	return out
}

// Name is one for an exchange or a queue of this test that no other test has.
func (*RabbitServer) Name(tb testing.TB) string {
	tb.Helper()
	return plain(tb.Name(), '-') + "-" + strings.ToLower(rand.Text()[:10])
}

// Channel is a channel on a connection of its own; both end with the test.
func (r *RabbitServer) Channel(tb testing.TB) *amqp.Channel {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn, err := r.connect(ctx)
	must(tb, err)
	tb.Cleanup(func() { shut(conn) }) // it may be broken
	channel, err := conn.Channel()
	must(tb, err)
	return channel
}

// Do calls do with a channel of a connection that ends with the call.
func (r *RabbitServer) Do(tb testing.TB, do func(*amqp.Channel) error) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	must(tb, r.do(ctx, do))
}

func (r *RabbitServer) do(ctx context.Context, do func(*amqp.Channel) error) error {
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer shut(conn)
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	return do(channel)
}

// Queue makes a durable queue that ends with the test.
func (r *RabbitServer) Queue(tb testing.TB, name string, arguments amqp.Table) {
	tb.Helper()
	r.Do(tb, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, arguments)
		return err
	})
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		_ = r.do(ctx, func(ch *amqp.Channel) error { // the server may be gone
			_, err := ch.QueueDelete(name, false, false, false)
			return err
		})
	})
}

// Exchange makes a durable exchange of a type such as topic, which ends with the test.
func (r *RabbitServer) Exchange(tb testing.TB, name, kind string) {
	tb.Helper()
	r.Do(tb, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(name, kind, true, false, false, false, nil)
	})
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		_ = r.do(ctx, func(ch *amqp.Channel) error { return ch.ExchangeDelete(name, false, false) }) // as above
	})
}

// Bind binds a queue to an exchange.
func (r *RabbitServer) Bind(tb testing.TB, queue, exchange, key string) {
	tb.Helper()
	r.Do(tb, func(ch *amqp.Channel) error { return ch.QueueBind(queue, key, exchange, false, nil) })
}

// Messages gives what a queue holds, in order, and leaves it there.
func (r *RabbitServer) Messages(tb testing.TB, queue string) []amqp.Delivery {
	tb.Helper()
	var all []amqp.Delivery
	r.Do(tb, func(ch *amqp.Channel) error {
		state, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil || state.Messages == 0 {
			return err
		}
		deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		// What is not acknowledged goes back to its place when the connection ends.
		for d := range deliveries {
			if all = append(all, d); len(all) == state.Messages {
				return nil
			}
		}
		return fmt.Errorf("the queue gave %d of %d messages", len(all), state.Messages)
	})
	return all
}

// Rabbit runs a RabbitMQ for this test alone; it ends with the test. When the test
// fails, the end of the server's log is part of what it says.
func Rabbit(tb testing.TB, opts ...Option) *RabbitServer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bringUp)
	defer cancel()
	r, err := StartRabbit(ctx, forTest(tb, opts))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { end(tb, r, r.machine) })
	return r
}

//nolint:gochecknoglobals // as the other shared servers
var sharedRabbit once[*RabbitServer]

// SharedRabbit gives the server that the tests of this package share. Use exchanges
// and queues of names that no other test uses, such as Name makes. The server must
// not be stopped. A package that calls it has the TestMain of SharedPostgres.
func SharedRabbit(tb testing.TB) *RabbitServer {
	tb.Helper()
	r, err := sharedRabbit.take(func() (*RabbitServer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), bringUp)
		defer cancel()
		r, err := StartRabbit(ctx, forTest(tb, nil))
		if err == nil {
			r.shared = true
		}
		return r, err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}
