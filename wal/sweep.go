package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// sweepPages is how many pages one statement goes over, of all partitions together: some
// thousand rows, and a transaction of milliseconds.
const sweepPages = 128

// Sweep says what is to become of rows that the broker holds.
type Sweep struct {
	Delivered Delivered

	// OlderThan leaves rows alone that were written since, by created_at; 0 takes all.
	OlderThan time.Duration

	// Mark is a column of text that is set to SENT; empty means that rows are deleted.
	Mark string

	// DropPartitions drops a partition whole when its range of created_at ended so long
	// ago and every row of it may go.
	DropPartitions bool
}

// Swept is what a Sweep did.
type Swept struct {
	Rows       int64    // deleted or marked, without those of dropped partitions
	Partitions []string // that were dropped
}

// Sweep goes over a table once, in its order on disk, some pages a transaction. What it
// does not finish a later one does. The table needs a column xid of type xid8.
func (t *Tables) Sweep(ctx context.Context, table int, s Sweep) (done Swept, err error) {
	target := t.config.Tables[table]
	if err := t.sweepable(ctx, table, s); err != nil {
		return done, err
	}
	leaves, err := t.leaves(ctx, target)
	if err != nil {
		return done, err
	}
	var left []leaf
	for _, leaf := range leaves {
		dropped := false
		if s.DropPartitions && leaf.Partition {
			if dropped, err = t.dropPartition(ctx, leaf, s); err != nil {
				return done, t.sweepFault(target, s, err)
			}
		}
		if dropped {
			done.Partitions = append(done.Partitions, leaf.table().display())
		} else {
			left = append(left, leaf)
		}
	}
	if done.Rows, err = t.sweepLeaves(ctx, target, left, s); err != nil {
		return done, t.sweepFault(target, s, err)
	}
	return done, nil
}

// sweepable refuses a table of which nobody can say what was sent, or when.
func (t *Tables) sweepable(ctx context.Context, table int, s Sweep) error {
	target := t.config.Tables[table]
	needs := []struct {
		name  string
		types []string
		asked bool
		why   string
	}{
		{ColumnTransaction, []string{"xid8"}, true, "a column xid of type xid8, so nobody can tell which rows were sent"},
		{createdColumn, []string{"timestamp", "timestamptz"}, s.OlderThan > 0, "a column created_at, so nobody can tell how old rows are"},
		{s.Mark, []string{"text", "varchar"}, s.Mark != "", "a column " + displayName(s.Mark) + " of type text to mark"},
	}
	for _, n := range needs {
		if !n.asked {
			continue
		}
		has, err := t.hasColumn(ctx, target, n.name, n.types...)
		if err != nil {
			return err
		}
		if !has {
			return fault.NewOperator(fmt.Errorf("table %s has not %s", target.display(), n.why),
				"add the column; for transactions: ALTER TABLE "+target.quoted()+" ADD COLUMN xid xid8, and then SET DEFAULT pg_current_xact_id()")
		}
	}
	return t.staysInPlace(ctx, target, s.Mark)
}

// staysInPlace refuses a mark that would move rows from one partition to another: the log
// has such a move as an insert, and the row would be sent again. What a partition key is
// made of depends on its table from within (catalog/heap.c, StorePartitionKey).
func (t *Tables) staysInPlace(ctx context.Context, target Table, mark string) error {
	if mark == "" {
		return nil
	}
	moves, _, err := fetchOne[bool](ctx, t.pg, fmt.Sprintf(`SELECT to_json(EXISTS (SELECT FROM pg_partition_tree(%s::regclass) p
		JOIN pg_depend d ON d.objid = p.relid AND d.refobjid = p.relid AND d.refobjsubid = 0 AND d.deptype = 'i'
			AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
		JOIN pg_attribute a ON a.attrelid = p.relid AND a.attnum = d.objsubid WHERE a.attname = %s))::text`, quoteText(target.quoted()), quoteText(mark)))
	if err != nil {
		return fmt.Errorf("look how table %s is partitioned: %w", target.display(), err)
	}
	if moves {
		return fault.NewOperator(fmt.Errorf("table %s is partitioned by %s: to mark a row would move it, and it would be sent again", target.display(), displayName(mark)),
			"mark another column, or let prune or --delete-sent remove the rows")
	}
	return nil
}

// leaf is a table that holds rows itself.
type leaf struct {
	Schema    string `json:"schema"`
	Name      string `json:"name"`
	OID       uint32 `json:"oid"`
	Pages     int64  `json:"pages"`
	Partition bool   `json:"partition"`
	Ended     string `json:"ended"` // where its range of created_at ends, when that is what it is partitioned by
}

func (l leaf) table() Table { return Table{Schema: l.Schema, Name: l.Name} }

func (t *Tables) leaves(ctx context.Context, target Table) ([]leaf, error) {
	all, err := fetch[leaf](ctx, t.pg, fmt.Sprintf(`SELECT row_to_json(l)::text FROM (
		SELECT n.nspname AS schema, c.relname AS name, c.oid::bigint AS oid, c.relispartition AS partition,
			pg_relation_size(c.oid) / current_setting('block_size')::bigint AS pages,
			coalesce(CASE WHEN pg_get_partkeydef(i.inhparent) = 'RANGE (%s)'
				THEN substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']*)''\)') END, '') AS ended
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
		WHERE c.relkind = 'r' AND (c.oid = %s::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree(%[2]s::regclass) WHERE isleaf))
		ORDER BY c.oid) l`, createdColumn, quoteText(target.quoted())))
	if err != nil {
		return nil, fmt.Errorf("look for the partitions of table %s: %w", target.display(), err)
	}
	return all, nil
}

// goes is SQL for the rows that the sweep is for.
func (s Sweep) goes() string {
	sql := s.Delivered.sent()
	if s.OlderThan > 0 {
		sql += fmt.Sprintf(" AND %s < now() - %s", createdColumn, interval(s.OlderThan))
	}
	if s.Mark != "" {
		sql += " AND " + quoteName(s.Mark) + " IS DISTINCT FROM 'SENT'"
	}
	return "(" + sql + ")"
}

// interval is SQL for a duration. Version 14 reads no interval of more than 2^31
// microseconds, which is half an hour, and multiplies to any.
func interval(d time.Duration) string {
	return fmt.Sprintf("%d * interval '1 microsecond'", d.Microseconds())
}

// sweepLeaves walks by ranges of pages, which the server reads alone (TID range scan,
// since version 14). It names the table and not its partitions, whose rights are their
// own: one that is made tomorrow has no grants. So a range is of all partitions that
// reach so far; each page is read once.
func (t *Tables) sweepLeaves(ctx context.Context, target Table, leaves []leaf, s Sweep) (rows int64, err error) {
	name := target.quoted()
	if len(leaves) == 1 && leaves[0].Schema == target.Schema && leaves[0].Name == target.Name {
		name = "ONLY " + name // what inherits from it the way of old is not published with it
	}
	change := "DELETE FROM " + name
	if s.Mark != "" {
		change = "UPDATE " + name + " SET " + quoteName(s.Mark) + " = 'SENT'"
	}
	oids := make([]string, len(leaves))
	for i, l := range leaves {
		oids[i] = strconv.FormatUint(uint64(l.OID), 10)
	}
	for page := int64(0); ; {
		reach := int64(0)
		for _, l := range leaves {
			if l.Pages > page {
				reach++
			}
		}
		if reach == 0 {
			return rows, nil
		}
		width := max(1, sweepPages/reach)
		// A partition on another server is none of the leaves.
		results, err := t.pg.Exec(ctx, fmt.Sprintf("%s WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)' AND tableoid = ANY ('{%s}') AND %s",
			change, page, page+width, strings.Join(oids, ","), s.goes())).ReadAll()
		if err != nil {
			return rows, err
		}
		for _, r := range results {
			rows += r.CommandTag.RowsAffected()
		}
		page += width
	}
}

// dropPartition drops a partition that gets no rows any more and of which every row may
// go. It looks again once it has the lock; one that is in use is left for later.
func (t *Tables) dropPartition(ctx context.Context, l leaf, s Sweep) (dropped bool, err error) {
	if l.Ended == "" || s.OlderThan <= 0 {
		return false, nil
	}
	name := l.table().quoted()
	holds := fmt.Sprintf("SELECT to_json(%s::timestamptz < now() - %s AND NOT EXISTS (SELECT FROM %s WHERE NOT coalesce(%s, false)))::text",
		quoteText(l.Ended), interval(s.OlderThan), name, s.goes())
	ended, _, err := fetchOne[bool](ctx, t.pg, holds)
	if err != nil || !ended {
		return false, err
	}
	err = execute(ctx, t.pg, "BEGIN; SET LOCAL lock_timeout = '5s'; LOCK TABLE "+name+" IN ACCESS EXCLUSIVE MODE")
	if err == nil {
		ended, _, err = fetchOne[bool](ctx, t.pg, holds)
	}
	if err == nil && ended {
		if err = execute(ctx, t.pg, "DROP TABLE "+name+"; COMMIT"); err == nil {
			return true, nil
		}
	}
	if rolled := execute(ctx, t.pg, "ROLLBACK"); rolled != nil {
		return false, errors.Join(err, rolled)
	}
	if server, ok := errors.AsType[*pgconn.PgError](err); ok && (server.Code == "55P03" || server.Code == "40P01") { // lock_not_available, deadlock_detected
		return false, nil
	}
	return false, err
}

// sweepFault says which privilege is missing; the rest is Fault's.
func (t *Tables) sweepFault(target Table, s Sweep, err error) error {
	doing, right := "delete sent rows of", "DELETE"
	if s.Mark != "" {
		doing, right = "mark sent rows of", "UPDATE ("+quoteName(s.Mark)+")" // of no other column
	}
	err = fmt.Errorf("%s table %s: %w", doing, target.display(), err)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "42501" {
		return fault.NewOperator(err, fmt.Sprintf("GRANT SELECT, %s ON %s TO the role of --database-url, and USAGE on its schema", right, target.quoted()))
	}
	return Fault(err)
}
