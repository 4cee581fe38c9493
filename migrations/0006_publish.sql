-- Functions that publish an event, in the transaction that calls them.
--
-- By hand:  psql -1 -v ON_ERROR_STOP=1 -f 0006_publish.sql
--
-- They run with the rights of their caller, who needs
--     GRANT USAGE ON SCHEMA outboxcdc TO …;
-- and to publish to a table GRANT INSERT on it. To publish a message, EXECUTE on
-- pg_logical_emit_message, which everybody has unless it was revoked: see
-- `outboxcdc check`.

CREATE OR REPLACE FUNCTION outboxcdc.checked(aggregate_type text, aggregate_id text, event_type text, headers jsonb)
RETURNS void LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
    -- What would stop the stream is refused to the one who writes it.
    IF coalesce(aggregate_id, '') = '' THEN
        RAISE EXCEPTION 'aggregate_id is null or empty' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is the key of the record, and keeps the events of the aggregate in order.';
    ELSIF coalesce(aggregate_type, '') = '' OR coalesce(event_type, '') = '' THEN
        RAISE EXCEPTION 'aggregate_type or event_type is null or empty' USING ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_typeof(headers) <> 'object' THEN
        RAISE EXCEPTION 'headers is no JSON object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
COMMENT ON FUNCTION outboxcdc.checked(text, text, text, jsonb) IS 'Refuses an event that cannot be sent.';

CREATE OR REPLACE FUNCTION outboxcdc.publish(aggregate_type text, aggregate_id text, event_type text, payload jsonb,
    headers jsonb DEFAULT NULL, outbox regclass DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    id     uuid     := gen_random_uuid();
    target regclass := coalesce(outbox, to_regclass('public.outbox'));
BEGIN
    PERFORM outboxcdc.checked(aggregate_type, aggregate_id, event_type, headers);
    IF target IS NULL THEN
        RAISE EXCEPTION 'there is no table public.outbox' USING ERRCODE = 'undefined_table',
            HINT = 'Name the outbox table, as in outbox => ''sales.outbox''.';
    END IF;
    EXECUTE format('INSERT INTO %s (id, aggregate_type, aggregate_id, event_type, payload, headers) VALUES ($1, $2, $3, $4, $5, $6)', target)
        USING id, aggregate_type, aggregate_id, event_type, payload, headers;
    RETURN id;
END
$$;
COMMENT ON FUNCTION outboxcdc.publish(text, text, text, jsonb, jsonb, regclass) IS
    'Inserts an event into an outbox table that outboxcdc init has made, public.outbox when none is named, and gives its id.';

-- The content is UTF-8, whatever the encoding of the database: nobody converts that of
-- a message on its way.
CREATE OR REPLACE FUNCTION outboxcdc.publish_message(aggregate_type text, aggregate_id text, event_type text, payload jsonb,
    headers jsonb DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    id uuid := gen_random_uuid();
BEGIN
    PERFORM outboxcdc.checked(aggregate_type, aggregate_id, event_type, headers);
    PERFORM pg_logical_emit_message(true, 'outboxcdc', convert_to(json_build_object(
        'id', id, 'aggregate_type', aggregate_type, 'aggregate_id', aggregate_id, 'event_type', event_type,
        'payload', payload, 'headers', headers)::text, 'UTF8'));
    RETURN id;
END
$$;
COMMENT ON FUNCTION outboxcdc.publish_message(text, text, text, jsonb, jsonb) IS
    'Writes an event into the log and no table, for a stream with --message-prefix outboxcdc, and gives its id.';

INSERT INTO outboxcdc.migration (number, name) VALUES (6, 'publish') ON CONFLICT DO NOTHING;
