package main

// sinkMutants are mistakes in what hands messages to a broker.
//
//nolint:gochecknoglobals // a table
var sinkMutants = []mutant{
	// The line that a failed message cuts.
	{
		name: "kafka: a request does not wait for failures that are on their way",
		file: "sink/kafka_line.go", old: "\t<-reached\n", new: "",
		pkg: "./sink", test: "TestNothingPassesAFailedMessageWhoseAckIsLate|TestStoredIsAPrefixOfEachKeyWhicheverBatchFails",
	},
	{
		name: "kafka: requests go around the barrier",
		file: "sink/kafka_line.go", old: "isProduce(request) && !c.barrier.pass()", new: "false",
		pkg: "./sink", test: "TestNothingPassesAFailedMessageWhoseAckIsLate",
	},
	{
		name: "kafka: Send goes on after a failed ack",
		file: "sink/kafka_line.go", old: "\tif l.halted == nil {\n\t\tl.halted = l.failed\n\t}\n", new: "",
		pkg: "./sink", test: "TestKafkaIsASink|TestAFailedMessageFailsAllBehindItWithItsReason",
	},
	{
		name: "kafka: a message that cannot be stored is passed by the next",
		file: "sink/kafka.go", old: "\t\tk.line.halt(unfit)\n", new: "",
		pkg: "./sink", test: "TestAnImpossibleMessageStopsTheLineAndKeepsWhatWasSent",
	},
	{
		name: "kafka: what is ahead of a missing topic waits for it",
		file: "sink/kafka_topics.go", old: "return msgs[:max(n, 0)]", new: "return msgs[:min(n, 0)]",
		pkg: "./sink", test: "TestWhatIsAheadOfAMissingTopicIsSentAndNothingBehindIt",
	},
	{
		name: "kafka: what is behind a missing topic is sent",
		file: "sink/kafka.go", old: "\t\tmsgs = k.topics.ahead(msgs)\n", new: "",
		pkg: "./sink", test: "TestWhatIsAheadOfAMissingTopicIsSentAndNothingBehindIt",
	},
	{
		name: "kafka: what is behind a failure is never acked",
		file: "sink/kafka.go", old: "\tcase <-k.line.cut:\n", new: "",
		pkg: "./sink", test: "TestAFailureFailsAtOnceWhatWaitsForAnAnswer",
	},
	{
		name: "kafka: lost acknowledged events are passed over",
		file: "sink/kafka.go", old: "\t\tkgo.StopProducerOnDataLossDetected(),\n", new: "",
		pkg: "./sink", test: "TestWhatTheBrokerRefusesForGoodIsAnOperatorErrorWithTheWayOut",
	},

	// Partitions.
	{
		name: "kafka: a key moves with the number of partitions, within a session",
		file: "sink/kafka_line.go", old: "return f.java.Partition(r, f.count)", new: "return f.java.Partition(r, n)",
		pkg: "./sink", test: "TestNewPartitionsEndTheSessionAndMoveNoKeyWithinIt",
	},
	{
		name: "kafka: new partitions go unnoticed",
		file: "sink/kafka_line.go", old: "if n != f.count {", new: "if false {",
		pkg: "./sink", test: "TestNewPartitionsEndTheSessionAndMoveNoKeyWithinIt",
	},
	{
		name: "kafka: partitions are not Java's",
		file: "sink/kafka_line.go", old: "return f.java.Partition(r, f.count)", new: "return (f.java.Partition(r, f.count) + 1) % f.count",
		pkg: "./sink", test: "TestPartitionsAreThoseOfJava",
	},
	{
		name: "kafka: a message with an empty key is sent",
		file: "sink/kafka_topics.go", old: "if len(m.Key) == 0 && !m.Keyless {", new: "if m.Key == nil && !m.Keyless {",
		pkg: "./sink", test: "TestAnImpossibleMessageStopsTheLineAndKeepsWhatWasSent",
	},

	// Acks.
	{
		name: "kafka: the leader alone acknowledges",
		file: "sink/kafka.go", old: "kgo.RequiredAcks(kgo.AllISRAcks()),", new: "kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(),",
		pkg: "./sink", test: "TestEveryRequestIsIdempotentAndWaitsForAllReplicas|TestAMessageThatMayHaveBeenWrittenIsStoredOnce",
	},
	{
		name: "kafka: a broker without producer ids is good enough",
		file: "sink/kafka.go", old: "if err == nil && id < 0 {", new: "if err == nil && id < -9 {",
		pkg: "./sink", test: "TestABrokerWithoutProducerIDsIsRefused",
	},
	{
		name: "kafka: a message is given up after a while",
		file: "sink/kafka.go", old: "kgo.RecordDeliveryTimeout(0)", new: "kgo.RecordDeliveryTimeout(10*time.Minute)",
		pkg: "./sink", test: "TestAnOutageOfHoursFailsNothingAndRepeatsNothing",
	},
	{
		name: "kafka: a message is given up after some tries",
		file: "sink/kafka.go", old: "kgo.RecordRetries(math.MaxInt)", new: "kgo.RecordRetries(math.MaxInt8)",
		pkg: "./sink", test: "TestAnOutageOfHoursFailsNothingAndRepeatsNothing",
	},
	{
		name: "kafka: a message is given up with the context of its Send",
		file: "sink/kafka.go", old: "k.client.Produce(context.Background(), &records[i], promise)", new: "k.client.Produce(ctx, &records[i], promise)",
		pkg: "./sink", test: "TestKafkaIsASink",
	},
	{
		name: "kafka: Flush does not wait",
		file: "sink/kafka.go", old: "k.client.Flush(ctx); err", new: "error(nil); err",
		pkg: "./sink", test: "TestKafkaIsASink",
	},
	{
		name: "kafka: Close returns before the last ack",
		file: "sink/kafka.go", old: "\tk.open.Wait()\n", new: "",
		pkg: "./sink", test: "TestNothingPassesAFailedMessageWhoseAckIsLate",
	},
	{
		name: "kafka: memory of messages is used again before they are acked",
		file: "sink/kafka_parcel.go", old: "\tc.held.Add(1)\n", new: "",
		pkg: "./sink", test: "TestKafkaIsASink",
	},
	{
		name: "kafka: the buffer is never full",
		file: "sink/kafka_buffer.go", old: "if used > 0 && used+n > b.total {", new: "if false {",
		pkg: "./sink", test: "TestKafkaIsASink",
	},
	{
		name: "kafka: the buffer is never free again",
		file: "sink/kafka_parcel.go", old: "\tk.buffer.give(p.size)\n", new: "",
		pkg: "./sink", test: "TestKafkaIsASink",
	},

	// Sizes and topics.
	{
		name: "kafka: what is too large is found out by the client, and overtaken",
		file: "sink/kafka_topics.go", old: "size > t.lastBounds.bytes", new: "false",
		pkg: "./sink", test: "TestAnImpossibleMessageStopsTheLineAndKeepsWhatWasSent|TestMessagesUpToTheLimitAreTaken",
	},
	{
		name: "kafka: a record's size lacks what surrounds it",
		file: "sink/kafka_buffer.go", old: "recordOverhead = 128", new: "recordOverhead = 32",
		pkg: "./sink", test: "TestMessagesUpToTheLimitAreTaken",
	},
	{
		name: "kafka: batches grow beyond what their topic takes",
		file: "sink/kafka_topics.go", old: "l.topics[topic] = min(bytes, l.most)", new: "",
		pkg: "./sink", test: "TestBatchesKeepToTheTopicsOwnLimit",
	},
	{
		name: "kafka: a topic is not made sure of",
		file: "sink/kafka.go", old: "unknown := k.topics.learn(ctx, msgs, k.line.cut)", new: "for _, m := range msgs {\n\t\tk.topics.known[m.Topic] = bounds{bytes: 1 << 20, partitions: 1}\n\t}\n\tunknown := error(nil)",
		pkg: "./sink", test: "TestWhatIsAheadOfAMissingTopicIsSentAndNothingBehindIt",
	},
	{
		name: "kafka: the broker makes topics of typing errors",
		file: "sink/kafka_topics.go", old: "request.AllowAutoTopicCreation = false", new: "request.AllowAutoTopicCreation = true",
		pkg: "./sink", test: "TestEveryRequestIsIdempotentAndWaitsForAllReplicas",
	},
	{
		name: "kafka: a topic that was deleted is waited for for ever",
		file: "sink/kafka.go", old: "unknownTopicTries = 30", new: "unknownTopicTries = -1",
		pkg: "./sink", test: "TestATopicThatIsDeletedUnderUsIsAnOperatorError",
	},
	{
		name: "kafka: a broker that starts up ends the stream",
		file: "sink/kafka.go", old: "unknownTopicTries = 30", new: "unknownTopicTries = 4",
		pkg: "./sink", test: "TestATopicThatIsUnknownForAMomentFailsNothing",
	},

	// Networks and strangers.
	{
		name: "kafka: no way to a broker fails messages",
		file: "sink/kafka_security.go", old: "return &net.OpError{Op: \"dial\", Net: network, Err: err}", new: "return err",
		pkg: "./sink", test: "TestAnOutageOfHoursFailsNothingAndRepeatsNothing",
	},
	{
		name: "kafka: a proxy that hangs up fails messages",
		file: "sink/kafka.go", old: "kgo.AlwaysRetryEOF(),", new: "",
		pkg: "./sink", test: "TestAnOutageOfHoursFailsNothingAndRepeatsNothing",
	},
	{
		name: "kafka: any certificate will do",
		file: "sink/tls.go", old: "c := &tls.Config{MinVersion: tls.VersionTLS12}", new: "c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}",
		pkg: "./sink", test: "TestTheBrokersCertificateIsVerified",
	},
	{
		name: "sink: an error repeats what may be a password",
		file: "sink/settings.go", old: "\"the sink's URL: the name of setting %d is not known\", number", new: "\"the sink's URL: setting %d: %s is not known\", number, name",
		pkg: "./sink", test: "TestBadURLsAreUsageErrorsThatNameThePartAndNoSecret|FuzzURL",
	},
	{
		name: "sink: a plus in a password is a space",
		file: "sink/settings.go", old: "url.PathUnescape(escaped)", new: "url.QueryUnescape(escaped)",
		pkg: "./sink", test: "TestLoginWithEachMechanism",
	},

	// Standard output.
	{
		name: "stdout: lines are acked before they are written",
		file: "sink/stdout.go", old: "\tif _, err := l.to.Write(s.text); err != nil {", new: "\tif l.claim(s) {\n\t\tl.settle(s, nil)\n\t}\n\tif _, err := l.to.Write(s.text); err != nil {",
		pkg: "./sink", test: "TestStdoutIsASink",
	},
	{
		name: "stdout: lines follow a failed one",
		file: "sink/stdout.go", old: "\tif failed {\n\t\treturn\n\t}\n", new: "\t_ = failed\n",
		pkg: "./sink", test: "TestNothingIsWrittenBehindAFailedWrite",
	},
	{
		name: "stdout: Close and the reader both ack a line",
		file: "sink/stdout.go", old: "if l.claim(s) { // Close may have been faster", new: "if l.claim(s) || true {",
		pkg: "./sink", test: "TestCloseDoesNotWaitForAReaderThatStoppedReading",
	},
	{
		name: "kafka: what is acked is held on to",
		file: "sink/kafka_parcel.go", old: "\tclear(p.records) // or", new: "\t// or",
		pkg: "./sink", test: "TestAValueThatIsAckedIsLetGo",
	},
}
