-- What was delivered, in terms of transactions, and its history.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0003_history.sql
--
-- The role that streams needs, besides what 0001 names,
--     GRANT SELECT, INSERT, UPDATE, DELETE ON outboxcdc.history TO …;

ALTER TABLE outboxcdc.checkpoint ADD COLUMN IF NOT EXISTS index bigint NOT NULL DEFAULT 0;
ALTER TABLE outboxcdc.checkpoint ADD COLUMN IF NOT EXISTS delivered pg_snapshot;
ALTER TABLE outboxcdc.checkpoint ADD COLUMN IF NOT EXISTS delivered_lsn pg_lsn;
ALTER TABLE outboxcdc.checkpoint ADD COLUMN IF NOT EXISTS delivered_at timestamptz;
COMMENT ON COLUMN outboxcdc.checkpoint.index         IS 'How many rows of the next transaction are with the broker too; 0, since whole transactions are saved.';
COMMENT ON COLUMN outboxcdc.checkpoint.delivered     IS 'A snapshot that was taken before delivered_lsn: a transaction that is visible in it is with the broker. NULL until one is known.';
COMMENT ON COLUMN outboxcdc.checkpoint.delivered_lsn IS 'A position of the log that was taken after the snapshot and is at or before lsn.';
COMMENT ON COLUMN outboxcdc.checkpoint.delivered_at  IS 'When the snapshot was taken.';

CREATE TABLE IF NOT EXISTS outboxcdc.history (
    slot          text        NOT NULL,
    saved_at      timestamptz NOT NULL,
    format        integer     NOT NULL,
    system        text        NOT NULL,
    timeline      bigint      NOT NULL,
    database      text        NOT NULL,
    lsn           pg_lsn      NOT NULL,
    index         bigint      NOT NULL,
    delivered     pg_snapshot,
    delivered_lsn pg_lsn,
    delivered_at  timestamptz,
    gap           jsonb,
    PRIMARY KEY (slot, saved_at)
);
COMMENT ON TABLE outboxcdc.history IS
    'The saved position of each slot once a minute, for a week: where a replay or a recovery begins. A row with a gap stays for good: it says what an operator accepted to be passed.';
COMMENT ON COLUMN outboxcdc.history.slot          IS 'Name of the replication slot.';
COMMENT ON COLUMN outboxcdc.history.saved_at      IS 'When the position was saved.';
COMMENT ON COLUMN outboxcdc.history.format        IS 'Version of the meaning of this row; outboxcdc refuses one that it does not know.';
COMMENT ON COLUMN outboxcdc.history.system        IS 'System identifier of the cluster.';
COMMENT ON COLUMN outboxcdc.history.timeline      IS 'Timeline of the cluster.';
COMMENT ON COLUMN outboxcdc.history.database      IS 'Database of the slot.';
COMMENT ON COLUMN outboxcdc.history.lsn           IS 'Every transaction that ends at or before it was with the broker.';
COMMENT ON COLUMN outboxcdc.history.index         IS 'As in outboxcdc.checkpoint.';
COMMENT ON COLUMN outboxcdc.history.delivered     IS 'As in outboxcdc.checkpoint.';
COMMENT ON COLUMN outboxcdc.history.delivered_lsn IS 'As in outboxcdc.checkpoint.';
COMMENT ON COLUMN outboxcdc.history.delivered_at  IS 'As in outboxcdc.checkpoint.';
COMMENT ON COLUMN outboxcdc.history.gap           IS 'What was passed without being sent, and accepted: from, to, the snapshots before and after, the reason. NULL for most rows.';

INSERT INTO outboxcdc.migration (number, name) VALUES (3, 'history') ON CONFLICT DO NOTHING;
