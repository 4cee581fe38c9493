package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// rowSQL are the columns of a position, in texts that no setting changes: times as
// microseconds since 1970, because a timestamp would follow DateStyle.
const rowSQL = `format, system, timeline, database, lsn::text, index, (extract(epoch FROM saved_at) * 1000000)::bigint,
	coalesce(delivered::text, ''), coalesce(delivered_lsn, '0/0')::text, coalesce((extract(epoch FROM delivered_at) * 1000000)::bigint, 0)`

const loadSQL = `SELECT ` + rowSQL + ` FROM outboxcdc.checkpoint WHERE slot = $1`

const historySQL = `SELECT ` + rowSQL + `, coalesce(gap::text, '') FROM outboxcdc.history WHERE slot = $1 ORDER BY saved_at`

// newestSQL looks for what the newest migrations make and whether the role may use it.
const newestSQL = `SELECT t.streamed_lsn FROM outboxcdc.history, outboxcdc.outbox_table t, outboxcdc.unsure LIMIT 0`

// durableSQL makes the statement's own transaction wait for the disk even where the
// role or the database has synchronous_commit off: a commit reads the setting before
// it is reset (xact.c, CommitTransaction). It waits for no standby, although that
// would be safer still: with synchronous_standby_names = '*' one of those is our own
// stream, which confirms only after the save. Rows are inserted from what set_config
// gives, so that one does not happen without the other.
const durableSQL = `WITH durable AS MATERIALIZED (SELECT set_config('synchronous_commit', 'local', true) AS level)`

// The parameters of positionArgs as columns and as values.
const (
	positionColumns = `slot, format, system, timeline, database, lsn, index, saved_at, delivered, delivered_lsn, delivered_at`
	positionValues  = `$1::text, $2::integer, $3::text, $4::bigint, $5::text, $6::text::pg_lsn, $7::bigint, $8::timestamptz,
	$9::text::pg_snapshot, $10::text::pg_lsn, $11::timestamptz`
	positionUpdate = `format = excluded.format, timeline = excluded.timeline, lsn = excluded.lsn, index = excluded.index, saved_at = excluded.saved_at,
	delivered = excluded.delivered, delivered_lsn = excluded.delivered_lsn, delivered_at = excluded.delivered_at`
)

// saveSQL writes the row of a slot, unless what is there must stay: then it writes
// no row. Postgres compares under the lock of the row, so that two instances cannot
// both pass.
const saveSQL = durableSQL + `
INSERT INTO outboxcdc.checkpoint AS saved (` + positionColumns + `)
SELECT ` + positionValues + `
FROM durable WHERE level = 'local'
ON CONFLICT (slot) DO UPDATE SET
	` + positionUpdate + `
WHERE saved.format <= excluded.format
	AND saved.system = excluded.system
	AND saved.database = excluded.database
	AND (saved.timeline < excluded.timeline
		OR saved.timeline = excluded.timeline AND (saved.lsn, saved.index) <= (excluded.lsn, excluded.index))`

// keptSQL adds an entry to the history and drops what is too old; $12 is the gap and
// $13 the oldest time to stay.
const keptSQL = `INSERT INTO outboxcdc.history (` + positionColumns + `, gap)
SELECT ` + positionValues + `, $12::text::jsonb
FROM durable WHERE level = 'local'
ON CONFLICT (slot, saved_at) DO UPDATE SET
	system = excluded.system, database = excluded.database, gap = excluded.gap, ` + positionUpdate

const trimmedSQL = `trimmed AS (DELETE FROM outboxcdc.history WHERE slot = $1::text AND saved_at < $13::timestamptz AND gap IS NULL)`

const keepSQL = durableSQL + `, ` + trimmedSQL + `
` + keptSQL

// replaceSQL is saveSQL without its conditions, and keepSQL, in one statement.
const replaceSQL = durableSQL + `, ` + trimmedSQL + `, replaced AS (
	INSERT INTO outboxcdc.checkpoint (` + positionColumns + `)
	SELECT ` + positionValues + `
	FROM durable WHERE level = 'local'
	ON CONFLICT (slot) DO UPDATE SET
		system = excluded.system, database = excluded.database, ` + positionUpdate + `)
` + keptSQL

const deleteSQL = `WITH history AS (DELETE FROM outboxcdc.history WHERE slot = $1)
DELETE FROM outboxcdc.checkpoint WHERE slot = $1`

// positionArgs are the parameters of positionValues.
func positionArgs(p Position) []any {
	args := []any{p.Slot, format, p.System, int64(p.Timeline), p.Database, p.LSN.String(), int64(p.Index), p.Time, nil, nil, nil}
	if p.Delivered.Known() {
		args[8], args[9], args[10] = p.Delivered.Text, p.Delivered.At.String(), p.Delivered.Time
	}
	return args
}

// Keep is Historian's.
func (s *postgresStore) Keep(ctx context.Context, e Entry) error { return s.add(ctx, keepSQL, e) }

// Replace is Historian's.
func (s *postgresStore) Replace(ctx context.Context, e Entry) error { return s.add(ctx, replaceSQL, e) }

func (s *postgresStore) add(ctx context.Context, sql string, e Entry) error {
	if err := completeEntry(e, s.slot); err != nil {
		return err
	}
	args := positionArgs(e.Position)
	var gap any
	if e.Gap.Reason != "" {
		text, err := json.Marshal(gapFormOf(e.Gap))
		if err != nil {
			return bug("encode the gap: %w", err)
		}
		gap = string(text)
	}
	args = append(args, gap, e.Time.Add(-s.age))
	return s.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() != 1 {
			err = errors.New("the database kept no entry of the history")
		}
		return err
	})
}

// History is Historian's.
func (s *postgresStore) History(ctx context.Context) (entries []Entry, err error) {
	err = s.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, historySQL, s.slot)
		if err != nil {
			return err
		}
		entries, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Entry, err error) {
			var gap string
			if e.Position, err = s.scan(row, &gap); err == nil && gap != "" {
				e.Gap, err = decodeGap([]byte(gap))
			}
			return e, err
		})
		return err
	})
	return entries, err
}

// Delete is Historian's.
func (s *postgresStore) Delete(ctx context.Context) error {
	return s.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, deleteSQL, s.slot)
		return err
	})
}

func (s *postgresStore) load(ctx context.Context, conn *pgx.Conn) (Position, error) {
	p, err := s.scan(conn.QueryRow(ctx, loadSQL, s.slot))
	if errors.Is(err, pgx.ErrNoRows) {
		return Position{}, ErrNone
	}
	return p, err
}

// scan reads a row of rowSQL, and what stands behind it into more.
func (s *postgresStore) scan(row pgx.Row, more ...any) (Position, error) {
	var version int32
	var timeline, index, savedAt, deliveredAt int64
	var lsn, deliveredLSN string
	p := Position{Slot: s.slot}
	err := row.Scan(append([]any{
		&version, &p.System, &timeline, &p.Database, &lsn, &index, &savedAt, &p.Delivered.Text, &deliveredLSN, &deliveredAt,
	}, more...)...)
	switch {
	case err != nil:
		return Position{}, err
	case version < oldestFormat || version > format:
		return Position{}, fault.NewOperator(
			fmt.Errorf("the saved position of slot %s has format %d, this outboxcdc knows %d to %d", s.slot, version, oldestFormat, format),
			"use the outboxcdc that saved it, or a newer one")
	}
	var deliveredErr error
	p.LSN, err = wal.ParseLSN(lsn)
	p.Delivered.At, deliveredErr = wal.ParseLSN(deliveredLSN)
	p.Timeline, p.Index, p.Time = uint32(timeline), uint64(index), time.UnixMicro(savedAt).UTC()
	if deliveredAt != 0 {
		p.Delivered.Time = time.UnixMicro(deliveredAt).UTC()
	}
	if timeline > math.MaxUint32 || timeline < 0 || index < 0 || err != nil || deliveredErr != nil || complete(p, s.slot) != nil {
		return Position{}, fault.NewOperator(
			fmt.Errorf("the saved position of slot %s is damaged: %v on timeline %d of cluster %q", s.slot, lsn, timeline, p.System),
			"restore the row in outboxcdc.checkpoint from a backup; or delete it to begin as at a first start, where the slot stands")
	}
	return p, nil
}
