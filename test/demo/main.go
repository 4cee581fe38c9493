// Command demo shows outboxcdc at work on one machine: a Postgres, a broker, three
// services that write orders, and the events as a consumer sees them. It ends by
// itself, checks what was delivered, and exits with 1 when anything is not as
// promised.
//
//	make demo
//	DURATION=1m make demo
//
// The Postgres is a real one (see package servers), the broker franz-go's kfake,
// which speaks Kafka's protocol from this process. outboxcdc is the binary itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

const (
	topic      = "outbox.event.order"
	partitions = 3
	slotName   = "orders"
	lastWait   = 30 * time.Second // for the last events to arrive
)

func main() {
	ctx, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	done()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	binary := flags.String("outboxcdc", "bin/outboxcdc", "the outboxcdc `binary`")
	duration := flags.Duration("duration", 12*time.Second, "how `long` the services work")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if text := os.Getenv("DURATION"); text != "" {
		var err error
		if *duration, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("DURATION=%q is not a duration such as 15s", text)
		}
	}
	d := &demo{out: &screen{out: out}, binary: *binary}
	defer d.close()
	if err := d.start(ctx); err != nil {
		return err
	}
	return d.play(ctx, *duration)
}

// demo is what runs.
type demo struct {
	out      *screen
	binary   string
	postgres *servers.PostgresServer
	shop     *shop
	broker   *kfake.Cluster
}

// start brings the servers up.
func (d *demo) start(ctx context.Context) error {
	d.out.title("Starting a Postgres and a broker on this machine")
	var err error
	d.postgres, err = servers.StartPostgres(ctx, servers.Config{Logger: slog.New(slog.NewTextHandler(d.out, nil))})
	if err != nil {
		return err
	}
	if d.shop, err = openShop(ctx, d.postgres); err != nil {
		return err
	}
	d.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic))
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	d.out.printf("  Postgres %d at %s, a broker at %s\n", d.postgres.Major(), d.postgres.Address(), d.broker.ListenAddrs()[0])
	return nil
}

// close ends what runs, in the reverse order.
func (d *demo) close() {
	if d.broker != nil {
		d.broker.Close()
	}
	if d.shop != nil {
		d.shop.close()
	}
	if d.postgres != nil {
		if err := d.postgres.Close(); err != nil {
			d.out.printf("demo: %v\n", err)
		}
	}
}

// play sets the database up, streams while the services work, stops, and checks.
func (d *demo) play(ctx context.Context, duration time.Duration) error {
	d.out.title("The database is set up once")
	if err := d.outboxcdc(ctx, "init", "--slot", slotName).Run(); err != nil {
		return fmt.Errorf("outboxcdc init: %w", err)
	}
	d.out.title("outboxcdc streams, three services work, a consumer reads")
	stream, err := d.stream(ctx)
	if err != nil {
		return err
	}
	defer stream.kill()
	seen, err := newConsumer(d.broker.ListenAddrs(), d.out)
	if err != nil {
		return err
	}
	defer seen.close()

	written, err := d.work(ctx, duration, seen, stream)
	if err != nil {
		return err
	}
	d.out.title("Stopping outboxcdc with SIGTERM")
	exit, err := stream.stop()
	if err != nil {
		return err
	}
	confirmed, err := d.shop.confirmed(ctx)
	if err != nil {
		return err
	}
	d.out.title("What happened")
	return errors.Join(seen.summary(written), d.goodbye(exit, confirmed))
}

// work lets the services write for duration, and waits until the consumer has seen
// as many events as they committed, or more.
func (d *demo) work(ctx context.Context, duration time.Duration, seen *consumer, stream *stream) (ledger, error) {
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	read := make(chan error, 1)
	go func() { read <- seen.read(reading) }() // ends with stopReading

	written, err := d.shop.open(ctx, duration)
	if err != nil {
		return written, err
	}
	patience := time.NewTimer(lastWait)
	defer patience.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for seen.count() < written.events {
		select {
		case <-look.C:
		case err := <-read:
			return written, fmt.Errorf("read from the broker: %w", err)
		case <-stream.ended:
			return written, fmt.Errorf("outboxcdc ended by itself: %w", stream.err)
		case <-patience.C:
			return written, nil // the summary says what is missing
		case <-ctx.Done():
			return written, errors.New("interrupted")
		}
	}
	stopReading()
	return written, <-read
}

func (d *demo) goodbye(exit int, confirmed string) error {
	if exit != 0 {
		return fmt.Errorf("outboxcdc exited with %d after SIGTERM, want 0", exit)
	}
	d.out.printf("  stop         outboxcdc drained and exited with 0; its slot is confirmed up to %s\n\n", confirmed)
	return nil
}
