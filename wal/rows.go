package wal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// createdColumn holds when a row was written.
const createdColumn = "created_at"

// Delivered says of a row by its transaction whether the broker holds it. The texts
// are those of pg_snapshot.
type Delivered struct {
	Snapshot string    // what is visible in it is delivered, unless it is unsure; not empty
	Unsure   []Between // rows that may never have been sent
}

// Between names the transactions that are visible in After and not in Before. An empty
// Before shows nothing, an empty After everything.
type Between struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

// unsure is SQL for rows that may never have been sent.
func (d Delivered) unsure() string {
	ranges := []string{ColumnTransaction + " IS NULL"}
	for _, b := range d.Unsure {
		after, before := "true", "false"
		if b.After != "" {
			after = visible(b.After)
		}
		if b.Before != "" {
			before = visible(b.Before)
		}
		ranges = append(ranges, "("+after+" AND NOT "+before+")")
	}
	return "(" + strings.Join(ranges, " OR ") + ")"
}

// sent is SQL for rows that the broker holds for sure.
func (d Delivered) sent() string { return "(NOT " + d.unsure() + " AND " + visible(d.Snapshot) + ")" }

// pending is SQL for rows that the broker may not hold yet. What is older than a
// snapshot's beginning is visible in it; to say so changes nothing, but lets an index on
// xid, where somebody made one, find these rows without the table being read.
func (d Delivered) pending() string {
	return "(" + ColumnTransaction + " >= pg_snapshot_xmin(" + quoteText(d.Snapshot) + "::pg_snapshot) AND NOT " + visible(d.Snapshot) + " AND NOT " + d.unsure() + ")"
}

// Unsure reads from our own schema which rows of a table, numbered as in
// Config.Tables, may never have been sent. The error is ErrNotSetUp when it is not
// there, and names the table when nobody registered it.
func (t *Tables) Unsure(ctx context.Context, table int) ([]Between, error) {
	target := t.config.Tables[table]
	name := fmt.Sprintf("%s, %s, %s", quoteText(t.config.Slot), quoteText(target.Schema), quoteText(target.Name))
	registered, _, err := fetchOne[bool](ctx, t.pg,
		"SELECT to_json(EXISTS (SELECT FROM outboxcdc.outbox_table WHERE (slot, table_schema, table_name) = ("+name+")))::text")
	if err != nil {
		return nil, fmt.Errorf("read which rows of table %s were sent: %w", target.display(), setUpFault(err))
	}
	if !registered {
		return nil, fault.NewOperator(fmt.Errorf("slot %s is not known to stream table %s", t.config.Slot, target.display()),
			"run outboxcdc init, or start the stream once")
	}
	all, err := fetch[Between](ctx, t.pg, "SELECT row_to_json(u)::text FROM (SELECT coalesce(before::text, '') AS before, coalesce(after::text, '') AS after "+
		"FROM outboxcdc.unsure_between("+name+")) u")
	if err != nil {
		return nil, fmt.Errorf("read which rows of table %s were sent: %w", target.display(), setUpFault(err))
	}
	return all, nil
}

// Traced says whether rows of a table tell which transaction wrote them: without a
// column xid of type xid8 nobody can say which of them were sent.
func (t *Tables) Traced(ctx context.Context, table int) (bool, error) {
	target := t.config.Tables[table]
	traced, err := t.hasColumn(ctx, target, ColumnTransaction, "xid8")
	if err != nil || traced {
		return traced, err
	}
	_, err = t.columns(ctx, target) // or there is no such table at all
	return false, err
}

func (t *Tables) hasColumn(ctx context.Context, target Table, name string, types ...string) (bool, error) {
	quoted := make([]string, len(types))
	for i, typ := range types {
		quoted[i] = quoteText(typ) + "::regtype"
	}
	found, _, err := fetchOne[bool](ctx, t.pg, fmt.Sprintf(`SELECT to_json(EXISTS (SELECT FROM pg_attribute a
		JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = %s AND c.relname = %s AND a.attname = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN (%s)))::text`,
		quoteText(target.Schema), quoteText(target.Name), quoteText(name), strings.Join(quoted, ", ")))
	if err != nil {
		return false, fmt.Errorf("read the columns of table %s: %w", target.display(), err)
	}
	return found, nil
}

// Pending is what the broker may not hold yet.
type Pending struct {
	Rows   int64
	Oldest time.Duration // age of the oldest of them by created_at; 0 when there is none, or no such column
}

// Pending counts the rows of a table that the broker may not hold yet. It reads the
// whole table where xid has no index; within bounds the time that this may take.
func (t *Tables) Pending(ctx context.Context, table int, d Delivered, within time.Duration) (Pending, error) {
	target := t.config.Tables[table]
	aged, err := t.hasColumn(ctx, target, createdColumn, "timestamp", "timestamptz")
	if err != nil {
		return Pending{}, err
	}
	oldest := "0"
	if aged {
		oldest = "greatest(0, coalesce(extract(epoch FROM clock_timestamp() - min(" + createdColumn + ")), 0))"
	}
	type row struct {
		Rows    int64   `json:"rows"`
		Seconds float64 `json:"seconds"`
	}
	one, _, err := fetchOne[row](ctx, t.pg, fmt.Sprintf("SET statement_timeout = %d; SELECT row_to_json(p)::text FROM "+
		"(SELECT count(*) AS rows, %s AS seconds FROM %s WHERE %s) p", within.Milliseconds(), oldest, target.quoted(), d.pending()))
	reset := execute(ctx, t.pg, "SET statement_timeout = 0")
	if err != nil {
		return Pending{}, fmt.Errorf("count the rows of table %s that are pending: %w", target.display(), t.readFault(target, err))
	}
	return Pending{one.Rows, time.Duration(one.Seconds * float64(time.Second))}, reset
}

// TookTooLong says whether a statement ended because of its bound in time.
func TookTooLong(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	return ok && server.Code == "57014" // query_canceled
}
