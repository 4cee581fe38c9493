-- The shop's own tables. The outbox table comes from `outboxcdc init`.
CREATE TABLE orders (
    id      bigint PRIMARY KEY,
    cents   bigint NOT NULL,
    status  text   NOT NULL
);

-- Billing, which hears of orders from RabbitMQ. In real life this is a database of
-- its own, and so is the next.
CREATE SCHEMA billing;
CREATE TABLE billing.invoice (
    order_id bigint  PRIMARY KEY,
    cents    bigint  NOT NULL,
    paid     boolean NOT NULL DEFAULT false
);
CREATE TABLE billing.inbox (
    event_id   uuid        PRIMARY KEY, -- what was handled; a second delivery finds it here
    handled_at timestamptz NOT NULL DEFAULT now()
);

-- The warehouse, which hears of orders from Kafka.
CREATE SCHEMA warehouse;
CREATE TABLE warehouse.parcel (
    order_id bigint  PRIMARY KEY,
    packed   boolean NOT NULL DEFAULT false
);
CREATE TABLE warehouse.inbox (
    event_id   uuid        PRIMARY KEY,
    handled_at timestamptz NOT NULL DEFAULT now()
);
