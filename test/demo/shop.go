package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// shop is the database of three services that share the table of orders. Each
// change of an order is one transaction that raises the order's version and writes
// an event with it, so that the versions in the events of an order must read 1, 2,
// 3 and so on.
type shop struct {
	postgres *servers.PostgresServer
	url      string
}

// ledger counts what the services wrote.
type ledger struct {
	events, rolledBack int
	versions           map[string]int // of each order, what the table says at the end
}

const (
	databaseName = "outboxcdc_demo"
	schema       = `CREATE TABLE orders (
		id       bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		customer text    NOT NULL,
		total    numeric NOT NULL,
		status   text    NOT NULL,
		version  integer NOT NULL DEFAULT 1)`
	insertEvent = `INSERT INTO outbox (aggregate_type, aggregate_id, event_type, payload)
		VALUES ('order', $1::bigint::text, $2, jsonb_build_object(
			'order', $1::bigint, 'version', $3::int, 'customer', $4::text, 'total', $5::numeric))`
)

// openShop makes the database anew.
func openShop(ctx context.Context, postgres *servers.PostgresServer) (*shop, error) {
	s := &shop{postgres: postgres, url: postgres.URL(databaseName)}
	if err := s.drop(ctx); err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "postgres", "CREATE DATABASE "+databaseName); err != nil {
		return nil, err
	}
	if err := s.exec(ctx, databaseName, schema); err != nil {
		return nil, err
	}
	return s, nil
}

// drop matters on a server that is not the demo's own.
func (s *shop) drop(ctx context.Context) error {
	return s.exec(ctx, "postgres",
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND database = '"+databaseName+"'",
		"DROP DATABASE IF EXISTS "+databaseName+" WITH (FORCE)")
}

func (s *shop) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = s.drop(ctx) // a server of our own goes away as a whole
}

func (s *shop) exec(ctx context.Context, database string, statements ...string) error {
	conn, err := s.postgres.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("set up the shop: %w", err)
		}
	}
	return nil
}

// confirmed is where the slot stands.
func (s *shop) confirmed(ctx context.Context) (lsn string, err error) {
	conn, err := s.postgres.Connect(ctx, databaseName)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	err = conn.QueryRow(ctx, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", slotName).Scan(&lsn)
	return lsn, err
}

// step is one transaction of a service; changed is false when there was nothing to
// do.
type step func(ctx context.Context, tx pgx.Tx) (changed bool, err error)

// open lets the services work for duration.
func (s *shop) open(ctx context.Context, duration time.Duration) (ledger, error) {
	working, done := context.WithTimeout(ctx, duration)
	defer done()
	var events, rolledBack atomic.Int64
	group, working := errgroup.WithContext(working)
	for _, service := range []struct {
		pause   time.Duration
		regrets float64 // share of its transactions that are rolled back
		step    step
	}{
		{180 * time.Millisecond, 0.1, place},
		{150 * time.Millisecond, 0.2, advance("placed", "paid", "PaymentReceived")},
		{150 * time.Millisecond, 0.1, advance("paid", "shipped", "OrderShipped")},
	} {
		group.Go(func() error {
			return s.serve(working, service.pause, func(conn *pgx.Conn) error {
				back := rand.Float64() < service.regrets
				changed, err := transact(ctx, conn, service.step, back)
				switch {
				case err != nil || !changed:
				case back:
					rolledBack.Add(1)
				default:
					events.Add(1)
				}
				return err
			})
		})
	}
	err := group.Wait()
	if err == nil && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		return ledger{}, err
	}
	versions, err := s.versions(ctx)
	return ledger{events: int(events.Load()), rolledBack: int(rolledBack.Load()), versions: versions}, err
}

// serve calls work in the rhythm of pause until ctx ends.
func (s *shop) serve(ctx context.Context, pause time.Duration, work func(*pgx.Conn) error) error {
	conn, err := s.postgres.Connect(context.WithoutCancel(ctx), databaseName)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	clock := time.NewTicker(pause)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
			if err := work(conn); err != nil {
				return err
			}
		}
	}
}

// transact runs step in a transaction and rolls it back when the service regrets.
func transact(ctx context.Context, conn *pgx.Conn, step step, regret bool) (changed bool, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return false, err
	}
	changed, err = step(ctx, tx)
	if err != nil || regret || !changed {
		return changed, errors.Join(err, tx.Rollback(ctx))
	}
	return true, tx.Commit(ctx)
}

// place is the shop itself: a new order.
func place(ctx context.Context, tx pgx.Tx) (bool, error) {
	names := [...]string{"Ada", "Barbara", "Edsger", "Grace", "Jim", "Leslie", "Margaret", "Niklaus"}
	customer := names[rand.IntN(len(names))]
	total := fmt.Sprintf("%d.%02d", 5+rand.IntN(195), rand.IntN(100))
	var id int64
	err := tx.QueryRow(ctx, "INSERT INTO orders (customer, total, status) VALUES ($1, $2, 'placed') RETURNING id",
		customer, total).Scan(&id)
	if err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, insertEvent, id, "OrderPlaced", 1, customer, total)
	return true, err
}

// advance is a service that takes an order from one status to the next, such as
// payments and the warehouse.
func advance(from, to, event string) step {
	const update = `UPDATE orders SET status = $2, version = version + 1 WHERE id = (
		SELECT id FROM orders WHERE status = $1 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING id, version, customer, total::text`
	return func(ctx context.Context, tx pgx.Tx) (bool, error) {
		var id int64
		var version int
		var customer, total string
		err := tx.QueryRow(ctx, update, from, to).Scan(&id, &version, &customer, &total)
		if errors.Is(err, pgx.ErrNoRows) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		_, err = tx.Exec(ctx, insertEvent, id, event, version, customer, total)
		return true, err
	}
}

// versions reads what the services left behind.
func (s *shop) versions(ctx context.Context) (map[string]int, error) {
	conn, err := s.postgres.Connect(ctx, databaseName)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	rows, err := conn.Query(ctx, "SELECT id::text, version FROM orders")
	if err != nil {
		return nil, err
	}
	versions := map[string]int{}
	var id string
	var version int
	_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
		versions[id] = version
		return nil
	})
	return versions, err
}
