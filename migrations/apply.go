package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// settings rule the transaction of a step, against what the role or the database
// may have set: strings are quoted as substitute assumes, names that we do not
// qualify are Postgres' own, and the work is on disk when it is committed. No
// standby is waited for: with synchronous_standby_names = '*' that may be a stream
// of our own.
const settings = "SET LOCAL standard_conforming_strings = on;\n" +
	"SET LOCAL search_path = pg_catalog;\n" +
	"SET LOCAL synchronous_commit = local;\n"

// lock keeps two appliers apart until the end of the transaction. The number is
// "outboxcd" in ASCII.
const lock = "SELECT pg_advisory_xact_lock(8031453476610925412);\n"

// Apply makes on conn what p asks for and is not there yet, and says what it made.
//
// Each step runs in a transaction of its own under a lock, and looks only then at
// what is there: two that apply at once end as one after the other, and one that
// dies leaves whole steps. A table that somebody else made is left untouched. What
// was applied and is gone, dropped by hand, is made again. A database that a newer
// version has been at is refused.
//
// conn must not be in a transaction. An error that somebody must mend is an
// operator or usage error; applied holds what was made before it.
func Apply(ctx context.Context, conn *pgx.Conn, p Params) (applied []string, err error) {
	steps, err := p.steps()
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		ran, err := s.apply(ctx, conn)
		if err != nil {
			return applied, s.explain(err)
		}
		if ran {
			applied = append(applied, s.String())
		}
	}
	return applied, nil
}

// apply runs the step unless it has nothing to do. Read committed, whatever the
// default is: with an older snapshot it would not see what the holder of the lock
// before us has made.
func (s step) apply(ctx context.Context, conn *pgx.Conn) (ran bool, err error) {
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}
	err = pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
		if err := exec(ctx, tx, settings+lock); err != nil {
			return err
		}
		seen, err := s.look(ctx, tx)
		if err != nil {
			return err
		}
		if ran, err = s.due(seen); err != nil || !ran {
			return err
		}
		return s.run(ctx, tx, seen)
	})
	return ran && err == nil, err
}

// exec runs a text of several statements. The server parses all of it before it
// runs the first.
func exec(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// state is what a step finds.
type state struct {
	present bool     // what the target's first step makes is there
	records []record // of all targets
}

// record is a row of outboxcdc.migration.
type record struct {
	Number int
	Name   string
	Table  Table
}

// makes is the table that the first step of this step's target makes.
func (s step) makes() Table {
	if s.perTable {
		return s.table
	}
	return Table{Schema: "outboxcdc", Name: "checkpoint"}
}

func (s step) look(ctx context.Context, tx pgx.Tx) (state, error) {
	var seen state
	var err error
	if seen.present, err = exists(ctx, tx, s.makes()); err != nil {
		return seen, err
	}
	recorded, err := exists(ctx, tx, Table{Schema: "outboxcdc", Name: "migration"})
	if err != nil || !recorded {
		return seen, err
	}
	rows, err := tx.Query(ctx, "SELECT number, name, table_schema, table_name FROM outboxcdc.migration",
		pgx.QueryExecModeExec)
	if err != nil {
		return seen, err
	}
	seen.records, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r record, err error) {
		return r, row.Scan(&r.Number, &r.Name, &r.Table.Schema, &r.Table.Name)
	})
	return seen, err
}

// exists says whether a relation of this name is there. The catalog answers a role
// that has no right on the schema; to_regclass would refuse it.
func exists(ctx context.Context, tx pgx.Tx, t Table) (found bool, err error) {
	err = tx.QueryRow(ctx, `SELECT EXISTS (
		SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2)`,
		pgx.QueryExecModeExec, t.Schema, t.Name).Scan(&found)
	return found, err
}

// due says whether the step is to run: when what its target rests on is not there,
// or when it was not run yet. A table without any record is somebody else's.
func (s step) due(seen state) (bool, error) {
	ours, done := false, false
	for _, r := range seen.records {
		if r.Number > s.newest {
			return false, errNewer(r, s.newest)
		}
		if r.Table == s.table {
			ours = true
			done = done || r.Number == s.number
		}
	}
	switch {
	case !seen.present:
		return true, nil
	case s.perTable && !ours:
		return false, nil
	default:
		return !done, nil
	}
}

func errNewer(r record, newest int) error {
	return fault.NewOperator(
		fmt.Errorf("the database holds migration %04d_%s of a newer outboxcdc, this one knows them up to %04d", r.Number, r.Name, newest),
		"use the newer outboxcdc")
}

// run runs the step. The records of what is gone go first, so that the steps after
// this one run again too.
func (s step) run(ctx context.Context, tx pgx.Tx, seen state) error {
	sql, err := s.sql()
	if err != nil {
		return err
	}
	if !seen.present && len(seen.records) > 0 {
		if _, err := tx.Exec(ctx, "DELETE FROM outboxcdc.migration WHERE table_schema = $1 AND table_name = $2",
			pgx.QueryExecModeExec, s.table.Schema, s.table.Name); err != nil {
			return err
		}
	}
	return exec(ctx, tx, sql)
}

// SQLSTATEs that have a way out of their own here.
const (
	insufficientPrivilege = "42501"
	invalidSchemaName     = "3F000"
)

// explain adds the class and the way out.
func (s step) explain(err error) error {
	err = fmt.Errorf("apply migration %s: %w", s, err)
	var e *pgconn.PgError
	switch {
	case !errors.As(err, &e):
		return wal.Fault(err)
	case e.Code == insufficientPrivilege:
		return fault.NewOperator(err, "run `outboxcdc init` as a role that may do it, "+
			"or give what `outboxcdc init --print-sql` prints to the administrator of the database")
	case e.Code == invalidSchemaName && s.perTable:
		return fault.NewOperator(err, fmt.Sprintf("create the schema %q first, or name a table in another one", s.table.Schema))
	default:
		return wal.Fault(err)
	}
}
