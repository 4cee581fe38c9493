package wal

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Tables reads the outbox tables themselves rather than the log, over an ordinary
// connection with the stream's settings: a value has the same text as in a Row. It
// needs SELECT on the tables and nothing else. One goroutine uses it at a time.
type Tables struct {
	pg     *pgconn.PgConn
	config Config
}

// Bound limits a column of a table to a range, both ends included. The texts are
// what Postgres reads as values of the column's type; an empty one is no limit.
type Bound struct {
	Column   string
	From, To string
}

// OpenTables connects to the primary. Its errors are those of Connect.
func OpenTables(ctx context.Context, config Config) (*Tables, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	pg, _, err := connectPlain(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Tables{pg: pg, config: config}, nil
}

// Close says goodbye to the server.
func (t *Tables) Close(ctx context.Context) error { return hangUp(ctx, t.pg) }

// Freeze begins a snapshot, which Scan reads until Thaw, and gives a position of the
// log that no transaction in the snapshot ends behind. While it lasts, the server
// cannot clean up rows that were deleted since.
func (t *Tables) Freeze(ctx context.Context) (LSN, error) {
	if err := execute(ctx, t.pg, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return 0, fmt.Errorf("begin a snapshot: %w", err)
	}
	// The statement takes the snapshot before it calls the function, and a commit is
	// in the log before a snapshot sees it (xact.c, CommitTransaction: the record is
	// written first, ProcArrayEndTransaction comes after).
	at, ok, err := fetchOne[position](ctx, t.pg, "SELECT to_json(pg_current_wal_insert_lsn())::text")
	if err != nil || !ok {
		return 0, fmt.Errorf("ask for the end of the log: %w", err)
	}
	return LSN(at), nil
}

// Thaw ends the snapshot.
func (t *Tables) Thaw(ctx context.Context) error { return execute(ctx, t.pg, "COMMIT") }

// Scan calls visit for each row of a table, numbered as in Config.Tables, that lies
// within all bounds, in no particular order. The columns are those of the Table; nil
// is NULL, and so is a column that the table does not have. They are valid until
// visit returns; its error ends the scan.
func (t *Tables) Scan(ctx context.Context, table int, bounds []Bound, visit func(columns [][]byte) error) error {
	return t.Select(ctx, table, Selection{Bounds: bounds}, visit)
}

// Select is Scan for the rows of a selection, in its order.
func (t *Tables) Select(ctx context.Context, table int, selection Selection, visit func(columns [][]byte) error) error {
	target := t.config.Tables[table]
	has, err := t.columns(ctx, target)
	if err != nil {
		return err
	}
	sql, err := selectSQL(target, has, selection)
	if err != nil {
		return err
	}
	results := t.pg.Exec(ctx, sql)
	defer results.Close() //nolint:errcheck // asked for below; here it only ends an unfinished scan
	var stopped error
	for results.NextResult() {
		rows := results.ResultReader()
		for stopped == nil && rows.NextRow() {
			stopped = visit(rows.Values())
		}
		if stopped != nil {
			return stopped
		}
		if _, err := rows.Close(); err != nil {
			return fmt.Errorf("read table %s: %w", target.display(), t.readFault(target, err))
		}
	}
	if err := results.Close(); err != nil {
		return fmt.Errorf("read table %s: %w", target.display(), t.readFault(target, err))
	}
	return nil
}

// readFault says which privilege is missing; the rest is Fault's.
func (t *Tables) readFault(target Table, err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42501" { // insufficient_privilege
		return fault.NewOperator(err, fmt.Sprintf("GRANT SELECT ON %s TO the role of --database-url, and USAGE on its schema", target.quoted()))
	}
	return Fault(err)
}

// Shape is a table, numbered as in Config.Tables, as it is now.
func (t *Tables) Shape(ctx context.Context, table int) (*Shape, error) {
	target := t.config.Tables[table]
	facts, err := t.columnFacts(ctx, target)
	if err != nil {
		return nil, err
	}
	s := &Shape{Schema: target.Schema, Name: target.Name, Read: make([]int, len(target.Columns))}
	for _, c := range facts {
		s.Columns = append(s.Columns, ColumnShape{Name: c.Name, Type: c.OID, Modifier: c.Modifier, TypeName: c.Base})
	}
	for i, c := range target.Columns {
		s.Read[i] = indexOf(s.Columns, c.Name)
	}
	return s, nil
}

// columns are the names of a table's columns.
func (t *Tables) columns(ctx context.Context, target Table) (map[string]bool, error) {
	facts, err := t.columnFacts(ctx, target)
	if err != nil {
		return nil, err
	}
	has := make(map[string]bool, len(facts))
	for _, c := range facts {
		has[c.Name] = true
	}
	return has, nil
}

// columnFacts are a table's columns in its own order.
func (t *Tables) columnFacts(ctx context.Context, target Table) ([]columnFacts, error) {
	facts, err := fetch[columnFacts](ctx, t.pg, fmt.Sprintf(`SELECT json_build_object('name', a.attname,
		'type', format_type(a.atttypid, NULL), 'base', %s, 'generated', a.attgenerated, 'oid', a.atttypid::bigint, 'modifier', a.atttypmod)::text
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
		ORDER BY a.attnum`, baseTypeSQL,
		quoteText(target.Schema), quoteText(target.Name)))
	if err != nil {
		return nil, fmt.Errorf("read the columns of table %s: %w", target.display(), err)
	}
	if len(facts) == 0 {
		return nil, fault.NewOperator(fmt.Errorf("table %s does not exist", target.display()), "check --table and --database-url")
	}
	return facts, nil
}

func missingColumn(target Table, column string) error {
	return fault.NewOperator(fmt.Errorf("table %s has no column %s", target.display(), displayName(column)),
		"it is needed for what was asked; leave the range out, or add the column")
}

// Slot reads the state of the slot; ok is false when there is none of that name.
func (t *Tables) Slot(ctx context.Context) (slot Slot, ok bool, err error) {
	slot, ok, err = readSlot(ctx, t.pg, t.config.Slot)
	if err != nil {
		return Slot{}, false, fmt.Errorf("read slot %s: %w", t.config.Slot, err)
	}
	return slot, ok, nil
}

// Push writes log that belongs to nobody, so that a stream which is idle moves on
// over what was written before. Log without rows is confirmed in strides, and the
// one who waits for a position within a stride would wait for ever. It writes no
// table; the function may be called by everybody unless that was revoked.
func (t *Tables) Push(ctx context.Context) error {
	return execute(ctx, t.pg, fmt.Sprintf("SELECT pg_logical_emit_message(false, 'outboxcdc.push', repeat(' ', %d))", pushBytes))
}

// pushBytes is more than a stride of idle log.
const pushBytes = 80 << 10
