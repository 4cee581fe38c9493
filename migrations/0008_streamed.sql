-- Whether a stream began from a slot: a first start is one before which none did.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0008_streamed.sql
--
-- The role that streams needs nothing more; whoever runs `outboxcdc drop` needs
--     GRANT SELECT, DELETE ON outboxcdc.outbox_table, outboxcdc.unsure TO …;
-- or owns them.

ALTER TABLE outboxcdc.outbox_table ADD COLUMN IF NOT EXISTS streamed_lsn pg_lsn;
COMMENT ON COLUMN outboxcdc.outbox_table.streamed_lsn IS
    'Where the slot stood when a stream first began from it; NULL before that. A slot that stands elsewhere, and of which no position is saved, has lost it.';

INSERT INTO outboxcdc.migration (number, name) VALUES (8, 'streamed') ON CONFLICT DO NOTHING;
