package wal

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// ErrNotSetUp means that the database lacks our schema, or an older version made it, or
// the role may not use it.
var ErrNotSetUp = errors.New("the schema outboxcdc is missing, of an older version or out of reach")

// setUpFault is Fault for a statement on our own schema.
func setUpFault(err error) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return Fault(err)
	}
	switch refused.Code {
	case "3F000", "42883", "42P01", "42703": // invalid_schema_name, undefined_function, _table, _column
		return fault.NewOperator(fmt.Errorf("%w: %w", ErrNotSetUp, err), "run `outboxcdc init`")
	case "42501": // insufficient_privilege
		return fault.NewOperator(fmt.Errorf("%w: %w", ErrNotSetUp, err),
			"have the owner of the schema outboxcdc run `outboxcdc init --role` with the role of --database-url, which grants it what is missing")
	default:
		return Fault(err)
	}
}

// Register notes in outboxcdc.outbox_table that the slot streams the tables, for the
// state of their rows, and gives for each that is new or was made anew why its present
// rows may never be sent. first says that nothing was saved for the slot before. The
// slot must exist. The database must have been set up (migration 0005).
func (c *Conn) Register(ctx context.Context, first bool) (reasons []string, err error) {
	for _, t := range c.config.Tables {
		reason, _, err := fetchOne[string](ctx, c.pg, "SELECT to_json(coalesce("+registerCall(c.config, t, first)+", ''))::text")
		if err != nil {
			return reasons, fmt.Errorf("register table %s: %w", t.display(), setUpFault(err))
		}
		if reason != "" {
			reasons = append(reasons, t.display()+": "+reason)
		}
	}
	return reasons, nil
}

// Begin notes that a stream begins from the slot, whose tables are registered, unless
// one has before; which tables it leaves out, whose rows from now on are not sent; and
// which are streamed again that were left out. It waits for no standby: where the stream
// is one of those that commits wait for, it would wait for itself.
func (c *Conn) Begin(ctx context.Context) error {
	_, _, err := fetchOne[int64](ctx, c.pg, fmt.Sprintf(`WITH durable AS MATERIALIZED (SELECT set_config('synchronous_commit', 'local', true) AS level), known AS (
		SELECT t.*, %s AS streams FROM outboxcdc.outbox_table t, durable WHERE durable.level = 'local' AND t.slot = %s
	), back AS (
		INSERT INTO outboxcdc.unsure (slot, table_schema, table_name, before, after, reason)
		SELECT slot, table_schema, table_name, left_after, pg_current_snapshot(), 'rows of a while in which the stream left the table out'
		FROM known WHERE streams AND left_at IS NOT NULL RETURNING 1
	), noted AS (
		UPDATE outboxcdc.outbox_table t SET streamed_lsn = coalesce(t.streamed_lsn, s.confirmed_flush_lsn),
			left_at = CASE WHEN NOT k.streams THEN coalesce(t.left_at, now()) END,
			left_after = CASE WHEN k.streams THEN NULL WHEN t.left_at IS NOT NULL THEN t.left_after
				ELSE (SELECT c.delivered FROM outboxcdc.checkpoint c WHERE c.slot = t.slot) END
		FROM known k, pg_replication_slots s
		WHERE (t.slot, t.table_schema, t.table_name) = (k.slot, k.table_schema, k.table_name) AND s.slot_name = t.slot
			AND (t.streamed_lsn IS NULL OR k.streams = (t.left_at IS NOT NULL)) RETURNING 1
	) SELECT to_json((SELECT count(*) FROM noted) + (SELECT count(*) FROM back))::text`, c.config.streams("t"), quoteText(c.config.Slot)))
	if err != nil {
		return fmt.Errorf("note that slot %s is streamed from: %w", c.config.Slot, setUpFault(err))
	}
	return nil
}

// streams is SQL: whether a row of outboxcdc.outbox_table is of a table of ours.
func (c Config) streams(row string) string {
	if len(c.Tables) == 0 {
		return "false"
	}
	names := make([]string, len(c.Tables))
	for i, t := range c.Tables {
		names[i] = fmt.Sprintf("(%s, %s)", quoteText(t.Schema), quoteText(t.Name))
	}
	return fmt.Sprintf("((%s.table_schema, %[1]s.table_name) IN (%s))", row, strings.Join(names, ", "))
}

// Streamed is where the slot stood when a stream of ours first began from it; ok is false
// when none did, or the database was not set up for that.
func (c *Conn) Streamed(ctx context.Context) (at LSN, ok bool, err error) {
	found, _, err := fetchOne[position](ctx, c.pg,
		"SELECT to_json(coalesce(min(streamed_lsn), '0/0'))::text FROM outboxcdc.outbox_table WHERE slot = "+quoteText(c.config.Slot))
	if err != nil {
		err = setUpFault(err)
		if errors.Is(err, ErrNotSetUp) {
			return 0, false, nil
		}
		return 0, false, fmt.Errorf("read whether slot %s was streamed from: %w", c.config.Slot, err)
	}
	return LSN(found), found != 0, nil
}

// Unregister forgets what Register noted for the slot.
func (c *Conn) Unregister(ctx context.Context) error {
	err := execute(ctx, c.pg, fmt.Sprintf("WITH unsure AS (DELETE FROM outboxcdc.unsure WHERE slot = %s) DELETE FROM outboxcdc.outbox_table WHERE slot = %[1]s",
		quoteText(c.config.Slot)))
	if err != nil {
		return fmt.Errorf("forget that slot %s was streamed from: %w", c.config.Slot, setUpFault(err))
	}
	return nil
}

// CheckDelete gives an operator error with the GRANT when the role may not delete from
// tables of the schema outboxcdc. One that is not there is not missed.
func (c *Conn) CheckDelete(ctx context.Context, tables ...string) error {
	lacks, err := fetch[string](ctx, c.pg, fmt.Sprintf(`SELECT to_json('outboxcdc.' || t.relname)::text FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
		WHERE n.nspname = 'outboxcdc' AND t.relname = ANY (%s) AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(t.oid, 'DELETE'))
		ORDER BY t.relname`, quoteTexts(tables)))
	if err != nil {
		return fmt.Errorf("look at the rights in schema outboxcdc: %w", err)
	}
	if len(lacks) == 0 {
		return nil
	}
	all, role := strings.Join(lacks, ", "), quoteName(c.user)
	return fault.NewOperator(fmt.Errorf("role %s may not delete from %s", displayName(c.user), all),
		fmt.Sprintf("have the owner of the schema run `outboxcdc init --role %s`, or: GRANT USAGE ON SCHEMA outboxcdc TO %s; GRANT DELETE ON %s TO %[2]s", c.user, role, all))
}

// RegisterSQL are the statements that Register runs where something may be saved. They
// may run again.
func RegisterSQL(config Config) string {
	var sql strings.Builder
	for _, t := range config.Tables {
		fmt.Fprintf(&sql, "SELECT %s;\n", registerCall(config, t, false))
	}
	return sql.String()
}

func registerCall(config Config, t Table, first bool) string {
	return fmt.Sprintf("outboxcdc.register(%s, %s, %s, %s, %t)",
		quoteText(config.Slot), quoteText(t.Schema), quoteText(t.Name), quoteText(config.Publication), first)
}
