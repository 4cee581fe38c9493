package wal

import (
	"context"
	"fmt"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Names of columns of an outbox table that no event carries.
const (
	ColumnSeq         = "seq" // order of insertion
	ColumnTransaction = "xid" // xid8, the transaction that wrote the row
)

// Selection is a part of a table. Its zero value is all of it.
type Selection struct {
	// Seen and Unseen are texts of a pg_snapshot: rows of transactions that are visible
	// in the first and not in the second. Empty does not limit. Both go by
	// ColumnTransaction, whatever the connection's own snapshot shows.
	Seen, Unseen string

	Bounds []Bound

	// Ordered asks for the order of ColumnSeq, and After for rows behind one of its
	// values. A table without that column has no order and cannot be limited so.
	Ordered bool
	After   string
}

// selectSQL refuses a table that lacks a column that must be there or is asked for
// in the selection.
func selectSQL(target Table, has map[string]bool, selection Selection) (string, error) {
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, column := range target.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		switch {
		case has[column.Name]:
			b.WriteString(quoteName(column.Name))
		case column.Required:
			return "", missingColumn(target, column.Name)
		default:
			b.WriteString("NULL")
		}
	}
	b.WriteString(" FROM " + target.quoted() + " WHERE true")
	for _, c := range selection.conditions() {
		if !has[c.column] {
			return "", missingColumn(target, c.column)
		}
		b.WriteString(" AND " + c.sql)
	}
	if selection.Ordered && has[ColumnSeq] {
		b.WriteString(" ORDER BY " + quoteName(ColumnSeq))
	}
	return b.String(), nil
}

// condition is a part of a WHERE and the column that it is about.
type condition struct{ column, sql string }

func (s Selection) conditions() []condition {
	var all []condition
	if s.Seen != "" {
		all = append(all, condition{ColumnTransaction, visible(s.Seen)})
	}
	if s.Unseen != "" {
		all = append(all, condition{ColumnTransaction, "NOT " + visible(s.Unseen)})
	}
	for _, bound := range s.Bounds {
		for _, end := range []struct{ operator, value string }{{">=", bound.From}, {"<=", bound.To}} {
			if end.value != "" {
				all = append(all, condition{bound.Column, quoteName(bound.Column) + " " + end.operator + " " + quoteText(end.value)})
			}
		}
	}
	if s.After != "" {
		all = append(all, condition{ColumnSeq, quoteName(ColumnSeq) + " > " + quoteText(s.After)})
	}
	return all
}

func visible(snapshot string) string {
	return fmt.Sprintf("pg_visible_in_snapshot(%s, %s::pg_snapshot)", quoteName(ColumnTransaction), quoteText(snapshot))
}

// Tables gives the tables as this connection's transaction sees them. They are closed
// with the connection.
func (c *Conn) Tables() *Tables { return &Tables{pg: c.pg, config: c.config} }

// TablesOf is Tables with other columns or tables than the connection was made for.
func (c *Conn) TablesOf(config Config) *Tables { return &Tables{pg: c.pg, config: config} }

// Count is how many rows Select would give.
func (t *Tables) Count(ctx context.Context, table int, selection Selection) (int64, error) {
	target := t.config.Tables[table]
	has, err := t.columns(ctx, target)
	if err != nil {
		return 0, err
	}
	selection.Ordered = false
	sql, err := selectSQL(target, has, selection)
	if err != nil {
		return 0, err
	}
	n, _, err := fetchOne[int64](ctx, t.pg, "SELECT to_json(count(*))::text FROM ("+sql+") t")
	if err != nil {
		return 0, fmt.Errorf("count the rows of table %s: %w", target.display(), t.readFault(target, err))
	}
	return n, nil
}

// Traceable gives an operator error for tables whose rows do not tell which
// transaction wrote them, so that nobody can tell which of them were delivered.
func (t *Tables) Traceable(ctx context.Context) error {
	for _, target := range t.config.Tables {
		ok, _, err := fetchOne[bool](ctx, t.pg, fmt.Sprintf(`SELECT to_json(EXISTS (SELECT
			FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = %s AND c.relname = %s AND a.attname = %s AND a.atttypid = 'xid8'::regtype
				AND NOT a.attisdropped))::text`, quoteText(target.Schema), quoteText(target.Name), quoteText(ColumnTransaction)))
		if err != nil {
			return fmt.Errorf("look at table %s: %w", target.display(), err)
		}
		if !ok {
			return fault.NewOperator(
				fmt.Errorf("table %s has no column xid of type xid8, so its rows do not tell which of them were sent", target.display()),
				fmt.Sprintf("for the next time: ALTER TABLE %s ADD COLUMN xid xid8 DEFAULT pg_current_xact_id() (which rewrites it)", target.quoted()))
		}
	}
	return nil
}

// Reaches says whether the numbers of transactions have come as far as a snapshot.
func (c *Conn) Reaches(ctx context.Context, snapshot string) (bool, error) {
	reached, _, err := fetchOne[bool](ctx, c.pg, "SELECT to_json(pg_snapshot_xmax(pg_current_snapshot()) >= pg_snapshot_xmax("+quoteText(snapshot)+"::pg_snapshot))::text")
	if err != nil {
		return false, fmt.Errorf("compare the snapshot of what was delivered: %w", err)
	}
	return reached, nil
}

// Untold are the tables with rows that do not tell which transaction wrote them: those from
// before the column was added, or that were written with a NULL. No Selection by snapshots
// has them.
func (t *Tables) Untold(ctx context.Context) (untold []Table, err error) {
	for _, target := range t.config.Tables {
		// A column that is NOT NULL spares the reading of the table.
		nullable, _, err := fetchOne[bool](ctx, t.pg, fmt.Sprintf(`SELECT to_json(EXISTS (SELECT
			FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attname = %s AND NOT a.attnotnull AND NOT a.attisdropped))::text`,
			quoteText(target.quoted()), quoteText(ColumnTransaction)))
		if err == nil && nullable {
			nullable, _, err = fetchOne[bool](ctx, t.pg, fmt.Sprintf("SELECT to_json(EXISTS (SELECT FROM %s WHERE %s IS NULL))::text",
				target.quoted(), quoteName(ColumnTransaction)))
		}
		if err != nil {
			return nil, fmt.Errorf("look for rows of table %s without %s: %w", target.display(), ColumnTransaction, t.readFault(target, err))
		}
		if nullable {
			untold = append(untold, target)
		}
	}
	return untold, nil
}

// Snapshot is the database as its transactions see it now, as a pg_snapshot, and a
// position that no transaction in it ends behind.
func (t *Tables) Snapshot(ctx context.Context) (snapshot string, at LSN, err error) {
	type now struct {
		Snapshot string   `json:"snapshot"`
		At       position `json:"at"`
	}
	// One statement takes its snapshot before it calls a function; see Freeze.
	n, ok, err := fetchOne[now](ctx, t.pg,
		`SELECT row_to_json(t)::text FROM (SELECT pg_current_snapshot()::text AS snapshot, pg_current_wal_insert_lsn() AS at) t`)
	if err != nil || !ok {
		return "", 0, fmt.Errorf("take a snapshot: %w", err)
	}
	return n.Snapshot, LSN(n.At), nil
}
