-- Which rows are with the broker, without a write to any of them.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0005_status.sql
--
-- The role that streams needs, besides what 0001 and 0003 name,
--     GRANT SELECT, INSERT, UPDATE ON outboxcdc.outbox_table TO …;
--     GRANT SELECT, INSERT ON outboxcdc.unsure TO …;
-- Whoever looks at outboxcdc.outbox_status needs SELECT on all tables of this schema
-- and on the outbox tables themselves: the view runs with the rights of its reader.

CREATE TABLE IF NOT EXISTS outboxcdc.outbox_table (
    slot          text        NOT NULL,
    table_schema  text        NOT NULL,
    table_name    text        NOT NULL,
    identity      text        NOT NULL,
    slot_lsn      pg_lsn      NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, table_schema, table_name)
);
COMMENT ON TABLE outboxcdc.outbox_table IS 'The outbox tables that each slot streams.';
COMMENT ON COLUMN outboxcdc.outbox_table.slot          IS 'Name of the replication slot.';
COMMENT ON COLUMN outboxcdc.outbox_table.table_schema  IS 'Schema of the table.';
COMMENT ON COLUMN outboxcdc.outbox_table.table_name    IS 'Name of the table.';
COMMENT ON COLUMN outboxcdc.outbox_table.identity      IS 'Changes when the table, the publication or the table''s place in it is dropped and made anew.';
COMMENT ON COLUMN outboxcdc.outbox_table.slot_lsn      IS 'Where the slot stood when the table was registered.';
COMMENT ON COLUMN outboxcdc.outbox_table.registered_at IS 'When that was.';

CREATE TABLE IF NOT EXISTS outboxcdc.unsure (
    slot         text        NOT NULL,
    table_schema text        NOT NULL,
    table_name   text        NOT NULL,
    noted_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    before       pg_snapshot,
    after        pg_snapshot NOT NULL,
    reason       text        NOT NULL
);
COMMENT ON TABLE outboxcdc.unsure IS
    'Rows that may never have been sent: those that are visible in the snapshot after and not in before, such as rows from before there was a slot.';
COMMENT ON COLUMN outboxcdc.unsure.slot         IS 'Name of the replication slot.';
COMMENT ON COLUMN outboxcdc.unsure.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN outboxcdc.unsure.table_name   IS 'Name of the table.';
COMMENT ON COLUMN outboxcdc.unsure.noted_at     IS 'When it was noted.';
COMMENT ON COLUMN outboxcdc.unsure.before       IS 'What was delivered before; NULL when nothing is known to be.';
COMMENT ON COLUMN outboxcdc.unsure.after        IS 'Taken when it was noted.';
COMMENT ON COLUMN outboxcdc.unsure.reason       IS 'Why, in a sentence.';

-- Notes a table of a slot; anew says that a stream begins there for the first time.
-- It gives the reason when rows that are there now may never be sent, else null.
CREATE OR REPLACE FUNCTION outboxcdc.register(slot text, table_schema text, table_name text, publication text, anew boolean)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
#variable_conflict use_column
DECLARE
    oids   text;
    stands pg_lsn;
    known  outboxcdc.outbox_table%ROWTYPE;
    why    text;
BEGIN
    SELECT concat_ws('.', c.oid, p.oid, m.oid) INTO oids
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_publication p ON p.pubname = register.publication
        LEFT JOIN pg_publication_rel m ON m.prpubid = p.oid AND m.prrelid = c.oid
    WHERE n.nspname = register.table_schema AND c.relname = register.table_name;
    SELECT s.confirmed_flush_lsn INTO stands FROM pg_replication_slots s WHERE s.slot_name = register.slot;
    IF oids IS NULL OR stands IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO known FROM outboxcdc.outbox_table t
    WHERE t.slot = register.slot AND t.table_schema = register.table_schema AND t.table_name = register.table_name;
    why := CASE
        WHEN known.slot IS NULL THEN 'rows that were there when the table was first streamed'
        WHEN anew AND known.slot_lsn <> stands THEN 'rows that were there when the slot was first streamed from'
        WHEN known.identity <> oids THEN 'rows that were there when the table or its place in the publication was made anew'
    END;
    IF why IS NULL THEN
        RETURN NULL;
    END IF;
    -- After the identity: what comes later is published, or is another identity's.
    INSERT INTO outboxcdc.unsure (slot, table_schema, table_name, before, after, reason)
    SELECT register.slot, register.table_schema, register.table_name,
        CASE WHEN known.slot IS NOT NULL AND NOT anew AND split_part(known.identity, '.', 1) = split_part(oids, '.', 1)
        THEN (SELECT c.delivered FROM outboxcdc.checkpoint c WHERE c.slot = register.slot) END,
        pg_current_snapshot(), why;
    INSERT INTO outboxcdc.outbox_table (slot, table_schema, table_name, identity, slot_lsn)
    VALUES (register.slot, register.table_schema, register.table_name, oids, stands)
    ON CONFLICT (slot, table_schema, table_name) DO UPDATE SET
        identity = excluded.identity, slot_lsn = excluded.slot_lsn, registered_at = now();
    RETURN why;
END
$$;
COMMENT ON FUNCTION outboxcdc.register(text, text, text, text, boolean) IS 'Notes that a slot streams a table, and which of its rows may never be sent.';

-- The snapshots between which rows of a table may never have been sent.
CREATE OR REPLACE FUNCTION outboxcdc.unsure_between(slot text, table_schema text, table_name text)
RETURNS TABLE (before pg_snapshot, after pg_snapshot) LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT u.before, u.after FROM outboxcdc.unsure u
    WHERE u.slot = $1 AND u.table_schema = $2 AND u.table_name = $3
    UNION ALL
    SELECT (h.gap #>> '{before,snapshot}')::pg_snapshot, (h.gap #>> '{after,snapshot}')::pg_snapshot
    FROM outboxcdc.history h WHERE h.slot = $1 AND h.gap IS NOT NULL
$$;
COMMENT ON FUNCTION outboxcdc.unsure_between(text, text, text) IS 'Rows that are visible in after and not in before may never have been sent.';

-- SENT means that the broker holds the row for sure; PENDING that it may not yet;
-- UNKNOWN that nobody can tell: the table has no column xid of type xid8, the row may
-- lie in a gap or be older than the stream, or positions are not saved in this
-- database.
CREATE OR REPLACE FUNCTION outboxcdc.row_status(slot text, table_schema text, table_name text, xid xid8)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT CASE
        WHEN xid IS NULL OR NOT EXISTS (SELECT FROM outboxcdc.checkpoint c WHERE c.slot = $1) THEN 'UNKNOWN'
        WHEN EXISTS (SELECT FROM outboxcdc.unsure_between($1, $2, $3) u
            WHERE (u.after IS NULL OR pg_visible_in_snapshot(xid, u.after)) AND (u.before IS NULL OR NOT pg_visible_in_snapshot(xid, u.before)))
        THEN 'UNKNOWN'
        WHEN (SELECT pg_visible_in_snapshot(xid, c.delivered) FROM outboxcdc.checkpoint c WHERE c.slot = $1) THEN 'SENT'
        ELSE 'PENDING' END
$$;
COMMENT ON FUNCTION outboxcdc.row_status(text, text, text, xid8) IS
    'SENT, PENDING or UNKNOWN for a row of an outbox table, by the transaction in its column xid.';

-- Every row of every registered table. The tables are named in the text of a query
-- and not in a view, so that they can be changed and dropped without asking us.
CREATE OR REPLACE FUNCTION outboxcdc.outbox_rows()
RETURNS TABLE (slot text, table_schema text, table_name text, seq bigint, id text, aggregate_type text, aggregate_id text,
    event_type text, created_at timestamptz, xid xid8, status text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
#variable_conflict use_column
DECLARE
    t         outboxcdc.outbox_table%ROWTYPE;
    columns   text;
    traced    boolean;
    saved     boolean;
    delivered pg_snapshot;
    befores   pg_snapshot[];
    afters    pg_snapshot[];
BEGIN
    FOR t IN SELECT * FROM outboxcdc.outbox_table ORDER BY 1, 2, 3 LOOP
        CONTINUE WHEN to_regclass(format('%I.%I', t.table_schema, t.table_name)) IS NULL;
        SELECT string_agg(CASE WHEN a.attname IS NULL THEN 'NULL::' || w.type
                WHEN w.type = 'bigint' AND a.atttypid NOT IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'NULL::bigint'
                WHEN w.type = 'timestamptz' AND a.atttypid NOT IN ('timestamp'::regtype, 'timestamptz'::regtype) THEN 'NULL::timestamptz'
                WHEN w.type = 'xid8' AND a.atttypid <> 'xid8'::regtype THEN 'NULL::xid8'
                ELSE format('r.%I::%s', w.name, w.type) END, ', ' ORDER BY w.place),
            coalesce(bool_or(w.type = 'xid8' AND a.atttypid = 'xid8'::regtype), false)
        INTO columns, traced
        FROM (VALUES (1, 'seq', 'bigint'), (2, 'id', 'text'), (3, 'aggregate_type', 'text'), (4, 'aggregate_id', 'text'),
                (5, 'event_type', 'text'), (6, 'created_at', 'timestamptz'), (7, 'xid', 'xid8')) AS w (place, name, type)
            LEFT JOIN pg_attribute a ON a.attrelid = format('%I.%I', t.table_schema, t.table_name)::regclass
                AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped;
        SELECT c.delivered INTO delivered FROM outboxcdc.checkpoint c WHERE c.slot = t.slot;
        saved := FOUND;
        SELECT coalesce(array_agg(u.before), '{}'), coalesce(array_agg(u.after), '{}') INTO befores, afters
        FROM outboxcdc.unsure_between(t.slot, t.table_schema, t.table_name) u;
        -- What outboxcdc.row_status says, with what it looks for found once.
        RETURN QUERY EXECUTE format('SELECT $1, $2, $3, %s, %s FROM %I.%I r', columns,
            CASE WHEN NOT traced OR NOT saved THEN quote_literal('UNKNOWN')
            ELSE 'CASE WHEN r.xid IS NULL OR EXISTS (SELECT FROM unnest($5, $6) u (before, after)
                WHERE (u.after IS NULL OR pg_visible_in_snapshot(r.xid, u.after)) AND (u.before IS NULL OR NOT pg_visible_in_snapshot(r.xid, u.before)))
                THEN ''UNKNOWN'' WHEN pg_visible_in_snapshot(r.xid, $4) THEN ''SENT'' ELSE ''PENDING'' END' END,
            t.table_schema, t.table_name)
        USING t.slot, t.table_schema, t.table_name, delivered, befores, afters;
    END LOOP;
END
$$;
COMMENT ON FUNCTION outboxcdc.outbox_rows() IS 'What outboxcdc.outbox_status shows.';

CREATE OR REPLACE VIEW outboxcdc.outbox_status AS SELECT * FROM outboxcdc.outbox_rows();
COMMENT ON VIEW outboxcdc.outbox_status IS
    'Every row of the outbox tables with its status: SENT, PENDING or UNKNOWN, by the delivered snapshot in outboxcdc.checkpoint. UNKNOWN throughout when positions are not saved in this database.';

INSERT INTO outboxcdc.migration (number, name) VALUES (5, 'status') ON CONFLICT DO NOTHING;
