package connector

import (
	"errors"
	"slices"
	"strings"
)

var (
	errForeign  = errors.New("the configuration is not of Debezium's connector for Postgres")
	errNoRouter = errors.New("the configuration has no Outbox Event Router")
)

// rule says what becomes of options that shape no record.
type rule struct {
	names  []string // whole names, or beginnings that end in a dot or an asterisk
	values []string // where only these count; nil is any
	fate   Fate
	text   string
}

func (r *rule) matches(name, value string) bool {
	if r.values != nil && !slices.Contains(r.values, strings.ToLower(strings.TrimSpace(value))) {
		return false
	}
	return slices.ContainsFunc(r.names, func(n string) bool {
		if beginning, open := strings.CutSuffix(n, "*"); open {
			return strings.HasPrefix(name, beginning)
		}
		return n == name
	})
}

// rules are looked through from the first; an option that none matches is unknown.
func rules() []rule {
	return slices.Concat(connectionRules(), positionRules(), recordRules(), runtimeRules())
}

func connectionRules() []rule {
	return []rule{
		{[]string{"connector.class", "name", "tasks.max", "tasks.max.enforce"}, nil, Needless, "one process streams one slot"},
		{[]string{"database.hostname", "database.port", "database.user", "database.dbname", "database.sslmode", "database.sslrootcert", "database.sslcert", "database.sslkey"}, nil, Kept, "--database-url"},
		{[]string{"database.password"}, nil, Kept, "put it into OUTBOXCDC_DATABASE_URL, a PGPASSFILE or a mounted secret; it is not printed here"},
		{[]string{"database.sslpassword"}, nil, Missing, "a client key with a password is not read: store it without"},
		{[]string{"database.initial.statements", "database.connection.factory.class", "connection.factory.class"}, nil, Missing, "connections are made as libpq makes them"},
		{[]string{"database.tcpkeepalive", "database.query.timeout.ms", "database.*", "driver.*"}, nil, Needless, "the connection has deadlines of its own"},
		{[]string{"producer.override.bootstrap.servers"}, nil, Kept, "--sink"},
		{prefixed(producerPrefix, sinkSettings()), nil, Kept, "a setting in the URL of --sink, by the same name"},
		{[]string{"producer.override.sasl.jaas.config", "producer.override.sasl.username", "producer.override.sasl.password"}, nil, Kept, "a setting in the URL of --sink; put it into the environment, it is not printed here"},
		{[]string{"producer.override.key.serializer", "producer.override.value.serializer", "sink.type"}, nil, Needless, "records are bytes"},
		{[]string{"producer.override.acks", "producer.override.enable.idempotence", "producer.override.retries", "producer.override.max.in.flight.requests.per.connection", "producer.override.delivery.timeout.ms", "producer.override.max.block.ms", "producer.override.batch.size", "producer.override.buffer.memory"}, nil, Differs, "not for setting: acks=all, idempotent, retried without end, bounded in bytes"},
		{[]string{"producer.override.*"}, nil, Missing, "the sink's URL has no such setting"},
	}
}

func prefixed(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = prefix + name
	}
	return out
}

func positionRules() []rule {
	return []rule{
		{[]string{"plugin.name"}, []string{"pgoutput"}, Kept, "the only plugin of outboxcdc"},
		{[]string{"plugin.name"}, nil, Missing, "a slot keeps its plugin, and outboxcdc reads pgoutput only: this slot cannot be taken over. Move the connector to pgoutput first, or stop writing, let it run dry and begin with a new slot"},
		{[]string{"slot.name"}, nil, Kept, "--slot: the same slot, from where it stands"},
		{[]string{"slot.drop.on.stop"}, []string{"true"}, Missing, "the connector drops its slot when it stops, and with it what it has not sent: set it to false and restart the connector before you stop it for good"},
		{[]string{"slot.drop.on.stop"}, nil, Kept, "the slot stays"},
		{[]string{"slot.failover"}, nil, Kept, "a property of the slot itself, which is kept"},
		{[]string{"slot.max.retries", "slot.retry.delay.ms", "slot.seek.to.known.offset.on.start", "slot.stream.params"}, nil, Needless, "a busy slot is waited for"},
		{[]string{"publication.name"}, nil, Kept, "--publication: the same publication"},
		{[]string{"publication.autocreate.mode"}, []string{"disabled", "filtered"}, Kept, "the publication is taken as it is"},
		{[]string{"publication.autocreate.mode"}, nil, Differs, "the publication is taken as it is; one FOR ALL TABLES has every change of the database decoded and sent for nothing: see docs/debezium.md for the way to a small one"},
		{[]string{"publish.via.partition.root"}, nil, Kept, "a property of the publication; check looks at it"},
		{[]string{"table.include.list"}, nil, Kept, "--table"},
		{[]string{"schema.include.list", "schema.exclude.list", "table.exclude.list", "table.ignore.builtin", "skipped.operations", "column.include.list", "column.exclude.list", "replica.identity.autoset.values", "message.key.columns"}, nil, Needless, "only inserts into the tables of --table are read, and of them the columns that the format names"},
		{[]string{"column.mask.*", "column.truncate.*", "column.propagate.source.type", "datatype.propagate.source.type"}, nil, Missing, "columns are sent as they are"},
		{[]string{"snapshot.mode"}, []string{"no_data", "never"}, Kept, "no snapshot is taken"},
		{[]string{"snapshot.mode"}, nil, Differs, "no snapshot is taken: what is in the table before the slot's position was sent by the connector, and is not sent again"},
		{[]string{"snapshot.*", "incremental.snapshot.*", "read.only", "signal.*", "notification.*"}, nil, Needless, "no snapshot is taken"},
		{[]string{"lsn.flush.*", "flush.lsn.source", "offset.mismatch.strategy", "offset.*", "xmin.fetch.interval.ms", "status.update.interval.ms", "internal.*", "wal.*"}, nil, Needless, "the position is saved when the broker has the events, and then confirmed; an idle slot moves on by itself"},
		{[]string{"heartbeat.*"}, nil, Needless, "an idle slot moves on by itself; take the heartbeat's table out of the publication when the connector is gone"},
		{[]string{"message.prefix.include.list", "message.prefix.exclude.list"}, nil, Differs, "logical messages are read with the prefix outboxcdc alone"},
	}
}

func recordRules() []rule {
	return []rule{
		{[]string{"transforms"}, nil, Kept, "each transform is judged by its type"},
		{[]string{"transforms.*", "predicates", "predicates.*"}, nil, Missing, "there are no transforms beside the router: what this one does to records must be done by the writer or the consumer"},
		{[]string{"interval.handling.mode"}, []string{"numeric"}, Kept, "an interval is its microseconds"},
		{[]string{"interval.handling.mode", "hstore.handling.mode", "money.fraction.digits", "include.unknown.datatypes"}, nil, Differs, "columns of such types are refused at the start when they are used"},
		{[]string{"tombstones.on.delete", "provide.transaction.metadata", "topic.naming.strategy", "topic.delimiter", "topic.cache.size", "topic.heartbeat.prefix", "topic.transaction", "transaction.*", "schema.refresh.mode", "unavailable.value.placeholder", "sourceinfo.struct.maker", "event.converting.failure.handling.mode"}, nil, Needless, "it concerns events that the router passes over"},
		{[]string{"schema.name.adjustment.mode", "field.name.adjustment.mode"}, []string{"none"}, Kept, "names are kept"},
		{[]string{"schema.name.adjustment.mode", "field.name.adjustment.mode"}, nil, Missing, "names of schemas and fields are not changed"},
		{[]string{"key.converter.*", "value.converter.*", "header.converter.*"}, []string{"base64"}, Kept, "decimals are base64"},
		{[]string{"key.converter.*", "value.converter.*", "header.converter.*"}, nil, Missing, "the converter is used with its defaults"},
		{[]string{"converters", "post.processors", "custom.*"}, nil, Missing, "there are no plug-ins"},
		{[]string{"exactly.once.support", "transaction.boundary", "transaction.boundary.interval.ms", "offsets.storage.topic"}, nil, Differs, "delivery is at least once; see the README for what a consumer does about it"},
	}
}

func runtimeRules() []rule {
	return []rule{
		{[]string{"errors.tolerance"}, []string{"none"}, Kept, "a row that cannot be sent stops the stream"},
		{[]string{"errors.tolerance", "event.processing.failure.handling.mode"}, nil, Differs, "a row that cannot be sent is never dropped without being asked to: see --on-error"},
		{[]string{"errors.*", "retriable.restart.connector.wait.ms"}, nil, Differs, "what time may mend is tried again without end; the rest stops with what to do about it"},
		{[]string{"max.batch.size", "max.queue.size", "max.queue.size.in.bytes", "poll.interval.ms", "poll.dispatch.interval.ms", "executor.*", "record.processing.*"}, nil, Needless, "nothing waits for a batch, and memory is bounded in bytes"},
		{[]string{"topic.creation.*"}, nil, Differs, "topics must exist, or --create-topics makes them with the broker's defaults"},
		{[]string{"config.providers", "config.providers.*", "config.action.reload", "quarkus.*", "statistics.*", "guardrail.*", "openlineage.*", "custom.metric.tags", "engine.*"}, nil, Needless, "it is about the JVM and Connect"},
	}
}
