package wal

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Parked counts what is parked for the slot, without the lock of a stream; nothing when
// there is no table for it, or the role may not read it.
func (c *Conn) Parked(ctx context.Context) (ParkedCount, error) {
	count, err := countParked(ctx, c.pg, NewParking(c.config, "").ours())
	return count.ParkedCount, err
}

// AsidePlaces are where rows stand in the log of this cluster that are parked, or were
// dropped within some days.
func (c *Conn) AsidePlaces(ctx context.Context, system string) (map[Place]bool, error) {
	readable, err := parkedReadable(ctx, c.pg)
	if err != nil || !readable {
		return nil, err
	}
	type form struct {
		Commit position `json:"commit_lsn"`
		Index  int      `json:"index"`
	}
	all, err := fetch[form](ctx, c.pg, "SELECT row_to_json(p)::text FROM (SELECT commit_lsn, index FROM outboxcdc.parked WHERE "+
		NewParking(c.config, system).here()+" AND state <> '"+ParkedSent+"') p")
	places := make(map[Place]bool, len(all))
	for _, f := range all {
		places[Place{LSN(f.Commit), f.Index}] = true
	}
	return places, err
}

// ParkedCount is how much is parked.
type ParkedCount struct {
	Rows       int `json:"rows"`
	Aggregates int `json:"aggregates"`
	Bytes      int `json:"bytes"`
}

// readableSQL says whether the table of parked rows is there for the role. The catalog
// answers a role that has no right on the schema.
const readableSQL = `SELECT to_json(coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, '%s')), false))::text
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'outboxcdc' AND c.relname = 'parked'`

// AsideRow is a row that was put aside instead of being sent.
type AsideRow struct {
	Event   []byte // its id
	Dropped bool   // somebody asked for that; else it is parked
}

// Aside gives the rows with an id that are parked for the slot, and those that were
// dropped within some days. told is false where the role may not know.
func (t *Tables) Aside(ctx context.Context) (rows []AsideRow, told bool, err error) {
	there, _, err := fetchOne[bool](ctx, t.pg, parkedThereSQL)
	if err != nil || !there {
		return nil, err == nil, err
	}
	readable, err := parkedReadable(ctx, t.pg)
	if err != nil || !readable {
		return nil, false, err
	}
	type form struct {
		Event   hexBytes `json:"event_id"`
		Dropped bool     `json:"dropped"`
	}
	all, err := fetch[form](ctx, t.pg, "SELECT row_to_json(a)::text FROM (SELECT event_id, state = '"+ParkedDropped+"' AS dropped FROM outboxcdc.parked "+
		"WHERE slot = "+quoteText(t.config.Slot)+" AND event_id IS NOT NULL AND state <> '"+ParkedSent+"') a")
	for _, f := range all {
		rows = append(rows, AsideRow{Event: f.Event, Dropped: f.Dropped})
	}
	return rows, err == nil, err
}

// parkedThereSQL says whether there is a table of parked rows, to anybody.
const parkedThereSQL = `SELECT to_json(EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'outboxcdc' AND c.relname = 'parked'))::text`

// parkedReadable says whether there is a table of parked rows that the role may read.
func parkedReadable(ctx context.Context, pg *pgconn.PgConn) (bool, error) {
	readable, _, err := fetchOne[bool](ctx, pg, fmt.Sprintf(readableSQL, "SELECT"))
	return readable, err
}

// parkedCount is of one moment: what is asked for is not done before it is counted.
type parkedCount struct {
	ParkedCount

	Asked int `json:"asked"` // rows of which something is asked
}

func countParked(ctx context.Context, pg *pgconn.PgConn, ours string) (count parkedCount, err error) {
	readable, err := parkedReadable(ctx, pg)
	if err != nil || !readable {
		return count, err
	}
	count, _, err = fetchOne[parkedCount](ctx, pg, "SELECT row_to_json(p)::text FROM (SELECT count(*) AS rows, count(DISTINCT aggregate) AS aggregates, "+
		"coalesce(sum(bytes), 0)::bigint AS bytes, count(asked) AS asked FROM outboxcdc.parked WHERE "+ours+" AND state = 'parked') p")
	return count, err
}

// CheckParking gives a failure when rows cannot be parked.
func (c *Conn) CheckParking(ctx context.Context) (fault.Finding, error) {
	f := fault.Finding{Code: "parked.table", Subject: "table outboxcdc.parked", Problem: "rows can be parked"}
	able, _, err := fetchOne[bool](ctx, c.pg, fmt.Sprintf(readableSQL, "SELECT, INSERT, UPDATE, DELETE"))
	if err == nil && !able {
		f.Severity, f.Problem = fault.Failure, "it is missing, or the role may not use it, and --on-error is park"
		f.Fix = "run `outboxcdc init`; then " + parkingGrant
	}
	return f, err
}

// ParkedFilter chooses among parked rows; the zero value chooses all.
type ParkedFilter struct {
	Type, ID *string // of the aggregate
	Place    *Place
}

// where is SQL for the parked rows that the filter chooses.
func (p *Parking) where(f ParkedFilter) string {
	conditions := []string{p.ours(), "state = 'parked'"}
	if f.Type != nil {
		conditions = append(conditions, "aggregate_type = "+quoteBytes([]byte(*f.Type)))
	}
	if f.ID != nil {
		conditions = append(conditions, "aggregate_id = "+quoteBytes([]byte(*f.ID)))
	}
	if f.Place != nil {
		conditions = append(conditions, fmt.Sprintf("(commit_lsn, index) = (%s, %d)", quoteLSN(f.Place.Commit), f.Place.Index))
	}
	return strings.Join(conditions, " AND ")
}

// List gives parked rows without their columns, in the order of the log, at most limit.
func (p *Parking) List(ctx context.Context, f ParkedFilter, limit int) ([]ParkedRow, error) {
	return p.choose(ctx, f, limit, "ARRAY[]::text[] AS column_names, ARRAY[]::bytea[] AS columns, NULL AS shape")
}

// Show gives parked rows with all that they hold, in the order of the log, at most limit.
func (p *Parking) Show(ctx context.Context, f ParkedFilter, limit int) ([]ParkedRow, error) {
	return p.choose(ctx, f, limit, "column_names, columns, shape")
}

func (p *Parking) choose(ctx context.Context, f ParkedFilter, limit int, columns string) (rows []ParkedRow, err error) {
	sql := fmt.Sprintf("SELECT row_to_json(r)::text FROM (SELECT %s FROM outboxcdc.parked q WHERE %s ORDER BY q.commit_lsn, q.index LIMIT %d) r",
		strings.Replace(parkedSQL, "column_names, columns, shape", columns, 1), p.where(f), limit)
	err = p.use(ctx, "read parked rows", func(ctx context.Context) error {
		rows, err = p.fetchRows(ctx, sql)
		return err
	})
	return rows, err
}

// AskRetry asks that the aggregates of the rows that a filter chooses are sent, all that
// is parked of them and in order, and gives how many rows that are. A row that is to be
// dropped stays so.
func (p *Parking) AskRetry(ctx context.Context, f ParkedFilter) (rows int64, err error) {
	return p.change(ctx, "ask for a retry", fmt.Sprintf("UPDATE outboxcdc.parked SET asked = '%s' WHERE %s AND state = 'parked' AND asked IS DISTINCT FROM '%s' "+
		"AND aggregate IN (SELECT aggregate FROM outboxcdc.parked WHERE %s)", AskRetry, p.ours(), AskDrop, p.where(f)))
}

// AskDrop asks that the rows that a filter chooses are dropped, and gives how many they
// are.
func (p *Parking) AskDrop(ctx context.Context, f ParkedFilter) (rows int64, err error) {
	return p.change(ctx, "ask for a drop", "UPDATE outboxcdc.parked SET asked = '"+AskDrop+"' WHERE "+p.where(f))
}

// DropAsked drops all rows that are to be dropped, where no stream can, and says how many
// they were.
func (p *Parking) DropAsked(ctx context.Context) (rows int64, err error) {
	return p.change(ctx, "drop parked rows", "UPDATE outboxcdc.parked SET state = '"+ParkedDropped+"', asked = NULL, settled_at = clock_timestamp() WHERE "+
		p.ours()+" AND state = 'parked' AND asked = '"+AskDrop+"'")
}

// Count counts what is parked, and of how many of those rows something is asked.
func (p *Parking) Count(ctx context.Context) (count ParkedCount, asked int, err error) {
	var both parkedCount
	err = p.use(ctx, "count the parked rows", func(ctx context.Context) error {
		both, err = countParked(ctx, p.pg, p.ours())
		return err
	})
	return both.ParkedCount, both.Asked, err
}

// ParsePlace reads a position as events carry it.
func ParsePlace(text string) (Place, error) {
	var commit uint64
	var p Place
	_, err := fmt.Sscanf(text, "%16X/%d", &commit, &p.Index)
	p.Commit = LSN(commit)
	if err != nil || p.String() != text {
		return Place{}, fault.NewUsage(fmt.Errorf("%q is no position of an event", text), "copy one from `outboxcdc dlq list` or a header outboxcdc-position")
	}
	return p, nil
}
