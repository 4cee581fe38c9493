package wal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// A slot cannot go back, but it can be copied: the copy keeps the log from where the
// original would read again, and stays there when the original moves on. That is what
// bookmarks and replays are made of. A copy may be taken while somebody streams from
// the original, which notices nothing (slotfuncs.c, copy_replication_slot).

// copies is how often a copy is tried: one that the original overtakes while it is
// being made is refused by the server.
const copies = 5

// Slots lists the logical slots of this database that speak our protocol, by name.
func (c *Conn) Slots(ctx context.Context) ([]Slot, error) {
	rows, err := fetch[slotRow](ctx, c.pg, fmt.Sprintf(`SELECT row_to_json(t)::text FROM (
		SELECT s.*, greatest(0, pg_wal_lsn_diff(%s, s.restart_lsn))::bigint AS retained_bytes
		FROM pg_replication_slots s WHERE s.plugin = %s AND s.database = current_database() ORDER BY s.slot_name) t`,
		endOfLog, quoteText(plugin)))
	if err != nil {
		return nil, fmt.Errorf("list the slots: %w", err)
	}
	slots := make([]Slot, len(rows))
	for i := range rows {
		slots[i] = rows[i].slot()
	}
	return slots, nil
}

// CopySlot makes a slot that stands where another one does and stays there until
// somebody moves it.
func (c *Conn) CopySlot(ctx context.Context, from, to string) error {
	return c.copySlot(ctx, from, to, "false")
}

// BorrowSlot makes a copy of a slot that ends with this connection, however that
// ends, and lets Start stream from it. Neither the slot nor its copy's other readers
// are moved by that.
func (c *Conn) BorrowSlot(ctx context.Context, from string) error {
	name := "outboxcdc_" + strings.ToLower(rand.Text()) // as unique as it must be, and a legal name
	if err := c.copySlot(ctx, from, name, "true"); err != nil {
		return err
	}
	c.config.Slot = name
	return nil
}

func (c *Conn) copySlot(ctx context.Context, from, to, temporary string) error {
	sql := fmt.Sprintf("SELECT pg_copy_logical_replication_slot(%s, %s, %s)", quoteText(from), quoteText(to), temporary)
	var err error
	for range copies {
		if err = execute(ctx, c.pg, sql); !overtaken(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("copy slot %s: %w", from, err)
	}
	return nil
}

// overtaken says that the original moved while it was copied. A slot that is lost
// has the same code (slotfuncs.c), and then another try fails alike.
func overtaken(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	return ok && server.Code == "55000"
}

// DropNamed removes a slot of any name. One that somebody streams from is not removed: the error
// is transient.
func (c *Conn) DropNamed(ctx context.Context, name string) error {
	if err := execute(ctx, c.pg, fmt.Sprintf("SELECT pg_drop_replication_slot(%s)", quoteText(name))); err != nil {
		return fmt.Errorf("drop slot %s: %w", name, err)
	}
	return nil
}

// AdvanceSlot moves a slot that nobody streams from forward, at most to a position,
// and gives where it stands. The server reads the log in between.
func (c *Conn) AdvanceSlot(ctx context.Context, name string, to LSN) (LSN, error) {
	at, ok, err := fetchOne[position](ctx, c.pg, fmt.Sprintf(
		"SELECT to_json(end_lsn)::text FROM pg_replication_slot_advance(%s, %s)", quoteText(name), quoteText(to.String())))
	if err != nil || !ok {
		return 0, fmt.Errorf("advance slot %s to %v: %w", name, to, err)
	}
	return LSN(at), nil
}

// HasPublication says whether there is a publication of the configured name.
func (c *Conn) HasPublication(ctx context.Context) (bool, error) {
	there, err := fetch[bool](ctx, c.pg, fmt.Sprintf(
		"SELECT to_json(EXISTS (SELECT FROM pg_publication WHERE pubname = %s))::text", quoteText(c.config.Publication)))
	if err != nil {
		return false, fmt.Errorf("look for publication %s: %w", displayName(c.config.Publication), err)
	}
	return there[0], nil
}

// OwnsPublication says whether the role may drop the publication, which must be there.
func (c *Conn) OwnsPublication(ctx context.Context) (bool, error) {
	owns, _, err := fetchOne[bool](ctx, c.pg,
		"SELECT to_json(pg_has_role(pubowner, 'USAGE'))::text FROM pg_publication WHERE pubname = "+quoteText(c.config.Publication))
	if err != nil {
		return false, fmt.Errorf("look who owns publication %s: %w", displayName(c.config.Publication), err)
	}
	return owns, nil
}

// DropPublication removes the publication. A slot that has not read all of its log
// can then never be read on.
func (c *Conn) DropPublication(ctx context.Context) error {
	err := execute(ctx, c.pg, fmt.Sprintf("SET LOCAL lock_timeout = '%s'; DROP PUBLICATION IF EXISTS %s", lockWait, quoteName(c.config.Publication)))
	if err != nil {
		return fmt.Errorf("drop publication %s: %w", displayName(c.config.Publication), err)
	}
	return nil
}

// NextXID is above the number of every transaction that was begun so far, epoch
// included.
func (c *Conn) NextXID(ctx context.Context) (uint64, error) {
	next, err := fetch[uint64](ctx, c.pg, "SELECT to_json(pg_snapshot_xmax(pg_current_snapshot())::text::numeric)::text")
	if err != nil {
		return 0, fmt.Errorf("read the number of the next transaction: %w", err)
	}
	return next[0], nil
}

// Standby says whether the server is in recovery: it can be read from and not written
// to.
func (c *Conn) Standby(ctx context.Context) (bool, error) {
	standby, err := fetch[bool](ctx, c.pg, "SELECT to_json(pg_is_in_recovery())::text")
	if err != nil {
		return false, fmt.Errorf("ask whether the server is a standby: %w", err)
	}
	return standby[0], nil
}

// Settings of the server that bound what slots may keep.
type logBounds struct {
	KeepBytes int64 `json:"keep_bytes"` // max_slot_wal_keep_size; -1 is no limit
}

// KeepBytes is how much log the server keeps for a slot before it gives the slot up;
// -1 when there is no limit.
func (c *Conn) KeepBytes(ctx context.Context) (int64, error) {
	bounds, ok, err := fetchOne[logBounds](ctx, c.pg, `SELECT row_to_json(t)::text FROM (
		SELECT CASE WHEN setting::bigint < 0 THEN -1 ELSE setting::bigint << 20 END AS keep_bytes
		FROM pg_settings WHERE name = 'max_slot_wal_keep_size') t`)
	if err != nil || !ok {
		return 0, fmt.Errorf("read max_slot_wal_keep_size: %w", err)
	}
	return bounds.KeepBytes, nil
}

// LockRecovery makes sure that one process at a time recovers the slot. The lock ends
// with the connection.
//
// It waits a while: of a process that was killed, the server notices only after a
// moment that it has gone.
func (c *Conn) LockRecovery(ctx context.Context) error {
	err := execute(ctx, c.pg, fmt.Sprintf(
		"SET LOCAL lock_timeout = '%s'; SELECT pg_advisory_lock(hashtext('outboxcdc recover'), hashtext(%s))", recoveryWait, quoteText(c.config.Slot)))
	server, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case refused && server.Code == "55P03": // lock_not_available
		return fault.NewOperator(fmt.Errorf("another process recovers slot %s", c.config.Slot), "let it end, or stop it")
	case err != nil:
		return fmt.Errorf("lock the recovery of slot %s: %w", c.config.Slot, err)
	default:
		return nil
	}
}

const recoveryWait = "15s"

// Rebirth is a slot that was made anew, with the database as it was then.
type Rebirth struct {
	At       LSN    // a transaction that commits before it is in the snapshot, any other comes from the slot
	Snapshot string // what the connection's transaction reads, as a pg_snapshot
}

// CreateSlotInSnapshot makes the slot and begins a transaction that sees exactly what
// the slot will not send: every transaction that committed before Rebirth.At. Thaw
// ends it. As CreateSlot does, it waits for the transactions that run.
//
// The snapshot is used in place (USE_SNAPSHOT) rather than exported to another
// connection: the two are one and the same (walsender.c, CreateReplicationSlot), but
// a snapshot that is exported is lost with the exporter's next command, and while
// the creation waits, a server notices the death of a client only inside of a
// transaction.
func (c *Conn) CreateSlotInSnapshot(ctx context.Context) (Rebirth, error) {
	if err := execute(ctx, c.pg, "SET client_connection_check_interval = '1s'"); err != nil && c.pg.IsClosed() {
		return Rebirth{}, fmt.Errorf("create slot %s: %w", c.config.Slot, err)
	}
	if err := execute(ctx, c.pg, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return Rebirth{}, fmt.Errorf("begin a snapshot: %w", err)
	}
	made := make(chan creation, 1)
	// Ends with the command, which cancelCreation ends at the latest.
	go func() {
		defer fault.Catch(func(bug error) { made <- creation{err: bug} })
		answer, err := c.command(context.WithoutCancel(ctx),
			fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL %s USE_SNAPSHOT", quoteName(c.config.Slot), quoteName(plugin)), 2)
		if err != nil {
			made <- creation{err: err}
			return
		}
		at, err := ParseLSN(string(answer[1]))
		made <- creation{at: at, err: err}
	}()
	at, err := c.awaitCreation(ctx, made)
	if err != nil {
		return Rebirth{}, fmt.Errorf("create slot %s: %w", c.config.Slot, err)
	}
	snapshot, err := fetch[string](ctx, c.pg, "SELECT to_json(pg_current_snapshot()::text)::text")
	if err != nil {
		return Rebirth{}, fmt.Errorf("read the snapshot of slot %s: %w", c.config.Slot, err)
	}
	text, err := legalSnapshot(snapshot[0])
	if err != nil {
		return Rebirth{}, fmt.Errorf("read the snapshot of slot %s: %w", c.config.Slot, err)
	}
	return Rebirth{At: at, Snapshot: text}, nil
}

// legalSnapshot makes a text that pg_snapshot takes of one that it prints. The snapshot
// of a slot may have an end before its beginning when nothing was running (snapbuild.c,
// SnapBuildInitialSnapshot). Whatever is below the beginning is visible then, and
// nothing else (snapmgr.c, XidInMVCCSnapshot, which looks at the beginning first).
func legalSnapshot(text string) (string, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return "", fmt.Errorf("%q is not a snapshot", text)
	}
	begin, beginErr := strconv.ParseUint(parts[0], 10, 64)
	end, endErr := strconv.ParseUint(parts[1], 10, 64)
	if err := errors.Join(beginErr, endErr); err != nil {
		return "", fmt.Errorf("%q is not a snapshot: %w", text, err)
	}
	if end < begin {
		return fmt.Sprintf("%d:%d:", begin, begin), nil
	}
	return text, nil
}
