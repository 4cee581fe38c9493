-- Rows that could not be sent, and those of their aggregates that wait behind them.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0007_parked.sql
--
-- The role that streams with --on-error park needs
--     GRANT SELECT, INSERT, UPDATE, DELETE ON outboxcdc.parked TO …;
-- one that streams without, SELECT, to see that nothing is parked; and the role that runs
-- `outboxcdc dlq`, SELECT and UPDATE.

CREATE TABLE IF NOT EXISTS outboxcdc.parked (
    slot           text        NOT NULL,
    system         text        NOT NULL,
    commit_lsn     pg_lsn      NOT NULL,
    index          bigint      NOT NULL,
    xid            bigint      NOT NULL,
    committed_at   timestamptz NOT NULL,
    table_schema   text        NOT NULL,
    table_name     text        NOT NULL,
    aggregate      bytea       NOT NULL,
    aggregate_type bytea,
    aggregate_id   bytea,
    event_id       bytea,
    column_names   text[]      NOT NULL,
    columns        bytea[]     NOT NULL,
    shape          jsonb,
    bytes          bigint      NOT NULL,
    cause          text        NOT NULL,
    reason         text        NOT NULL,
    state          text        NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'sent', 'dropped')),
    asked          text        CHECK (asked IN ('retry', 'drop')),
    parked_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at     timestamptz,
    PRIMARY KEY (slot, system, commit_lsn, index)
);
CREATE INDEX IF NOT EXISTS parked_aggregate ON outboxcdc.parked (slot, system, aggregate, commit_lsn, index) WHERE state = 'parked';
CREATE INDEX IF NOT EXISTS parked_asked ON outboxcdc.parked (slot, system) WHERE state = 'parked' AND asked IS NOT NULL;
COMMENT ON TABLE outboxcdc.parked IS
    'Rows that a stream with --on-error park could not send, and those of the same aggregates that wait behind them. `outboxcdc dlq` is for them. Rows that are settled go after a week.';
COMMENT ON COLUMN outboxcdc.parked.slot           IS 'Name of the replication slot.';
COMMENT ON COLUMN outboxcdc.parked.system         IS 'System identifier of the cluster whose log the position is of.';
COMMENT ON COLUMN outboxcdc.parked.commit_lsn     IS 'Position of the commit record of the row''s transaction.';
COMMENT ON COLUMN outboxcdc.parked.index          IS 'The row''s place among the outbox rows of that transaction.';
COMMENT ON COLUMN outboxcdc.parked.xid            IS 'The transaction, without its epoch.';
COMMENT ON COLUMN outboxcdc.parked.committed_at   IS 'When it was committed.';
COMMENT ON COLUMN outboxcdc.parked.table_schema   IS 'Schema of the outbox table.';
COMMENT ON COLUMN outboxcdc.parked.table_name     IS 'Name of the outbox table.';
COMMENT ON COLUMN outboxcdc.parked.aggregate      IS 'Equal for rows that keep an order among one another.';
COMMENT ON COLUMN outboxcdc.parked.aggregate_type IS 'The aggregate''s type, as its bytes; NULL where it does not tell aggregates apart.';
COMMENT ON COLUMN outboxcdc.parked.aggregate_id   IS 'The aggregate''s id, as its bytes; NULL when the row has none.';
COMMENT ON COLUMN outboxcdc.parked.event_id       IS 'The event''s id, as its bytes; NULL when the row has none.';
COMMENT ON COLUMN outboxcdc.parked.column_names   IS 'The columns that the stream reads.';
COMMENT ON COLUMN outboxcdc.parked.columns        IS 'Their values, as the bytes of the text that Postgres rendered.';
COMMENT ON COLUMN outboxcdc.parked.shape          IS 'The table as it was then.';
COMMENT ON COLUMN outboxcdc.parked.bytes          IS 'Size of the values.';
COMMENT ON COLUMN outboxcdc.parked.cause          IS 'mapping, refused or behind: the row cannot be mapped, the broker does not take it, or it waits behind another of its aggregate.';
COMMENT ON COLUMN outboxcdc.parked.reason         IS 'Why, in a sentence without values.';
COMMENT ON COLUMN outboxcdc.parked.state          IS 'parked, sent or dropped.';
COMMENT ON COLUMN outboxcdc.parked.asked          IS 'What `outboxcdc dlq` asked for and the stream has yet to do: retry or drop.';
COMMENT ON COLUMN outboxcdc.parked.parked_at      IS 'When it was parked.';
COMMENT ON COLUMN outboxcdc.parked.settled_at     IS 'When it was sent or dropped.';

INSERT INTO outboxcdc.migration (number, name) VALUES (7, 'parked') ON CONFLICT DO NOTHING;
