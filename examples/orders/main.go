// Command orders is the story that the transactional outbox is told with. An order
// service writes an order and its event in one transaction. Billing hears of it from
// RabbitMQ, the warehouse from Kafka. Things die on the way, events come twice, and an
// inbox table makes sure that each counts once.
//
//	make example
//
// The Postgres and the RabbitMQ are real ones (see package servers), Kafka is
// franz-go's kfake, which speaks its protocol from this process. outboxcdc is the
// binary itself, once for each broker.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

//go:embed schema.sql
var schema string

func main() {
	ctx, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	done()
	if err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("orders", flag.ContinueOnError)
	binary := flags.String("outboxcdc", "bin/outboxcdc", "the outboxcdc `binary`")
	orders := flags.Int64("orders", 500, "how `many` customers come, to each of three tills")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := &shop{out: out}
	defer s.close()
	if err := s.open(ctx, *binary); err != nil {
		return err
	}
	if err := s.work(ctx, *orders); err != nil {
		return err
	}
	return s.judge(ctx)
}

// shop is everything that runs.
type shop struct {
	out       io.Writer
	postgres  *servers.PostgresServer
	rabbit    *servers.RabbitServer
	kafka     *kfake.Cluster
	streams   []*stream
	billing   *billing
	warehouse *warehouse
}

const (
	tills      = 3
	crashAfter = 40
	lastWait   = time.Minute // for the last events to arrive
)

// open brings servers, tables and streams up.
func (s *shop) open(ctx context.Context, binary string) error {
	s.say("A Postgres, a RabbitMQ and a Kafka start on this machine.")
	config := servers.Config{Logger: slog.New(slog.NewTextHandler(s.out, nil))}
	var err error
	if s.postgres, err = servers.StartPostgres(ctx, config); err != nil {
		return err
	}
	if s.rabbit, err = servers.StartRabbit(ctx, config); err != nil {
		return err
	}
	if s.kafka, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(tills, topic)); err != nil {
		return fmt.Errorf("start kafka: %w", err)
	}
	s.billing = &billing{url: s.rabbit.URL(), crashAfter: crashAfter}
	s.warehouse = &warehouse{brokers: s.kafka.ListenAddrs(), crashAfter: crashAfter}
	if err := s.billing.declare(); err != nil {
		return err
	}
	s.streams = []*stream{
		{binary: binary, database: s.postgres.URL("postgres"), slot: "orders_billing", sink: s.rabbit.URL() + "?exchange=" + exchange},
		{binary: binary, database: s.postgres.URL("postgres"), slot: "orders_warehouse", sink: "kafka://" + strings.Join(s.kafka.ListenAddrs(), ",")},
	}
	return s.prepare(ctx)
}

// prepare makes the tables, and starts a stream for each broker.
func (s *shop) prepare(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is owed to it
	if _, err := conn.Exec(ctx, schema); err != nil {
		return fmt.Errorf("make the shop's tables: %w", err)
	}
	for _, t := range s.streams {
		if err := t.init(ctx); err != nil {
			return err
		}
		if err := t.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) connect(ctx context.Context) (*pgx.Conn, error) {
	return s.postgres.Connect(ctx, "postgres")
}

func (s *shop) close() {
	for _, t := range s.streams {
		t.kill()
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
	var errs []error
	if s.rabbit != nil {
		errs = append(errs, s.rabbit.Close())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
	}
	if err := errors.Join(errs...); err != nil {
		s.say("%v", err)
	}
}

func (s *shop) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...) //nolint:errcheck // whoever hears of it
}

// work lets customers come, kills both streams under them, and waits until billing and
// warehouse have heard of everything.
func (s *shop) work(ctx context.Context, orders int64) error {
	consuming, enough := context.WithCancel(ctx)
	defer enough()
	consumers, consuming := errgroup.WithContext(consuming)
	consumers.Go(func() error { return s.consume(consuming, &s.billing.conn, s.billing.run) })
	consumers.Go(func() error { return s.consume(consuming, &s.warehouse.conn, s.warehouse.run) })

	s.say("%d customers come to each of %d tills; billing and the warehouse listen.", orders, tills)
	customers, serving := errgroup.WithContext(ctx)
	for till := range int64(tills) {
		customers.Go(func() error {
			conn, err := s.connect(serving)
			if err != nil {
				return err
			}
			defer conn.Close(serving) //nolint:errcheck // nothing is owed to it
			return serve(serving, conn, 1+till*orders, orders)
		})
	}
	if err := s.strike(ctx, consuming); err != nil {
		return errors.Join(err, customers.Wait())
	}
	if err := customers.Wait(); err != nil {
		return err
	}
	if err := s.await(ctx, consuming); err != nil {
		enough()
		return errors.Join(err, consumers.Wait())
	}
	enough()
	if err := consumers.Wait(); err != nil {
		return err
	}
	for _, t := range s.streams {
		if err := t.stop(); err != nil {
			return err
		}
	}
	return nil
}

// consume gives a consumer its connection and runs it.
func (s *shop) consume(ctx context.Context, conn **pgx.Conn, run func(context.Context) error) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	*conn = c
	err = run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// strike kills both streams when some events have gone through, and starts them again.
func (s *shop) strike(ctx, consuming context.Context) error {
	heard := func() bool {
		return s.billing.handled.Load() > crashAfter && s.warehouse.handled.Load() > crashAfter
	}
	if err := until(ctx, consuming, heard); err != nil {
		return err
	}
	s.say("Both streams are killed with SIGKILL, and started again.")
	for _, t := range s.streams {
		t.kill()
		if err := t.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// until waits until it is so.
func until(ctx, consuming context.Context, so func() bool) error {
	patience := time.NewTimer(lastWait)
	defer patience.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !so() {
		select {
		case <-look.C:
		case <-patience.C:
			return fmt.Errorf("after %v not all events have come", lastWait)
		case <-consuming.Done():
			return errors.New("a consumer has ended")
		case <-ctx.Done():
			return errors.New("interrupted")
		}
	}
	return nil
}

// await waits until both inboxes hold all events.
func (s *shop) await(ctx, consuming context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is owed to it
	return until(ctx, consuming, func() bool {
		var all bool
		err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM outbox) = (SELECT count(*) FROM billing.inbox)
			AND (SELECT count(*) FROM outbox) = (SELECT count(*) FROM warehouse.inbox)`).Scan(&all)
		return err == nil && all
	})
}

// wrongs counts what must not be: an order without its invoice or with a wrong one, a
// parcel that is packed and not paid for, and the other way round.
const wrongs = `SELECT count(*) FROM orders o
	FULL JOIN billing.invoice i ON i.order_id = o.id
	FULL JOIN warehouse.parcel p ON p.order_id = coalesce(o.id, i.order_id)
	WHERE o.id IS NULL OR i.order_id IS NULL OR p.order_id IS NULL
		OR i.cents <> o.cents OR i.paid <> (o.status = 'paid') OR p.packed <> (o.status = 'paid')`

// judge compares the three.
func (s *shop) judge(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is owed to it
	var orders, paid, wrong int64
	if err := conn.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE status = 'paid') FROM orders").Scan(&orders, &paid); err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, wrongs).Scan(&wrong); err != nil {
		return err
	}
	s.say("%d orders, %d of them paid.", orders, paid)
	s.say("Billing heard %d events from RabbitMQ, %d of them again; it keeps one invoice for each order.", s.billing.handled.Load(), s.billing.repeated.Load())
	s.say("The warehouse heard %d events from Kafka, %d of them again; it packed what was paid, once.", s.warehouse.handled.Load(), s.warehouse.repeated.Load())
	switch {
	case wrong > 0:
		return fmt.Errorf("%d orders differ between shop, billing and warehouse", wrong)
	case orders == 0, s.billing.repeated.Load() == 0, s.warehouse.repeated.Load() == 0:
		return errors.New("nothing was ordered, or nothing came twice: the story proves nothing")
	default:
		return nil
	}
}
