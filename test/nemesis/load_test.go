package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

const (
	aggregates = 300
	writers    = 4
)

// outcome is what a writer knows of its transaction.
type outcome int

const (
	ok      outcome = iota // the server said that it committed
	failed                 // it was rolled back, or COMMIT was never sent
	unknown                // the connection broke while COMMIT was on its way
)

// attempt is one transaction: who did what.
type attempt struct {
	outcome outcome
	events  int
}

// load is a service that keeps a number for each aggregate and raises it with every
// event, in the same transaction. So the events of an aggregate are 1, 2, 3 in commit
// order. Each payload carries the name of its transaction too, so that the checker
// can compare what a writer was told with what is on the topic.
type load struct {
	db     *servers.Database
	every  time.Duration // a writer begins a transaction
	still  sync.RWMutex  // held for reading by a transaction
	events atomic.Int64  // of transactions that are ok
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	history map[string]attempt
}

func newLoad(tb testing.TB, db *servers.Database, every time.Duration) *load {
	tb.Helper()
	db.Exec(tb, fmt.Sprintf(`create table aggregate (id text primary key, n bigint not null) with (fillfactor = 50);
		insert into aggregate select 'a-' || i, 0 from generate_series(1, %d) i`, aggregates))
	return &load{db: db, every: every, history: map[string]attempt{}}
}

// run starts the writers; they end with end.
func (l *load) run(seed *rand.Rand) {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for number := range writers {
		random := rand.New(rand.NewPCG(seed.Uint64(), 0))
		l.done.Go(func() { l.write(ctx, number, random) })
	}
}

func (l *load) end() {
	l.cancel()
	l.done.Wait()
}

// write writes until ctx ends, over as many connections as it takes.
func (l *load) write(ctx context.Context, writer int, random *rand.Rand) {
	clock := time.NewTicker(l.every)
	defer clock.Stop()
	var conn *pgx.Conn
	for number := 0; ctx.Err() == nil; number++ {
		select {
		case <-ctx.Done():
		case <-clock.C:
		}
		if conn == nil {
			conn = l.connect(ctx)
			continue
		}
		l.still.RLock()
		l.transact(conn, fmt.Sprintf("w%d-%d", writer, number), random)
		l.still.RUnlock()
		if conn.IsClosed() {
			conn = nil
		}
	}
	if conn != nil {
		conn.Close(context.Background()) //nolint:errcheck // nothing is owed to it
	}
}

func (l *load) connect(ctx context.Context) *pgx.Conn {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := l.db.Server.Connect(ctx, l.db.Name)
	if err != nil {
		return nil // the server is down: the next turn tries again
	}
	return conn
}

// transact does one transaction and notes what came of it. What the server answers
// to a COMMIT while it crashes says nothing: the commit may be in the log.
func (l *load) transact(conn *pgx.Conn, name string, random *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tx, err := conn.Begin(ctx)
	if err != nil {
		conn.Close(ctx) //nolint:errcheck // it is broken
		return
	}
	events, err := l.insert(ctx, tx, name, random)
	result := attempt{outcome: failed, events: events}
	switch {
	case err != nil || random.IntN(10) == 0:
		if tx.Rollback(ctx) != nil {
			conn.Close(ctx) //nolint:errcheck // it is broken
		}
	case tx.Commit(ctx) != nil:
		result.outcome = unknown
		conn.Close(ctx) //nolint:errcheck // it is broken
	default:
		result.outcome = ok
		l.events.Add(int64(events))
	}
	l.mu.Lock()
	l.history[name] = result
	l.mu.Unlock()
}

// insert writes events of one to five aggregates, in the order of their locks.
func (l *load) insert(ctx context.Context, tx pgx.Tx, name string, random *rand.Rand) (events int, err error) {
	ids := make([]string, 1+random.IntN(5))
	for i := range ids {
		ids[i] = fmt.Sprintf("a-%d", 1+random.IntN(aggregates))
	}
	slices.Sort(ids)
	each := 1 + random.IntN(3)
	if random.IntN(50) == 0 {
		each = 200
	}
	for _, id := range slices.Compact(ids) {
		tag, err := tx.Exec(ctx, `with locked as (update aggregate set n = n + $2 where id = $1 returning n)
			insert into outbox (aggregate_type, aggregate_id, event_type, payload)
			select 'order', $1, 'raised', jsonb_build_object('n', n - $2 + i, 'tx', $3::text)
			from locked, generate_series(1, $2) i order by i`, id, each, name)
		if err != nil {
			return events, err
		}
		events += int(tag.RowsAffected())
	}
	return events, nil
}

// pause waits for running transactions and lets none begin until resume is called.
func (l *load) pause() (resume func()) {
	l.still.Lock()
	return l.still.Unlock
}

// gap writes a few transactions while the writers pause.
func (l *load) gap(tb testing.TB, name string, random *rand.Rand) {
	tb.Helper()
	conn := l.db.Conn(tb)
	for i := range 5 {
		l.transact(conn, fmt.Sprintf("%s-%d", name, i), random)
	}
	conn.Close(context.Background()) //nolint:errcheck // nothing is owed to it
}
