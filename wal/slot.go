package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

const (
	plugin        = "pgoutput" // built into every server, and what the decoder speaks
	waitLookAfter = time.Second
	cancelTimeout = 5 * time.Second
)

// slotRow is pg_replication_slots as JSON. Columns that a major does not have stay
// zero: invalidation_reason, failover and synced came with 17.
type slotRow struct {
	Name          string   `json:"slot_name"`
	Plugin        string   `json:"plugin"`
	Type          string   `json:"slot_type"`
	Database      string   `json:"database"`
	Temporary     bool     `json:"temporary"`
	Active        bool     `json:"active"`
	ActivePID     int32    `json:"active_pid"`
	Restart       position `json:"restart_lsn"`
	Confirmed     position `json:"confirmed_flush_lsn"`
	WALStatus     string   `json:"wal_status"`
	SafeBytes     *int64   `json:"safe_wal_size"`
	TwoPhase      bool     `json:"two_phase"`
	Conflicting   bool     `json:"conflicting"`
	Reason        string   `json:"invalidation_reason"`
	Failover      bool     `json:"failover"`
	Synced        bool     `json:"synced"`
	RetainedBytes int64    `json:"retained_bytes"`
	Horizon       uint64   `json:"horizon"`
}

func (r slotRow) slot() Slot {
	s := Slot{
		Name: r.Name, Plugin: r.Plugin, Type: r.Type, Database: r.Database, Temporary: r.Temporary,
		Active: r.Active, ActivePID: r.ActivePID, Restart: LSN(r.Restart), Confirmed: LSN(r.Confirmed),
		WALStatus: r.WALStatus, Reason: r.Reason, TwoPhase: r.TwoPhase, Failover: r.Failover, Synced: r.Synced,
		RetainedBytes: r.RetainedBytes, SafeBytes: -1, Horizon: r.Horizon,
	}
	if r.SafeBytes != nil {
		s.SafeBytes = *r.SafeBytes
	}
	if r.Conflicting && s.Reason == "" { // 16, which does not say why
		s.Reason = "conflict"
	}
	return s
}

// Lost says whether nobody can stream from the slot any more, because log or rows
// that it needs were removed, or for another reason of the server's.
func (s Slot) Lost() bool { return s.Reason != "" || s.WALStatus == "lost" }

// InDanger says whether the slot is lost when about as much log is written again as is
// kept for it now, or less.
func (s Slot) InDanger() bool {
	return s.WALStatus == "unreserved" || s.SafeBytes >= 0 && s.SafeBytes < s.RetainedBytes
}

// LostReason says why, in the server's word where it has one (since version 16).
func (s Slot) LostReason() string {
	if s.Reason == "" {
		return "log that it needs was removed"
	}
	return s.Reason
}

// endOfLog is SQL for the end of the log, on a standby of what it has replayed.
const endOfLog = `CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END`

// slotSQL gives catalog_xmin its epoch: it is older than the next number by less than
// half of all numbers without one.
func slotSQL(name string) string {
	return fmt.Sprintf(`SELECT row_to_json(t)::text FROM (
		SELECT s.*, greatest(0, pg_wal_lsn_diff(%s, s.restart_lsn))::bigint AS retained_bytes,
			coalesce(n.next - ((n.next - s.catalog_xmin::text::bigint) & 4294967295), 0) AS horizon
		FROM pg_replication_slots s, (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) n
		WHERE s.slot_name = %s) t`, endOfLog, quoteText(name))
}

// Slot reads the state of the slot; ok is false when there is no slot of that
// name in the cluster.
func (c *Conn) Slot(ctx context.Context) (slot Slot, ok bool, err error) {
	slot, ok, err = readSlot(ctx, c.pg, c.config.Slot)
	if err != nil {
		return Slot{}, false, fmt.Errorf("read slot %s: %w", c.config.Slot, err)
	}
	return slot, ok, nil
}

func readSlot(ctx context.Context, pg *pgconn.PgConn, name string) (Slot, bool, error) {
	row, ok, err := fetchOne[slotRow](ctx, pg, slotSQL(name))
	return row.slot(), ok, err
}

// Holder is the process that streams from a slot. What the role may not see is
// empty.
type Holder struct {
	PID         int32  `json:"pid"`
	Role        string `json:"role"`
	Application string `json:"application_name"`
	Address     string `json:"address"` // empty for a local socket too
}

// String names the process for people: "pid 4711 (outboxcdc orders, role cdc, from
// 10.0.0.7)".
func (h Holder) String() string {
	var parts []string
	if h.Application != "" {
		parts = append(parts, h.Application)
	}
	if h.Role != "" {
		parts = append(parts, "role "+displayName(h.Role))
	}
	if h.Address != "" {
		parts = append(parts, "from "+h.Address)
	}
	if len(parts) == 0 {
		return fmt.Sprintf("pid %d", h.PID)
	}
	return fmt.Sprintf("pid %d (%s)", h.PID, strings.Join(parts, ", "))
}

// Holder reads who streams from the slot; ok is false when nobody does.
func (c *Conn) Holder(ctx context.Context) (holder Holder, ok bool, err error) {
	holder, ok, err = fetchOne[Holder](ctx, c.pg, fmt.Sprintf(`SELECT row_to_json(t)::text FROM (
		SELECT s.active_pid AS pid, coalesce(a.usename, '') AS role,
			coalesce(a.application_name, '') AS application_name, coalesce(host(a.client_addr), '') AS address
		FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
		WHERE s.slot_name = %s AND s.active_pid IS NOT NULL) t`, quoteText(c.config.Slot)))
	if err != nil {
		return Holder{}, false, fmt.Errorf("read who holds slot %s: %w", c.config.Slot, err)
	}
	return holder, ok, nil
}

// Busy is the error for a slot that another process streams from. It is ErrSlotBusy
// and names that process, as far as the role may see it.
func (c *Conn) Busy(ctx context.Context, slot Slot) error {
	holder, ok, err := c.Holder(ctx)
	if err != nil {
		return err
	}
	if !ok { // it has just gone
		holder = Holder{PID: slot.ActivePID}
	}
	return &fault.Error{
		Class: fault.Transient, Err: fmt.Errorf("%w: slot %s is held by %v", ErrSlotBusy, slot.Name, holder),
		Advice: "this one takes over when that one ends; when it should not stream, stop it",
	}
}

// SlotSQL is the statement that makes the slot, for a database administrator who
// would rather run it than let CreateSlot. It must come after PublicationSQL: a
// publication that did not exist yet at a place of the log cannot be read there.
func SlotSQL(config Config) string {
	return fmt.Sprintf("SELECT pg_create_logical_replication_slot(%s, %s);", quoteText(config.Slot), quoteText(plugin))
}

// CreateSlot makes the slot and gives the position from which it will stream. It
// waits for every transaction of the cluster that has written and still runs, in
// any database; who that is goes to the logger as a warning. When ctx ends first,
// no slot is left behind.
//
// It calls the function rather than CREATE_REPLICATION_SLOT, because only inside
// SQL does the server notice that the client went away while it waits; the command
// would go on holding the log back for a process that has been killed.
func (c *Conn) CreateSlot(ctx context.Context) (LSN, error) {
	// Not every platform can check; without it only a killed client is noticed late.
	if err := execute(ctx, c.pg, "SET client_connection_check_interval = '1s'"); err != nil && c.pg.IsClosed() {
		return 0, fmt.Errorf("create slot %s: %w", c.config.Slot, err)
	}
	made := make(chan creation, 1)
	// Ends with the statement, which cancelCreation ends at the latest.
	go func() {
		defer fault.Catch(func(bug error) { made <- creation{err: bug} })
		type row struct {
			LSN position `json:"lsn"`
		}
		r, _, err := fetchOne[row](context.WithoutCancel(ctx), c.pg,
			"SELECT row_to_json(t)::text FROM "+strings.TrimSuffix(strings.TrimPrefix(SlotSQL(c.config), "SELECT "), ";")+" t")
		made <- creation{at: LSN(r.LSN), err: err}
	}()
	result, err := c.awaitCreation(ctx, made)
	if err != nil {
		return 0, fmt.Errorf("create slot %s: %w", c.config.Slot, err)
	}
	return result, nil
}

// DropSlot drops the slot of the configuration. Nobody may be streaming from it.
func (c *Conn) DropSlot(ctx context.Context) error {
	if err := execute(ctx, c.pg, fmt.Sprintf("SELECT pg_drop_replication_slot(%s)", quoteText(c.config.Slot))); err != nil {
		return fmt.Errorf("drop slot %s: %w", c.config.Slot, err)
	}
	return nil
}

type creation struct {
	at  LSN
	err error
}

func (c *Conn) awaitCreation(ctx context.Context, made <-chan creation) (LSN, error) {
	watch := waitWatch{config: c.config, pid: c.pg.PID()}
	defer watch.close(ctx)
	next := time.NewTimer(waitLookAfter)
	defer next.Stop()
	for {
		select {
		case m := <-made:
			return m.at, m.err
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), c.cancelCreation(ctx, made))
		case <-next.C:
			next.Reset(watch.look(ctx))
		}
	}
}

// cancelCreation ends the statement, and undoes it when it had come to its end
// already.
func (c *Conn) cancelCreation(ctx context.Context, made <-chan creation) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	// It may come before the statement has arrived, and then has no effect.
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		if err := c.pg.CancelRequest(ctx); err != nil {
			c.config.logger().Debug("cancel request", slog.Any("error", err))
		}
		select {
		case m := <-made:
			return c.undoCreation(ctx, m)
		case <-again.C:
		case <-ctx.Done():
			// The server does not answer. It notices the end of the connection
			// and drops the slot that was not finished.
			c.pg.Conn().Close()
			<-made
			return nil
		}
	}
}

func (c *Conn) undoCreation(ctx context.Context, m creation) error {
	if m.at == 0 { // cancelled or failed: the server has dropped it
		return nil
	}
	sql := fmt.Sprintf("SELECT pg_drop_replication_slot(%s)", quoteText(c.config.Slot))
	err := execute(ctx, c.pg, sql)
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == "57014" { // our own cancel request, come late
		err = execute(ctx, c.pg, sql)
	}
	if err != nil {
		return fmt.Errorf("drop slot %s, made the moment it was given up: %w", c.config.Slot, err)
	}
	return nil
}
