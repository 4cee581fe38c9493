-- The schema of outboxcdc, its record of migrations, and the saved positions.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0001_checkpoint.sql
--
-- The role that runs this owns what it makes. It needs CREATE on the database, or
-- CREATE on the schema outboxcdc where that exists. Nobody else is granted
-- anything. The role that streams needs no more than
--     GRANT USAGE ON SCHEMA outboxcdc TO …;
--     GRANT SELECT, INSERT, UPDATE ON outboxcdc.checkpoint TO …;
-- and only when positions are saved in the database, which is the default.

DO $$
BEGIN
    -- CREATE SCHEMA IF NOT EXISTS wants CREATE on the database even when the
    -- schema is there, made by an administrator for this role.
    IF to_regnamespace('outboxcdc') IS NULL THEN
        CREATE SCHEMA outboxcdc;
        COMMENT ON SCHEMA outboxcdc IS 'State of outboxcdc, which streams outbox tables to a message broker.';
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS outboxcdc.migration (
    number       integer     NOT NULL,
    name         text        NOT NULL,
    table_schema text        NOT NULL DEFAULT '',
    table_name   text        NOT NULL DEFAULT '',
    applied_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (number, table_schema, table_name)
);
COMMENT ON TABLE outboxcdc.migration IS
    'Migrations of outboxcdc that were applied here. One that makes or changes an outbox table stands once for each; the others have an empty table name.';

-- pg_lsn rather than text: it is 64 bits unsigned and ordered, the server refuses
-- what is no position, and an administrator can subtract it from
-- pg_current_wal_lsn(). timeline is unsigned and 32 bits wide, hence bigint.
CREATE TABLE IF NOT EXISTS outboxcdc.checkpoint (
    slot     text        NOT NULL PRIMARY KEY,
    format   integer     NOT NULL,
    system   text        NOT NULL,
    timeline bigint      NOT NULL,
    database text        NOT NULL,
    lsn      pg_lsn      NOT NULL,
    saved_at timestamptz NOT NULL
);
COMMENT ON TABLE outboxcdc.checkpoint IS
    'The saved position of each replication slot: a row says that the broker holds every event before lsn. Delete the row to let the stream start where the slot itself stands.';
COMMENT ON COLUMN outboxcdc.checkpoint.slot     IS 'Name of the replication slot.';
COMMENT ON COLUMN outboxcdc.checkpoint.format   IS 'Version of the meaning of this row; outboxcdc refuses one that it does not know.';
COMMENT ON COLUMN outboxcdc.checkpoint.system   IS 'System identifier of the cluster; the position means nothing in another one.';
COMMENT ON COLUMN outboxcdc.checkpoint.timeline IS 'Timeline of the cluster when the position was saved.';
COMMENT ON COLUMN outboxcdc.checkpoint.database IS 'Database of the slot.';
COMMENT ON COLUMN outboxcdc.checkpoint.lsn      IS 'Every transaction that ends at or before it is with the broker.';
COMMENT ON COLUMN outboxcdc.checkpoint.saved_at IS 'When it was saved, for people.';

INSERT INTO outboxcdc.migration (number, name) VALUES (1, 'checkpoint') ON CONFLICT DO NOTHING;
