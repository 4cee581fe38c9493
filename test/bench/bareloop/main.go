// Command bareloop is the yardstick of the benchmark: it reads a slot and sends its
// rows to Kafka with as little as that takes, and with none of what a product owes. It
// saves and confirms nothing, it checks nothing, and it ends at the first error.
//
// What it shares with outboxcdc are Kafka's settings, which decide what the broker is
// given to do. With -coalesce it lets packets pile up in the kernel before it reads.
//
//	BARELOOP_DATABASE_URL=postgres://… bareloop -slot s -brokers b:9092 -topic t -coalesce
//
// At SIGTERM it prints how many rows it read and what it allocated since the first.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	ctx, done := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	done()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bareloop:", err)
		os.Exit(1)
	}
}

// Report is what the loop prints at its end.
type Report struct {
	Rows    int64  `json:"rows"`
	Mallocs uint64 `json:"mallocs"` // since the first row
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bareloop", flag.ContinueOnError)
	slot := flags.String("slot", "", "`name` of the slot")
	publication := flags.String("publication", "outboxcdc", "`name` of the publication")
	brokers := flags.String("brokers", "", "addresses of Kafka, separated by commas")
	topic := flags.String("topic", "", "where the rows go, with {aggregate_type} for that column")
	coalesce := flags.Bool("coalesce", false, "let packets pile up in the kernel")
	linger := flags.Duration("linger", 0, "how `long` a batch gathers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	to, err := newProducer(strings.Split(*brokers, ","), *topic, *linger)
	if err != nil {
		return err
	}
	defer to.client.Close()
	from, err := open(ctx, os.Getenv("BARELOOP_DATABASE_URL"), *slot, *publication)
	if err != nil {
		return err
	}
	defer from.conn.Close()
	l := &loop{reader: from, producer: to, coalesce: *coalesce}
	if err := l.run(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	report := Report{Rows: l.rows}
	if l.rows > 0 {
		report.Mallocs = mallocs() - l.mallocs
	}
	return json.NewEncoder(out).Encode(report)
}

// mallocs is how often this program has allocated.
func mallocs() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.Mallocs
}
