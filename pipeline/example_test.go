package pipeline_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func config() pipeline.Config {
	return pipeline.Config{
		Wal: wal.Config{
			Database: "postgres://cdc@db.example.com/shop", Slot: "orders", Publication: "outboxcdc",
			Tables: []wal.Table{{Schema: "public", Name: "outbox"}},
		},
		Outbox:     outbox.Config{Default: outbox.Mapping{Topic: "shop.orders"}},
		Sink:       "kafka://b1.example.com:9092",
		Checkpoint: "database",
		Logger:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
}

// New checks a configuration, every problem at once, and touches no server.
func ExampleNew() {
	runner, err := pipeline.New(config())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(runner.Config().SinkOptions.Topics)

	wrong := config()
	wrong.Sink = "ftp://b1.example.com"
	_, err = pipeline.New(wrong)
	fmt.Println(fault.Classify(err))
	// Output:
	// [shop.orders]
	// usage
}

// A service streams until it is told to stop; then what was sent is acked, saved and
// confirmed.
func ExampleRunner_Run() { //nolint:testableexamples // it needs servers
	signals, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	runner, err := pipeline.New(config())
	if err != nil {
		fmt.Fprintln(os.Stderr, "the outbox is set up wrongly:", err)
		return
	}
	// The context would end everything at once; the channel lets it drain.
	if err := runner.Run(context.Background(), signals.Done()); err != nil {
		fmt.Fprintln(os.Stderr, "the outbox is not streamed any more, exit code", fault.ExitCode(err), err)
	}
}

// Stats may be asked at any time, such as by the health check of a service.
func ExampleRunner_Stats() {
	runner, err := pipeline.New(config())
	if err != nil {
		fmt.Println(err)
		return
	}
	stats := runner.Stats()
	_, _, known := stats.Lag()
	fmt.Println(stats.State, known, len(stats.Troubles()))
	// Output: starting false 0
}
