-- Rows that are parked are PARKED, and no longer SENT.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0009_parked_status.sql
--
-- Whoever looks at outboxcdc.outbox_status needs SELECT on outboxcdc.parked too.

-- PARKED means that a row of the transaction is parked.
CREATE OR REPLACE FUNCTION outboxcdc.row_status(slot text, table_schema text, table_name text, xid xid8)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT CASE
        WHEN EXISTS (SELECT FROM outboxcdc.parked p JOIN outboxcdc.checkpoint c ON (c.slot, c.system) = (p.slot, p.system)
            WHERE (p.slot, p.table_schema, p.table_name, p.state) = ($1, $2, $3, 'parked') AND p.xid = $4::xid::text::bigint)
        THEN 'PARKED'
        WHEN xid IS NULL OR NOT EXISTS (SELECT FROM outboxcdc.checkpoint c WHERE c.slot = $1) THEN 'UNKNOWN'
        WHEN EXISTS (SELECT FROM outboxcdc.unsure_between($1, $2, $3) u
            WHERE (u.after IS NULL OR pg_visible_in_snapshot(xid, u.after)) AND (u.before IS NULL OR NOT pg_visible_in_snapshot(xid, u.before)))
        THEN 'UNKNOWN'
        WHEN (SELECT pg_visible_in_snapshot(xid, c.delivered) FROM outboxcdc.checkpoint c WHERE c.slot = $1) THEN 'SENT'
        ELSE 'PENDING' END
$$;
COMMENT ON FUNCTION outboxcdc.row_status(text, text, text, xid8) IS
    'SENT, PENDING, PARKED or UNKNOWN for a row of an outbox table, by the transaction in its column xid.';

-- As in 0005, and rows that are parked are PARKED. A parked row is known by its
-- transaction and its column id. Where the stream reads no such column, every row of a
-- transaction with parked rows is PARKED, since nobody can tell which of them are. Both
-- lists are made once for a table, and not at all where nothing is parked.
CREATE OR REPLACE FUNCTION outboxcdc.outbox_rows()
RETURNS TABLE (slot text, table_schema text, table_name text, seq bigint, id text, aggregate_type text, aggregate_id text,
    event_type text, created_at timestamptz, xid xid8, status text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
#variable_conflict use_column
DECLARE
    t          outboxcdc.outbox_table%ROWTYPE;
    columns    text;
    traced     boolean;
    identified boolean;
    saved      boolean;
    aside      boolean;
    cluster    text;
    delivered  pg_snapshot;
    befores    pg_snapshot[];
    afters     pg_snapshot[];
BEGIN
    FOR t IN SELECT * FROM outboxcdc.outbox_table ORDER BY 1, 2, 3 LOOP
        CONTINUE WHEN to_regclass(format('%I.%I', t.table_schema, t.table_name)) IS NULL;
        SELECT string_agg(CASE WHEN a.attname IS NULL THEN 'NULL::' || w.type
                WHEN w.type = 'bigint' AND a.atttypid NOT IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'NULL::bigint'
                WHEN w.type = 'timestamptz' AND a.atttypid NOT IN ('timestamp'::regtype, 'timestamptz'::regtype) THEN 'NULL::timestamptz'
                WHEN w.type = 'xid8' AND a.atttypid <> 'xid8'::regtype THEN 'NULL::xid8'
                ELSE format('r.%I::%s', w.name, w.type) END, ', ' ORDER BY w.place),
            coalesce(bool_or(w.type = 'xid8' AND a.atttypid = 'xid8'::regtype), false), coalesce(bool_or(a.attname = 'id'), false)
        INTO columns, traced, identified
        FROM (VALUES (1, 'seq', 'bigint'), (2, 'id', 'text'), (3, 'aggregate_type', 'text'), (4, 'aggregate_id', 'text'),
                (5, 'event_type', 'text'), (6, 'created_at', 'timestamptz'), (7, 'xid', 'xid8')) AS w (place, name, type)
            LEFT JOIN pg_attribute a ON a.attrelid = format('%I.%I', t.table_schema, t.table_name)::regclass
                AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped;
        SELECT c.delivered, c.system INTO delivered, cluster FROM outboxcdc.checkpoint c WHERE c.slot = t.slot;
        saved := FOUND;
        aside := EXISTS (SELECT FROM outboxcdc.parked p WHERE p.slot = t.slot AND p.system = cluster
            AND p.table_schema = t.table_schema AND p.table_name = t.table_name AND p.state = 'parked');
        SELECT coalesce(array_agg(u.before), '{}'), coalesce(array_agg(u.after), '{}') INTO befores, afters
        FROM outboxcdc.unsure_between(t.slot, t.table_schema, t.table_name) u;
        RETURN QUERY EXECUTE format('SELECT $1, $2, $3, %s, %s FROM %I.%I r', columns,
            CASE WHEN NOT traced OR NOT saved THEN quote_literal('UNKNOWN')
            ELSE 'CASE ' || CASE WHEN aside THEN format('WHEN (r.xid::xid::text::bigint, %s) IN (SELECT p.xid, convert_from(p.columns[array_position(p.column_names, ''id'')], ''UTF8'')
                    FROM outboxcdc.parked p WHERE (p.slot, p.system, p.table_schema, p.table_name, p.state) = ($1, $7, $2, $3, ''parked'') AND array_position(p.column_names, ''id'') IS NOT NULL)
                OR r.xid::xid::text::bigint IN (SELECT p.xid
                    FROM outboxcdc.parked p WHERE (p.slot, p.system, p.table_schema, p.table_name, p.state) = ($1, $7, $2, $3, ''parked'') AND array_position(p.column_names, ''id'') IS NULL)
                THEN ''PARKED'' ', CASE WHEN identified THEN 'r.id::text' ELSE 'NULL::text' END) ELSE '' END || 'WHEN r.xid IS NULL OR EXISTS (SELECT FROM unnest($5, $6) u (before, after)
                WHERE (u.after IS NULL OR pg_visible_in_snapshot(r.xid, u.after)) AND (u.before IS NULL OR NOT pg_visible_in_snapshot(r.xid, u.before)))
                THEN ''UNKNOWN'' WHEN pg_visible_in_snapshot(r.xid, $4) THEN ''SENT'' ELSE ''PENDING'' END' END,
            t.table_schema, t.table_name)
        USING t.slot, t.table_schema, t.table_name, delivered, befores, afters, cluster;
    END LOOP;
END
$$;

COMMENT ON VIEW outboxcdc.outbox_status IS
    'Every row of the outbox tables with its status: SENT, PENDING, PARKED or UNKNOWN, by the delivered snapshot in outboxcdc.checkpoint and by outboxcdc.parked. UNKNOWN throughout when positions are not saved in this database.';

INSERT INTO outboxcdc.migration (number, name) VALUES (9, 'parked_status') ON CONFLICT DO NOTHING;
