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

	// What is said to who was called.
	{
		name: "words: a broker that is away has no cause",
		file: "sink/kafka_security.go", old: "\td.unreached.set(err)\n", new: "",
		pkg: "./sink", test: "TestAnOutageOfHours",
	},
	{
		name: "words: a broker that is back is away for good",
		file: "sink/kafka_security.go", old: "\td.unreached.forget()\n", new: "",
		pkg: "./sink", test: "TestAnOutageOfHours",
	},
	{
		name: "words: a silent broker is kept quiet about in the log",
		file: "pipeline/open.go", old: "\t\tr.tell(told)\n", new: "\t\t_ = told\n",
		pkg: "./test", test: "TestMisfortunesOfTheServer",
	},
	{
		name: "words: trouble is told of at each look",
		file: "pipeline/trouble.go", old: "\t\t\ttold[t.Subject] = true\n", new: "",
		pkg: "./pipeline", test: "TestTroubleIsLogged",
	},
	{
		name: "words: a slot is in danger only when it is too late",
		file: "wal/slot.go", old: "s.SafeBytes < s.RetainedBytes", new: "s.SafeBytes == 0",
		pkg: "./pipeline", test: "TestTroublesAreTold",
	},
	{
		name: "words: who holds the slot says nothing of what to do",
		file: "wal/slot.go", old: "Advice: \"this one takes over when that one ends; when it should not stream, stop it\",", new: "",
		pkg: "./test", test: "TestMistakesOfOperators",
	},
	{
		name: "words: status does not say where else to look",
		file: "cmd/outboxcdc/status.go", old: "; a stream that ended has said why in its log, and check and peek look for the cause", new: "",
		pkg: "./test", test: "TestMistakesOfOperators",
	},
	{
		name: "words: a misspelt variable is passed over",
		file: "cmd/outboxcdc/configfile.go", old: "errors.Join(p.misspelt(), p.configureFromSecrets(c))", new: "p.configureFromSecrets(c)",
		pkg: "./cmd/outboxcdc", test: "TestWhatIsMisspelt",
	},
	{
		name: "words: another program's variable is a slip of ours",
		file: "cmd/outboxcdc/spelling.go", old: "\tbound := 1\n", new: "\tbound := 3\n",
		pkg: "./cmd/outboxcdc", test: "TestWhatIs(Misspelt|Near)",
	},

	{
		name: "words: who names no database is sent to a URL that was not given",
		file: "wal/errors.go", old: "\t\treturn \"no database is named: give --database-url, OUTBOXCDC_DATABASE_URL or the PG* variables; and", new: "\t\treturn \"",
		pkg: "./cmd/outboxcdc", test: "TestEveryCommandSaysHow",
	},

	// The pages.
	{
		name: "pages: a flag of a page has another name by now",
		file: "cmd/outboxcdc/flags.go", old: `Name: "table", EnvVars`, new: `Name: "tables", EnvVars`,
		pkg: "./cmd/outboxcdc", test: "TestEveryCommandOfThePages",
	},
	{
		name: "pages: a metric of a page has another name by now",
		file: "cmd/outboxcdc/metrics.go", old: `desc("lag_bytes"`, new: `desc("lag_log_bytes"`,
		pkg: "./cmd/outboxcdc", test: "TestMetricsSay",
	},
	{
		name: "site: a link forgets the folder of its page",
		file: "docs/site/links.go", old: "\t\treturn relative(p.file, target.file) + fragment", new: "\t\treturn target.file + fragment",
		pkg: "./docs/site", test: "TestEveryLinkOfTheSite",
	},
	{
		name: "site: a link loses its place in the page",
		file: "docs/site/links.go", old: "relative(p.file, target.file) + fragment", new: "relative(p.file, target.file)",
		pkg: "./docs/site", test: "TestLinksBetweenFiles",
	},
	{
		name: "site: a picture stays behind",
		file: "docs/site/links.go", old: "\t\ts.pictures[name] = true\n", new: "",
		pkg: "./docs/site", test: "TestThePagesFetchNothing",
	},
	{
		name: "site: headings are named in another way than GitHub's",
		file: "docs/site/page.go", old: "return unicode.ToLower(r)", new: "return r",
		pkg: "./docs/site", test: "TestEveryLinkOfTheSite",
	},
	{
		name: "site: a page that no table lists is left out of the navigation in silence",
		file: "docs/site/site.go", old: "if !listed[name] {", new: "if false {",
		pkg: "./docs/site", test: "TestWhatWouldBeLost",
	},
}
