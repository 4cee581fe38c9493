package main

// debeziumMutants are mistakes in moving from Debezium.
//
//nolint:gochecknoglobals // a table
var debeziumMutants = []mutant{
	{
		name: "takeover: begin one transaction late, at the end of the log",
		file: "pipeline/takeover.go", old: "position := r.positionAt(e, e.slot.Confirmed)", new: "position := r.positionAt(e, e.identity.Flush)",
		pkg: "./test", test: "TestASlotGoesFromDebeziumToUsAndBack",
	},
	{
		name: "takeover: take a slot that the connector still streams from",
		file: "pipeline/takeover.go", old: "case slot.Active:", new: "case slot.Active && false:",
		pkg: "./test", test: "TestASlotGoesFromDebeziumToUsAndBack",
	},
	{
		name: "migrate: an option is passed over in silence",
		file: "connector/translate.go", old: "t.remark(name, Missing, \"outboxcdc does not know it: find out what it does before you move\")", new: "return",
		pkg: "./connector", test: "TestTranslateNamesWhatHasNoEquivalent",
	},
	{
		name: "migrate: a slot of another plugin is taken for ours",
		file: "connector/translate.go", old: "t.judge(\"plugin.name\", \"decoderbufs\")", new: "t.judge(\"plugin.name\", \"pgoutput\")",
		pkg: "./connector", test: "TestTranslateSaysWhatDefaultsMean",
	},
	{
		name: "debezium: a null key of json is null",
		file: "outbox/debezium/debezium.go", old: "case ConverterJSON, ConverterJSONSchema:\n\t\tb.text", new: "case ConverterJSON, ConverterJSONSchema:\n\t\tif !v.set {\n\t\t\treturn nil\n\t\t}\n\t\tb.text",
		pkg: "./outbox/debezium", test: "TestRecordsAreDebeziums",
	},
	{
		name: "debezium: the topic is what the whole regex matches",
		file: "outbox/debezium/route.go", old: "match, err := r.first.find(value)", new: "match, err := r.whole.find(value)",
		pkg: "./outbox/debezium", test: "TestRecordsAreDebeziums",
	},
	{
		name: "debezium: characters beyond the basic plane are not escaped",
		file: "outbox/debezium/json.go", old: "c != '\\\\' && c < 0xF0", new: "c != '\\\\'",
		pkg: "./outbox/debezium", test: "TestRecordsAreDebeziums",
	},
	{
		name: "debezium: null stays null in a column with a DEFAULT",
		file: "outbox/debezium/schema.go", old: "if !v.set && s.fallback != nil {", new: "if !v.set && s.fallback != nil && false {",
		pkg: "./outbox/debezium", test: "TestRecordsAreDebeziums",
	},
	{
		name: "debezium: a row reaches a reserved topic",
		file: "outbox/debezium/format.go", old: "if err := d.SetTopic(record.Topic); err != nil {", new: "if err := d.SetTopic(record.Topic); err != nil && false {",
		pkg: "./outbox/debezium", test: "TestATopicOutsideTheAllowedOnesIsRefused",
	},
	{
		name: "sink: a message without a key is taken without being meant",
		file: "sink/kafka_topics.go", old: "if len(m.Key) == 0 && !m.Keyless {", new: "if false {",
		pkg: "./sink", test: "TestAnImpossibleMessageStopsTheLineAndKeepsWhatWasSent",
	},
}
