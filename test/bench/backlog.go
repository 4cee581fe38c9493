package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// shape says what the transactions of a backlog look like.
type shape struct {
	name       string
	rows       int // of a transaction
	payload    int // bytes
	aggregates int
	types      int    // of aggregates, and so topics
	partitions int    // of each topic
	extra      string // SQL that each transaction runs besides
	setup      string // SQL before all
	publish    string // SQL when the tables are there and no event is
	split      bool   // the outbox is several tables, see split.go
}

// usual is an event of about 350 bytes in its table: a payload of 250, and a hundred
// of identity, key, type and time.
func usual(name string, rows int) shape {
	return shape{name: name, rows: rows, payload: 250, aggregates: 10_000, types: 1, partitions: 12}
}

func mainShapes() []shape {
	return []shape{usual("one event a transaction", 1), usual("100 events a transaction", 100)}
}

// backlog is a database full of events that nobody has read: what the slot behind
// them holds.
type backlog struct {
	bench  *bench
	shape  shape
	name   string // of the database
	slot   string // never read, only copied
	events int
	end    string // of the log of the last event
	conn   *pgx.Conn
}

const writers = 2 // connections that fill a backlog, one for each core

// newBacklog makes a database with our init and fills it. The caller drops it.
func (b *bench) newBacklog(ctx context.Context, s shape, events int) (*backlog, error) {
	l := &backlog{bench: b, shape: s, name: b.name("bench"), slot: b.name("all"), events: events}
	if err := l.make(ctx); err != nil {
		return nil, errors.Join(err, l.drop(ctx))
	}
	return l, nil
}

func (l *backlog) make(ctx context.Context) error {
	if err := l.bench.onPostgres(ctx, "CREATE DATABASE "+l.name); err != nil {
		return err
	}
	var err error
	if l.conn, err = l.bench.connect(ctx, l.name); err != nil {
		return err
	}
	if _, err := l.conn.Exec(ctx, l.shape.setup); err != nil {
		return fmt.Errorf("set the workload up: %w", err)
	}
	for _, p := range l.portions() {
		if err := l.bench.init(ctx, l.name, p); err != nil {
			return err
		}
	}
	if l.shape.publish != "" {
		if err := l.publish(ctx); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	if l.events > 0 {
		if err := l.fill(ctx); err != nil {
			return fmt.Errorf("fill the outbox: %w", err)
		}
	}
	// The checkpoint writes the log's end, and leaves nothing to write for later.
	if _, err := l.conn.Exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	return l.conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&l.end)
}

// publish runs the shape's SQL and moves the slot behind it: a walsender finds a
// publication as it was at the place in the log that it reads.
func (l *backlog) publish(ctx context.Context) error {
	if _, err := l.conn.Exec(ctx, l.shape.publish); err != nil {
		return err
	}
	_, err := l.conn.Exec(ctx, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", l.slot)
	return err
}

// onPostgres runs one statement in the database postgres.
func (b *bench) onPostgres(ctx context.Context, sql string) error {
	conn, err := b.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// init is `outboxcdc init`, as a user would run it.
func (b *bench) init(ctx context.Context, database string, p portion) error {
	cmd := exec.CommandContext(ctx, b.binary, append([]string{"init"}, p.flags()...)...) //nolint:gosec // our own command
	cmd.Env = append(os.Environ(), "OUTBOXCDC_DATABASE_URL="+b.postgres.URL(database))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("outboxcdc init: %w: %s", err, out)
	}
	return nil
}

// drop removes the database and every slot in it.
func (l *backlog) drop(ctx context.Context) error {
	var errs []error
	if l.conn != nil {
		_, err := l.conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
		errs = append(errs, err, l.conn.Close(ctx))
	}
	return errors.Join(append(errs, l.bench.onPostgres(ctx, "DROP DATABASE IF EXISTS "+l.name+" WITH (FORCE)"))...)
}

// fill writes the events, in transactions of the shape's size, the last of which may
// make them a few more. The server does it all by itself, which is several times as
// fast as being told each row.
func (l *backlog) fill(ctx context.Context) error {
	transactions := max(1, l.events/l.shape.rows/writers)
	l.events = transactions * writers * l.shape.rows
	group, ctx := errgroup.WithContext(ctx)
	for writer := range writers {
		group.Go(func() error {
			conn, err := l.bench.connect(ctx, l.name)
			if err != nil {
				return err
			}
			_, err = conn.Exec(ctx, l.shape.loop(transactions, writer))
			return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
		})
	}
	return group.Wait()
}

// loop is the SQL of one writer.
func (s shape) loop(transactions, writer int) string {
	return fmt.Sprintf(`DO $fill$ BEGIN
	FOR t IN 1..%d LOOP
		%s
		%s
		COMMIT;
	END LOOP;
END $fill$`, transactions, s.insert(fmt.Sprintf("t * %d + %d", writers, writer), s.rows), s.extra)
}

// insert writes the rows of one transaction, of which base is the number.
func (s shape) insert(base string, rows int) string {
	number := fmt.Sprintf("((%s)::bigint * %d + i)", base, rows)
	// Half of the payload is what compresses badly.
	noise := strings.Repeat(fmt.Sprintf("md5((%s * 31)::text) || ", number), max(1, s.payload/64))
	return fmt.Sprintf(`INSERT INTO outbox (aggregate_type, aggregate_id, event_type, payload)
		SELECT 'order' || (%[1]s %% %[2]d), 'order-' || (%[1]s / %[2]d %% %[3]d), 'OrderPlaced',
			format('{"order": %%s, "note": "%%s", "text": "%%s"}', %[1]s, %[4]s '', repeat('paid in full ', %[5]d))::jsonb
		FROM generate_series(1, %[6]d) AS i;`,
		number, s.types, s.aggregates, noise, s.payload/32, rows)
}
