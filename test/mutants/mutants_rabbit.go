package main

// rabbitMutants are mistakes in the sink for RabbitMQ. Most are caught on a real one.
//
//nolint:gochecknoglobals // a table
var rabbitMutants = []mutant{
	{
		name: "rabbit: a message leaves before the one before it under its key is confirmed",
		file: "sink/rabbit.go", old: "q, busy := r.keys[string(item.message.Key)]; busy {", new: "q, busy := r.keys[string(item.message.Key)]; busy && item.size < 0 {",
		pkg: "./test", test: "TestOfAKeyOneMessageIsOnItsWay",
	},
	{
		name: "rabbit: what is behind a failed message leaves all the same",
		file: "sink/rabbit.go", old: "\tr.over = true\n\titems :=", new: "\titems :=",
		pkg: "./test", test: "TestRabbitSinkKeepsItsPromisesOnARealBroker",
	},
	{
		name: "rabbit: what comes while an idle connection ends is neither taken nor refused",
		file: "sink/rabbit.go", old: "\tr.ending.Do(func() { r.reason = why() })\n\tr.line.halt(r.reason)\n\tr.mu.Lock()\n\titems := r.abandon()\n\tr.mu.Unlock()\n",
		new: "\tr.mu.Lock()\n\titems := r.abandon()\n\tr.mu.Unlock()\n\tr.ending.Do(func() { r.reason = why() })\n\tr.line.halt(r.reason)\n",
		pkg: "./sink", test: "TestWhatComesWhileAnIdleConnectionEnds",
	},
	{
		name: "rabbit: a message that came back counts as stored",
		file: "sink/rabbit.go", old: "r.channel.NotifyReturn(r.answers.returns)", new: "",
		pkg: "./test", test: "TestAMessageThatNoQueueTakesStopsTheStream",
	},
	{
		name: "rabbit: nobody asks whether a queue takes a message",
		file: "sink/rabbit.go", old: "item.route.key, true, false, publishing", new: "item.route.key, false, false, publishing",
		pkg: "./test", test: "TestAMessageThatNoQueueTakesStopsTheStream",
	},
	{
		name: "rabbit: messages do not outlive the broker",
		file: "sink/rabbit_message.go", old: "DeliveryMode: amqp.Persistent", new: "DeliveryMode: amqp.Transient",
		pkg: "./test", test: "TestRabbitSinkKeepsItsPromisesOnARealBroker",
	},
	{
		name: "rabbit: the buffer is never full",
		file: "sink/rabbit.go", old: "r.buffer.take(ctx, r.line.cut, item.size)", new: "r.buffer.take(ctx, r.line.cut, 0)",
		pkg: "./test", test: "TestRabbitSinkKeepsItsPromisesOnARealBroker",
	},
	{
		name: "rabbit: an alarm of the broker goes unnoticed",
		file: "sink/rabbit.go", old: "r.conn.NotifyBlocked(r.answers.blocks)", new: "",
		pkg: "./test", test: "TestAnAlarmIsWaitedFor",
	},
	{
		name: "rabbit: any certificate will do",
		file: "sink/tls.go", old: "c := &tls.Config{MinVersion: tls.VersionTLS12}", new: "c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}",
		pkg: "./test", test: "TestRabbitSinkVerifiesTheBrokersCertificate",
	},
	{
		name: "rabbit: who has a certificate logs in as guest",
		file: "sink/rabbit_conn.go", old: "\t\treturn &amqp.ExternalAuth{}\n", new: "\t\treturn &amqp.PlainAuth{Username: s.username, Password: s.password}\n",
		pkg: "./test", test: "TestRabbitSinkLogsIn",
	},
	{
		name: "rabbit: a certificate without a user is answered with passwords",
		file: "sink/rabbit_conn.go", old: "\tcase !s.external || !ok:", new: "\tcase !s.external || ok || !ok:",
		pkg: "./test", test: "TestRabbitSinkLogsIn",
	},
	{
		name: "rabbit: a row's header chooses more queues",
		file: "sink/rabbit_message.go", old: `case "CC", "BCC",`, new: `case "BCC",`,
		pkg: "./sink", test: "TestARowCannotRouteByItsHeaders",
	},
	{
		name: "rabbit: headers larger than a frame are sent",
		file: "sink/rabbit_message.go", old: "if size > rabbitFrameBytes {", new: "if false {",
		pkg: "./sink", test: "TestWhatRabbitMQCannotTakeIsADataError",
	},
}
