-- Replays: what was planned, and how far each has come.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0004_replay.sql
--
-- Only the role that runs `outboxcdc replay` needs
--     GRANT SELECT, INSERT, UPDATE ON outboxcdc.replay TO …;

CREATE TABLE IF NOT EXISTS outboxcdc.replay (
    id          text        NOT NULL PRIMARY KEY,
    slot        text        NOT NULL,
    system      text        NOT NULL,
    plan        jsonb       NOT NULL,
    reached     jsonb,
    sent        bigint      NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
COMMENT ON TABLE outboxcdc.replay IS
    'One row for each replay: it goes on from here when it was interrupted. Rows may be deleted.';
COMMENT ON COLUMN outboxcdc.replay.id          IS 'The run; each of its events has it in the header outboxcdc-replay.';
COMMENT ON COLUMN outboxcdc.replay.slot        IS 'The replication slot whose events are sent again.';
COMMENT ON COLUMN outboxcdc.replay.system      IS 'System identifier of the cluster.';
COMMENT ON COLUMN outboxcdc.replay.plan        IS 'What is sent again, and from which source.';
COMMENT ON COLUMN outboxcdc.replay.reached     IS 'Up to where all of it is with the broker. NULL before that.';
COMMENT ON COLUMN outboxcdc.replay.sent        IS 'How many events that is.';
COMMENT ON COLUMN outboxcdc.replay.started_at  IS 'When it was planned.';
COMMENT ON COLUMN outboxcdc.replay.updated_at  IS 'When it last went on.';
COMMENT ON COLUMN outboxcdc.replay.finished_at IS 'When it came to its end. NULL before that.';

INSERT INTO outboxcdc.migration (number, name) VALUES (4, 'replay') ON CONFLICT DO NOTHING;
