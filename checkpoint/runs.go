package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/migrations"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Run is a replay: what was planned and how far it has come. What both mean is not
// known here.
type Run struct {
	ID       string
	Slot     string
	System   string          // of the cluster that it reads
	Plan     json.RawMessage // fixed when it begins
	Reached  json.RawMessage // null before anything was sent
	Sent     int64
	Finished bool
}

// Runs keeps replays in the table outboxcdc.replay of the database that the events
// come from, so that each goes on where it was, and for the record. One goroutine
// uses it at a time.
type Runs struct{ store *postgresStore }

// OpenRuns connects when it is first needed; Close lets go of it.
func OpenRuns(ctx context.Context, o Options) (*Runs, error) {
	kind, u, err := parse(defaultScheme)
	if err != nil {
		return nil, err
	}
	s, err := kind.open(ctx, u, o)
	if err != nil {
		return nil, err
	}
	return &Runs{store: s.(*postgresStore)}, nil //nolint:forcetypeassert // the scheme's own
}

// ErrNoRun is what Load gives for an identity that it does not know.
var ErrNoRun = errors.New("no such replay")

// Prepare makes the table when it is missing and the role may.
func (r *Runs) Prepare(ctx context.Context) error {
	_, err := r.Load(ctx, "")
	if errors.Is(err, errNoTable) {
		err = r.store.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			_, err := migrations.Apply(ctx, conn, migrations.Params{})
			return err
		})
	}
	if errors.Is(err, ErrNoRun) {
		err = nil
	}
	return err
}

// Load gives a run, or ErrNoRun.
func (r *Runs) Load(ctx context.Context, id string) (run Run, err error) {
	err = r.store.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		run = Run{ID: id}
		return conn.QueryRow(ctx, `SELECT slot, system, plan::text, reached::text, sent, finished_at IS NOT NULL
			FROM outboxcdc.replay WHERE id = $1::text`, id).
			Scan(&run.Slot, &run.System, (*[]byte)(&run.Plan), (*[]byte)(&run.Reached), &run.Sent, &run.Finished)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = fmt.Errorf("%w: %s", ErrNoRun, id)
	}
	return run, r.explain("read the replay", err)
}

// Begin records a run.
func (r *Runs) Begin(ctx context.Context, run Run) error {
	return r.explain("record the replay", r.store.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `INSERT INTO outboxcdc.replay (id, slot, system, plan, sent) VALUES ($1::text, $2::text, $3::text, $4::text::jsonb, 0)`,
			run.ID, run.Slot, run.System, string(run.Plan))
		return err
	}))
}

// Reach records how far a run has come. What is not recorded is sent again when it
// goes on, so this may be lost in a crash of the server.
func (r *Runs) Reach(ctx context.Context, run Run) error {
	return r.explain("record the replay", r.store.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `UPDATE outboxcdc.replay SET reached = $2::text::jsonb, sent = $3::bigint, updated_at = now(),
			finished_at = CASE WHEN $4::boolean THEN now() END WHERE id = $1::text`, run.ID, string(run.Reached), run.Sent, run.Finished)
		return err
	}))
}

// Close lets go of the database.
func (r *Runs) Close() error { return r.store.Close() }

// explain names the table where the store's own advice names others.
func (r *Runs) explain(doing string, err error) error {
	if err == nil || errors.Is(err, ErrNoRun) || errors.Is(err, errNoTable) {
		return err
	}
	if fault.Classify(err) == fault.Operator {
		return fault.NewOperator(fmt.Errorf("%s: %w", doing, err),
			"the role also needs SELECT, INSERT and UPDATE on outboxcdc.replay")
	}
	return fmt.Errorf("%s: %w", doing, err)
}
