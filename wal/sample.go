package wal

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Sample is a moment of the database: a snapshot of its transactions, and a position
// of the log that was taken after it. Whatever is visible in the snapshot has its
// commit record before At: a commit is in the log before a snapshot sees it (xact.c,
// CommitTransaction: the record is written first, ProcArrayEndTransaction comes
// after). So once everything up to At is delivered, so is every transaction that is
// visible in it.
type Sample struct {
	System   string // of the cluster it was taken in
	Timeline uint32
	Snapshot string // a pg_snapshot as Postgres prints it; empty when there is no sample
	At       LSN
	Time     time.Time // by our clock, before it was taken
}

// sampleSQL takes the snapshot before the position in one statement: the snapshot is
// the statement's own, which is taken before any of its functions is called
// (pquery.c, PortalStart), and the function that gives the position is volatile, so
// it is not called earlier either. The timeline is in the name of the log's file.
const sampleSQL = `SELECT row_to_json(t)::text FROM (SELECT
	pg_current_snapshot()::text AS snapshot,
	pg_current_wal_insert_lsn() AS at,
	('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint AS timeline,
	(SELECT system_identifier::text FROM pg_control_system()) AS system) t`

type sampleRow struct {
	Snapshot string   `json:"snapshot"`
	At       position `json:"at"`
	Timeline uint32   `json:"timeline"`
	System   string   `json:"system"`
}

// Sample takes a sample of the database.
func (c *Conn) Sample(ctx context.Context) (Sample, error) { return takeSample(ctx, c.pg) }

func takeSample(ctx context.Context, pg *pgconn.PgConn) (Sample, error) {
	before := time.Now().UTC()
	row, _, err := fetchOne[sampleRow](ctx, pg, sampleSQL)
	if err != nil {
		return Sample{}, err
	}
	return Sample{
		System: row.System, Timeline: row.Timeline, Snapshot: row.Snapshot, At: recordStart(LSN(row.At)), Time: before,
	}, nil
}

// Every page of the log begins with a header (xlog_internal.h, XLogPageHeaderData).
const (
	logPageBytes   = 8 << 10
	logHeaderBytes = 24
)

// recordStart moves a position from the first byte behind a page's header to the end
// of the page before. Between the two is nothing, and a stream that is idle there
// never tells of the former: the end of the last record is the latter.
func recordStart(at LSN) LSN {
	if at%logPageBytes == logHeaderBytes {
		return at - logHeaderBytes
	}
	return at
}

// sample takes one for Watch. A server that refuses it, such as one that takes the
// right to a function away, does without: rows are then called pending for longer.
func (w *watcher) sample(ctx context.Context) (Sample, error) {
	s, err := takeSample(ctx, w.pg)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && !w.pg.IsClosed() {
		w.config.logger().Debug("no snapshot of the database", slog.String("sqlstate", refused.Code))
		return Sample{}, nil
	}
	return s, err
}
