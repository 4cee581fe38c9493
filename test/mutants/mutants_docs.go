package main

// operatorMutants are mistakes in what operators read: figures, sentences, documents.
//
//nolint:gochecknoglobals // a table
var operatorMutants = []mutant{
	{
		name: "metrics: every topic is told apart, however many",
		file: "pipeline/topics.go", old: "if !known && len(c.at) >= maxCountedTopics {", new: "if false {",
		pkg: "./pipeline", test: "TestTopicsBeyondTheFirstHundred",
	},
	{
		name: "metrics: a run of one topic takes the next one along",
		file: "pipeline/topics.go", old: "if count == nil || m.Topic != topic {", new: "if count == nil || topic == \"\" {",
		pkg: "./pipeline", test: "TestTopicsBeyondTheFirstHundred",
	},
	{
		name: "metrics: what a bad row held back is counted as sent",
		file: "pipeline/pipeline.go", old: "\treturn messages[:good], end, bad\n",
		new: "\ts.seen.sent(batch, messages)\n\treturn messages[:good], end, bad\n",
		pkg: "./pipeline", test: "TestWhatIsSentIsCountedByTopic",
	},
	{
		name: "metrics: no lag while Postgres is away",
		file: "pipeline/stats.go", old: "if s.State != Streaming && s.State != Draining || s.LogEnd == 0 {", new: "if s.LogEnd == 0 {",
		pkg: "./pipeline", test: "TestLagIsKnown",
	},
	{
		name: "metrics: a backlog is as young as its sending",
		file: "pipeline/stats.go", old: "age = max(s.Waiting, time.Since(s.LastCommit), 0)", new: "age = max(s.Waiting, 0)",
		pkg: "./pipeline", test: "TestLagIsKnown",
	},
}
