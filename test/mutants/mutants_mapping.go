package main

// mappingMutants let rows reach what they must not, and lose logical messages.
//
//nolint:gochecknoglobals // a table
var mappingMutants = []mutant{
	{
		name: "messages: one outside of a transaction is not in the ledger",
		file: "wal/stream.go", old: "\t\tif err := s.rows.message(message); err != nil {\n\t\t\treturn err\n\t\t}\n", new: "\t\tif err := s.rows.message(message); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif message[0] == kindMessage && message[1] == 0 {\n\t\t\ts.confirmed.Store(max(s.confirmed.Load(), uint64(s.rows.last)))\n\t\t}\n",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "messages: one outside of a transaction has the position of the next commit",
		file: "wal/batch.go", old: "Commit: m.end - 1,", new: "Commit: m.end,",
		pkg: "./wal", test: "TestAMessageOutsideATransactionIsAUnitOfItsOwn",
	},
	{
		name: "messages: one outside of a transaction does not end a unit",
		file: "wal/batch.go", old: "a.last, a.end = m.end, m.end", new: "a.last = m.end",
		pkg: "./wal", test: "TestAMessageOutsideATransactionIsAUnitOfItsOwn",
	},
	{
		name: "messages: those of others are events",
		file: "wal/batch.go", old: `case a.prefix == "" || m.prefix != a.prefix:`, new: `case a.prefix == "":`,
		pkg: "./wal", test: "TestMessagesOfOthersAreNoRowsAndNoPositions",
	},
	{
		name: "messages: one of a transaction does not count among its rows",
		file: "wal/batch.go", old: "}, m.content)\n\t\ta.tx.rows++\n", new: "}, m.content)\n",
		pkg: "./wal", test: "TestATransactionsMessageIsARowInItsPlace",
	},
	{
		name: "messages: a bad one outside of a transaction is confirmed",
		file: "pipeline/pipeline.go", old: "\tif batch.Rows[bad].Alone {", new: "\tif false {",
		pkg: "./pipeline", test: "TestABadMessageOutsideOfTransactionsIsNeverConfirmed",
	},
	{
		name: "messages: bytes that are no UTF-8 are sent",
		file: "outbox/message.go", old: "if !utf8.Valid(content) {", new: "if false && !utf8.Valid(content) {",
		pkg: "./outbox", test: "TestAMessageThatIsNoEventIsADataErrorThatNamesIt|FuzzMessage",
	},
	{
		name: "cloudevents: all rows of a table without an id have one",
		file: "outbox/cloudevents.go", old: "if d.Row.Commit == 0 {", new: "if false {",
		pkg: "./outbox", test: "TestACloudEventFromATableNeedsAnID",
	},
	{
		name: "cloudevents: an entry of the headers column forges an attribute",
		file: "outbox/cloudevents.go", old: "strings.EqualFold(header[:len(cePrefix)], cePrefix)", new: "strings.EqualFold(header[:len(cePrefix)], \"cf_\")",
		pkg: "./outbox", test: "TestTheOfficialSDKReadsOurCloudEvents|TestSettingsThatMakeNoCloudEventsAreRefused",
	},
	{
		name: "cloudevents: a quote in an attribute makes another member",
		file: "outbox/cloudevents.go", old: `case c == '"' || c == '\\':`, new: `case c == '\\':`,
		pkg: "./outbox", test: "FuzzCloudEvents",
	},
	{
		name: "cloudevents: what begins with JSON is JSON",
		file: "outbox/cloudevents.go", old: "case e.isJSON && !json.Valid(data):", new: "case e.isJSON && !json.Valid(data[:0]) && data[0] == ' ':",
		pkg: "./outbox", test: "FuzzCloudEvents",
	},
	{
		name: "tombstones: white space is one where only a null is",
		file: "outbox/plan.go", old: "if p.mapping.Tombstones == EmptyTombstones && isBlank(m.Value) {", new: "if isBlank(m.Value) {",
		pkg: "./outbox", test: "FuzzTombstones",
	},
	{
		name: "tombstones: a null is let through although there are to be none",
		file: "outbox/plan.go", old: "if value == nil && p.mapping.Tombstones == NoTombstones {", new: "if value == nil && p.mapping.Tombstones > NoTombstones {",
		pkg: "./outbox", test: "FuzzTombstones",
	},
	{
		name: "messages: an entry forges the position in capitals",
		file: "outbox/header.go", old: "strings.EqualFold(key[:len(HeaderPrefix)], HeaderPrefix)", new: "strings.HasPrefix(key, HeaderPrefix)",
		pkg: "./outbox", test: "FuzzMessage|FuzzRow",
	},
	{
		name: "debezium: a row reaches any topic",
		file: "outbox/topic.go", old: "\ttopic, err := t.router.finish(name)\n\tif err != nil {\n\t\treturn \"\", err\n\t}\n\tif n.known == nil || len(n.known) >= maxTopicNames {\n\t\tn.known = map[string]string{}\n\t}\n\tn.known[name] = topic", new: "\ttopic := name\n\tif n.known == nil || len(n.known) >= maxTopicNames {\n\t\tn.known = map[string]string{}\n\t}\n\tn.known[name] = topic",
		pkg: "./outbox/debezium", test: "FuzzForgery",
	},
	{
		name: "topics: a row can reach the topic of positions",
		file: "pipeline/config.go", old: "own != \"\" {", new: "false && own != \"\" {",
		pkg: "./cmd/outboxcdc", test: "TestMappingFlagsThatContradictAreRefusedInASentence",
	},
	{
		name: "rabbit: a row reaches a queue of the broker's own",
		file: "sink/rabbit_message.go", old: "case r.exchange == \"\" && s.routingKey != r.key && strings.HasPrefix(r.key, brokersOwn):", new: "case false:",
		pkg: "./sink", test: "FuzzRabbitMessage|TestWhatRabbitMQCannotTakeIsADataError",
	},
	{
		name: "rabbit: a row passes for a message that was here before",
		file: "sink/rabbit_message.go", old: "\"BCC\", \"x-death\",", new: "\"BCC\",",
		pkg: "./sink", test: "FuzzRabbitMessage|TestARowCannotRouteByItsHeaders",
	},
	{
		name: "rabbit: an entry forges the key",
		file: "sink/rabbit_message.go", old: "\ttable[rabbitKeyHeader] = tableValue(m.Key)\n", new: "\tif _, there := table[rabbitKeyHeader]; !there {\n\t\ttable[rabbitKeyHeader] = tableValue(m.Key)\n\t}\n",
		pkg: "./sink", test: "FuzzRabbitMessage|TestARowCannotRouteByItsHeaders",
	},
	{
		name: "tracing: a span does not continue its message's trace",
		file: "sink/tracing/traced.go", old: "trace.ContextWithRemoteSpanContext(ctx, parent)", new: "trace.ContextWithRemoteSpanContext(ctx, parent.WithSpanID(trace.SpanID{1}))",
		pkg: "./sink/tracing", test: "TestASampledTraceGoesOnInASpanThatEndsWithTheAck",
	},
	{
		name: "tracing: a message that is traced overtakes those before it",
		file: "sink/tracing/traced.go", old: "\t\tif err := t.sendUntraced(ctx, msgs[from:i], ack); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := t.sendTraced(ctx, msgs[i:i+1], parent, ack); err != nil {\n\t\t\treturn err\n\t\t}\n", new: "\t\tif err := t.sendTraced(ctx, msgs[i:i+1], parent, ack); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := t.sendUntraced(ctx, msgs[from:i], ack); err != nil {\n\t\t\treturn err\n\t\t}\n",
		pkg: "./sink/tracing", test: "TestASampledTraceGoesOnInASpanThatEndsWithTheAck",
	},
	{
		name: "tracing: an error's text leaves the machine",
		file: "sink/tracing/traced.go", old: "span.SetStatus(codes.Error, class)", new: "span.SetStatus(codes.Error, err.Error())",
		pkg: "./sink/tracing", test: "TestASampledTraceGoesOnInASpanThatEndsWithTheAck",
	},
	{
		name: "tracing: a span swallows an ack that failed",
		file: "sink/tracing/traced.go", old: "\t\tack(err)\n", new: "\t\tif err == nil {\n\t\t\tack(err)\n\t\t}\n",
		pkg: "./sink/tracing", test: "TestASampledTraceGoesOnInASpanThatEndsWithTheAck",
	},
	{
		name: "tracing: spans gather while the broker is away",
		file: "sink/tracing/traced.go", old: "t.from.open.Add(1) > mostOpen", new: "t.from.open.Add(1) < 0",
		pkg: "./sink/tracing", test: "TestSpansDoNotGatherWhileTheBrokerIsAway",
	},
	{
		name: "tracing: a span holds what is no UTF-8, and its batch is refused",
		file: "sink/tracing/traced.go", old: "strings.ToValidUTF8(string(of[:min(len(of), longestText)]), \"\")", new: "strings.Clone(string(of[:min(len(of), longestText)]))",
		pkg: "./sink/tracing", test: "TestASpanTakesLittleOfARow",
	},
	{
		name: "tracing: what a collector refuses is sent to it again and again",
		file: "sink/tracing/collector.go", old: "if err == nil || !errors.Is(err, errAgain) {", new: "if err == nil {",
		pkg: "./sink/tracing", test: "TestAnExportIsTriedAgainOnlyWhereThatHelps",
	},
	{
		name: "tracing: the headers for the collector go to another host",
		file: "sink/tracing/environment.go", old: "return http.ErrUseLastResponse", new: "return nil",
		pkg: "./sink/tracing", test: "TestAnExportIsTriedAgainOnlyWhereThatHelps",
	},
	{
		name: "messages: a recovery is advised where no table has what is missing",
		file: "pipeline/verdict.go", old: "\tcase e.messagesOnly:\n\t\treturn lost\n", new: "",
		pkg: "./pipeline", test: "TestTheWayOutOfAGapIsOneForWhatIsStreamed",
	},
	{
		name: "topics: a pattern matches a part of a name",
		file: "outbox/config.go", old: "`\\A(?:` + pattern + `)\\z`", new: "pattern",
		pkg: "./outbox", test: "TestRoutesAndAllowListBoundWhatARowCanReach",
	},
	{
		name: "topics: the allow-list is for templates only",
		file: "outbox/topic.go", old: "if len(r.allow) > 0 && !slices", new: "if len(r.allow) > 0 && len(r.at) == 0 && !slices",
		pkg: "./outbox", test: "TestRoutesAndAllowListBoundWhatARowCanReach",
	},
	{
		name: "topics: a row can reach what is reserved",
		file: "outbox/topic.go", old: "if slices.Contains(r.reserved, name) {", new: "if len(r.at) == 0 && slices.Contains(r.reserved, name) {",
		pkg: "./outbox", test: "TestRoutesAndAllowListBoundWhatARowCanReach",
	},
	{
		name: "topics: a route may lead to an internal topic",
		file: "outbox/topic.go", old: "if err := checkTopic(name); err != nil {\n\t\treturn \"\", err\n\t}", new: "if err := checkTopic(name); err != nil && len(r.routes) == 0 {\n\t\treturn \"\", err\n\t}",
		pkg: "./outbox", test: "FuzzTopic",
	},
	{
		name: "topics: names of several columns share what is remembered",
		file: "outbox/topic.go", old: "if len(r.at) > 1 {", new: "if len(r.at) > 9 {",
		pkg: "./outbox", test: "TestNamesOfSeveralColumnsAreKeptApart",
	},
	{
		name: "map: a column's header can be forged by an entry",
		file: "outbox/header.go", old: "slices.Contains(d.plan.headerNames, key)", new: "slices.Contains(d.plan.headerNames[:0], key)",
		pkg: "./outbox", test: "TestAHeaderOfAColumnCannotBeForgedByAnEntry",
	},
	{
		name: "map: bytes are sent as their text",
		file: "outbox/plan.go", old: `ok && column.TypeName == "bytea"`, new: `ok && column.TypeName == "blob"`,
		pkg: "./outbox", test: "TestBytesArriveAsBytes",
	},
	{
		name: "map: a shape is kept when the table changes",
		file: "outbox/outbox.go", old: "if t.bound != nil && t.bound.shape == row.Shape {", new: "if t.bound != nil {",
		pkg: "./outbox", test: "TestBytesArriveAsBytes",
	},
	{
		name: "send: a partition that is not there is handed to the client",
		file: "sink/kafka_topics.go", old: "if partition := partitionOf(m); partition >= t.lastBounds.partitions {", new: "if partition := partitionOf(m); false && partition >= 0 {",
		pkg: "./sink", test: "TestAPartitionThatIsNotThereIsADataErrorAndNothingHangs",
	},
	{
		name: "read: a column of any type will do",
		file: "wal/batch.go", old: "if at >= 0 && !column.fits(m.columns[at].TypeName) {", new: "if false {",
		pkg: "./wal", test: "TestAColumnOfAWrongTypeStopsTheStream",
	},
}
