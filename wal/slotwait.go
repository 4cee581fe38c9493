package wal

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// waitWatch finds out whom the creation of a slot waits for. It looks from a
// connection of its own, since the other one is busy waiting.
type waitWatch struct {
	config Config
	pid    uint32 // of the connection that waits
	pg     *pgconn.PgConn
	last   blocker
}

// blocker is a transaction that has written and still runs. Of other roles'
// sessions an ordinary role sees process and application only.
type blocker struct {
	XID         string `json:"xid"`
	PID         int32  `json:"pid"`      // 0 for a prepared transaction
	Prepared    string `json:"prepared"` // its global identifier
	Application string `json:"application_name"`
	Database    string `json:"database"`
	State       string `json:"state"`
	Since       string `json:"since"`
}

// blockerSQL asks for the holder of the transaction id that pid waits for. The
// creation waits for one transaction after the other (snapbuild.c,
// SnapBuildWaitSnapshot).
func blockerSQL(pid uint32) string {
	return fmt.Sprintf(`SELECT row_to_json(t)::text FROM (
		SELECT w.transactionid::text AS xid, coalesce(h.pid, 0) AS pid, coalesce(p.gid, '') AS prepared,
			coalesce(a.application_name, '') AS application_name,
			coalesce(a.datname, p.database, '') AS database, coalesce(a.state, '') AS state,
			coalesce(date_trunc('second', coalesce(a.xact_start, p.prepared))::text, '') AS since
		FROM pg_locks w
		JOIN pg_locks h ON h.locktype = 'transactionid' AND h.granted AND h.transactionid = w.transactionid
		LEFT JOIN pg_stat_activity a ON a.pid = h.pid
		LEFT JOIN pg_prepared_xacts p ON h.pid IS NULL AND p.transaction = w.transactionid
		WHERE w.locktype = 'transactionid' AND NOT w.granted AND w.pid = %d) t`, pid)
}

// look reports the transaction that is waited for, when it is another than the last
// time, and says when to look again. It is for the operator's eyes: when it cannot
// look, the wait goes on.
func (w *waitWatch) look(ctx context.Context) time.Duration {
	const again = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	found, ok, err := w.read(ctx)
	switch {
	case err != nil:
		w.config.logger().Debug("look for what the slot's creation waits for", slog.Any("error", err))
	case ok && found != w.last:
		w.last = found
		w.config.logger().Warn("the slot can be made only when a running transaction ends",
			slog.String("slot", w.config.Slot), slog.String("transaction", found.XID), slog.Int("pid", int(found.PID)),
			slog.String("prepared", found.Prepared), slog.String("application", found.Application),
			slog.String("database", found.Database), slog.String("state", found.State), slog.String("since", found.Since))
	}
	return again
}

func (w *waitWatch) read(ctx context.Context) (found blocker, ok bool, err error) {
	if w.pg == nil || w.pg.IsClosed() {
		if w.pg, _, err = connectPlain(ctx, w.config); err != nil {
			w.pg = nil
			return blocker{}, false, err
		}
	}
	return fetchOne[blocker](ctx, w.pg, blockerSQL(w.pid))
}

func (w *waitWatch) close(ctx context.Context) {
	if w.pg != nil {
		hangUp(context.WithoutCancel(ctx), w.pg) //nolint:errcheck // nothing is owed to it
	}
}
