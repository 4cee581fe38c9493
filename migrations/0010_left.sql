-- Tables that a slot streamed and streams no longer, or does not stream yet.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0010_left.sql
--
-- Nobody needs another right than before.

ALTER TABLE outboxcdc.outbox_table ADD COLUMN IF NOT EXISTS left_at timestamptz;
ALTER TABLE outboxcdc.outbox_table ADD COLUMN IF NOT EXISTS left_after pg_snapshot;
COMMENT ON COLUMN outboxcdc.outbox_table.left_at    IS 'Since when the stream runs without the table; NULL while it streams it.';
COMMENT ON COLUMN outboxcdc.outbox_table.left_after IS 'What was delivered by then: other rows may never have been sent. NULL shows nothing.';

-- As in 0005, and a table that is new to a slot that is streamed from is not streamed yet.
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
    -- A stream that began without the table goes on without it until it begins again.
    INSERT INTO outboxcdc.outbox_table (slot, table_schema, table_name, identity, slot_lsn, left_at)
    VALUES (register.slot, register.table_schema, register.table_name, oids, stands,
        CASE WHEN EXISTS (SELECT FROM outboxcdc.outbox_table t WHERE t.slot = register.slot AND t.streamed_lsn IS NOT NULL) THEN now() END)
    ON CONFLICT (slot, table_schema, table_name) DO UPDATE SET
        identity = excluded.identity, slot_lsn = excluded.slot_lsn, registered_at = now(),
        left_after = CASE WHEN NOT anew AND split_part(known.identity, '.', 1) = split_part(oids, '.', 1) THEN known.left_after END;
    RETURN why;
END
$$;

-- As in 0005, and for tables that are left out all that comes later.
CREATE OR REPLACE FUNCTION outboxcdc.unsure_between(slot text, table_schema text, table_name text)
RETURNS TABLE (before pg_snapshot, after pg_snapshot) LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT u.before, u.after FROM outboxcdc.unsure u
    WHERE u.slot = $1 AND u.table_schema = $2 AND u.table_name = $3
    UNION ALL
    SELECT t.left_after, NULL FROM outboxcdc.outbox_table t
    WHERE t.slot = $1 AND t.table_schema = $2 AND t.table_name = $3 AND t.left_at IS NOT NULL
    UNION ALL
    SELECT (h.gap #>> '{before,snapshot}')::pg_snapshot, (h.gap #>> '{after,snapshot}')::pg_snapshot
    FROM outboxcdc.history h WHERE h.slot = $1 AND h.gap IS NOT NULL
$$;

INSERT INTO outboxcdc.migration (number, name) VALUES (10, 'left') ON CONFLICT DO NOTHING;
