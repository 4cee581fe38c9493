package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// workload is a service under load. It keeps one business row for each aggregate
// with the number of its last event; whoever writes an event raises that number in
// the same transaction and holds the row's lock until the commit. So the numbers
// of an aggregate's events are 1, 2, 3 in commit order, with no number for what was
// rolled back, and the table itself says what the topic must hold.
type workload struct {
	db         *servers.Database
	table      string
	aggregates int
	written    atomic.Int64
	seed       uint64
}

func newWorkload(tb testing.TB, db *servers.Database, table string, aggregates int) *workload {
	tb.Helper()
	sql := db.Server.Conn(tb, db.Name)
	for _, statement := range []string{
		"create table aggregate (id text primary key, n bigint not null) with (fillfactor = 50)",
		fmt.Sprintf("insert into aggregate select 'a-' || i, 0 from generate_series(1, %d) i", aggregates),
	} {
		if _, err := sql.Exec(walContext(tb), statement); err != nil {
			tb.Fatalf("%s: %v", statement, err)
		}
	}
	return &workload{db: db, table: table, aggregates: aggregates, seed: 1}
}

// write commits at least this many events from several writers, and ends early
// with ctx.
func (w *workload) write(ctx context.Context, events int64, writers int) error {
	goal := w.written.Load() + events
	group, ctx := errgroup.WithContext(ctx)
	for range writers {
		w.seed++
		random := rand.New(rand.NewPCG(w.seed, 3))
		group.Go(func() error {
			conn, err := w.db.Server.Connect(ctx, w.db.Name)
			if err != nil {
				return err
			}
			defer conn.Close(context.Background()) //nolint:errcheck // the server goes with the test
			for w.written.Load() < goal && ctx.Err() == nil {
				if err := w.transaction(ctx, conn, random); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// random is the source of choices of one writer.
func (w *workload) random(writer uint64) *rand.Rand { return rand.New(rand.NewPCG(w.seed, writer)) }

var errChangedMind = errors.New("the service changed its mind")

// transaction writes in one of the shapes in which services write.
func (w *workload) transaction(ctx context.Context, conn *pgx.Conn, random *rand.Rand) error {
	shape := random.IntN(10)
	var written int64
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var err error
		switch {
		case shape < 4:
			written, err = w.insert(ctx, tx, w.pick(random, 1), 1)
		case shape < 7:
			written, err = w.insert(ctx, tx, w.pick(random, 2+random.IntN(10)), 1+random.IntN(4))
		case shape == 7:
			written, err = w.copyIn(ctx, tx, w.pick(random, 1)[0], 20+random.IntN(300))
		case shape == 8:
			written, err = w.savepoints(ctx, tx, random)
		default:
			if _, err = w.insert(ctx, tx, w.pick(random, 3), 2); err == nil {
				err = errChangedMind
			}
		}
		return err
	})
	if errors.Is(err, errChangedMind) {
		return nil
	}
	if err == nil {
		w.written.Add(written)
	}
	return err
}

// pick gives aggregates in the order of their locks.
func (w *workload) pick(random *rand.Rand, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = "a-" + strconv.Itoa(1+random.IntN(w.aggregates))
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// insert writes each events for every aggregate, one statement an aggregate.
func (w *workload) insert(ctx context.Context, tx pgx.Tx, ids []string, each int) (int64, error) {
	var written int64
	for _, id := range ids {
		tag, err := tx.Exec(ctx, `with locked as (update aggregate set n = n + $2 where id = $1 returning n)
			insert into `+w.table+` (aggregate_type, aggregate_id, event_type, payload, headers)
			select 'order', $1, 'raised', jsonb_build_object('n', n - $2 + i), '{"origin": "workload"}'
			from locked, generate_series(1, $2) i order by i`, id, each)
		if err != nil {
			return 0, err
		}
		written += tag.RowsAffected()
	}
	return written, nil
}

func (w *workload) copyIn(ctx context.Context, tx pgx.Tx, id string, rows int) (int64, error) {
	var last int64
	if err := tx.QueryRow(ctx, "update aggregate set n = n + $2 where id = $1 returning n", id, rows).Scan(&last); err != nil {
		return 0, err
	}
	return tx.CopyFrom(ctx, pgx.Identifier{w.table}, []string{"aggregate_type", "aggregate_id", "event_type", "payload"},
		pgx.CopyFromSlice(rows, func(i int) ([]any, error) {
			return []any{"order", id, "copied", map[string]int64{"n": last - int64(rows) + 1 + int64(i)}}, nil
		}))
}

// savepoints keeps every other one of its steps.
func (w *workload) savepoints(ctx context.Context, tx pgx.Tx, random *rand.Rand) (int64, error) {
	var written int64
	for i, id := range w.pick(random, 8) {
		err := pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			n, err := w.insert(ctx, inner, []string{id}, 1+i%3)
			if err == nil && i%2 == 1 {
				return errChangedMind
			}
			written += n
			return err
		})
		if err != nil && !errors.Is(err, errChangedMind) {
			return 0, err
		}
	}
	return written, nil
}

// last gives the number of each aggregate's last committed event.
func (w *workload) last(tb testing.TB) map[string]int64 {
	tb.Helper()
	rows, err := w.db.Server.Conn(tb, w.db.Name).Query(walContext(tb), "select id, n from aggregate where n > 0")
	if err != nil {
		tb.Fatal(err)
	}
	last := map[string]int64{}
	var id string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error { last[id] = n; return nil }); err != nil {
		tb.Fatal(err)
	}
	return last
}

// neighbour loads another database of the same server until stop is called: log
// that the slot is not interested in.
func neighbour(tb testing.TB, server *servers.PostgresServer) (stop func()) {
	tb.Helper()
	db := server.Database(tb)
	sql := server.Conn(tb, db.Name)
	if _, err := sql.Exec(walContext(tb), "create table noise (id bigint generated always as identity, text text)"); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	working.Go(func() {
		for ctx.Err() == nil {
			if _, err := sql.Exec(ctx, "insert into noise (text) select repeat('x', 500) from generate_series(1, 200)"); err != nil && ctx.Err() == nil {
				tb.Errorf("the neighbour: %v", err)
				return
			}
		}
	})
	return func() { cancel(); working.Wait() }
}
