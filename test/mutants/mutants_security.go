package main

// securityMutants are mistakes in who is believed, and in what may be read on the way.
//
//nolint:gochecknoglobals // a table
var securityMutants = []mutant{
	{
		name: "security: a host that is not local proves nothing",
		file: "wal/validate.go", old: "\tif err := verifyRemote(settings, text); err != nil {\n\t\treturn nil, err\n\t}\n", new: "",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: clear text follows a server's no to TLS",
		file: "wal/tls.go", old: "\t\tcase a.TLSConfig != nil: // what", new: "\t\tcase a.TLSConfig == nil:\n\t\t\tkept = append(kept, a)\n\t\tcase true: // what",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: the host behind a local one is local too",
		file: "wal/tls.go", old: "\tif isLocal(a.Host) || a.TLSConfig == nil", new: "\tif isLocal(settings.Host) || a.TLSConfig == nil",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: an sslmode that is named is overruled",
		file: "wal/tls.go", old: "\tif namesMode(text) || !slices", new: "\tif !slices",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: what begins like localhost is local",
		file: "wal/tls.go", old: "strings.EqualFold(strings.TrimSuffix(host, \".\"), \"localhost\")", new: "strings.HasPrefix(strings.ToLower(host), \"localhost\")",
		pkg: "./wal", test: "TestAHostThatIsNotLocal",
	},
	{
		name: "security: a server that takes no TLS is waited for",
		file: "wal/tls.go", old: "\tif d.asked && b[0] == 'N' {", new: "\tif false {",
		pkg: "./wal", test: "TestAServerWithoutTLS",
	},
	{
		name: "security: why the server refuses our certificate is not heard",
		file: "wal/tls.go", old: "\t\treturn len(b), nil // the read", new: "\t\treturn n, err // the read",
		pkg: "./test", test: "TestARoleMayLogInWithACertificate",
	},
	{
		name: "security: a login that is not bound is tried again",
		file: "wal/errors.go", old: "\tcase unproved(settings, cause):", new: "\tcase false:",
		pkg: "./test", test: "TestWhoStandsBetween",
	},
	{
		name: "security: a login need not be bound",
		file: "wal/connect.go", old: "\tif settings.ValidateConnect == nil {\n", new: "\tsettings.ChannelBinding = \"disable\"\n\tif settings.ValidateConnect == nil {\n",
		pkg: "./test", test: "TestWhoStandsBetween",
	},

	// Logins at Kafka.
	{
		name: "security: a broker need not be the one of its certificate",
		file: "sink/kafka_security.go", old: "\tconfig.ServerName = host\n", new: "\tconfig.ServerName = host\n\tconfig.InsecureSkipVerify = true\n",
		pkg: "./sink", test: "TestTheBrokersCertificateIsVerified",
	},
	{
		name: "security: TLS is left out where the broker has none",
		file: "sink/kafka_security.go", old: "\t\tconn.Close()\n\t\treturn nil, fmt.Errorf(\"secure the connection to broker %s: %w\", address, err)", new: "\t\treturn d.network(ctx, \"tcp\", address)",
		pkg: "./test", test: "TestKafkaAndWeLearn",
	},
	{
		name: "security: why the broker refuses our certificate is not understood",
		file: "sink/tls.go", old: "broken.Op == \"remote error\"", new: "broken.Op == \"remote\"",
		pkg: "./test", test: "TestKafkaAndWeLearn",
	},
	{
		name: "security: the secret follows a redirect",
		file: "sink/kafka_oauth.go", old: "return http.ErrUseLastResponse }", new: "return nil }",
		pkg: "./sink", test: "TestWhatATokenEndpointSays",
	},
	{
		name: "security: the secret goes to an endpoint in clear text",
		file: "sink/kafka_oauth.go", old: "at.Scheme == \"http\" && !isLoopback(at.Hostname())", new: "false",
		pkg: "./sink", test: "TestBadURLs",
	},
	{
		name: "security: what an endpoint says is repeated",
		file: "sink/kafka_oauth.go", old: "\tcase \"invalid_request\",", new: "\tdefault:\n\t\terr = fmt.Errorf(\"%w, %s\", err, word)\n\tcase \"invalid_request\",",
		pkg: "./sink", test: "TestWhatATokenEndpointSays",
	},
	{
		name: "security: a token is kept beyond its life",
		file: "sink/kafka_oauth.go", old: "t.kept != \"\" && time.Now().Before(t.until)", new: "t.kept != \"\"",
		pkg: "./sink", test: "TestATokenIsKept",
	},
	{
		name: "security: a token holds two logins",
		file: "sink/kafka_oauth.go", old: "case !parsed || !isToken(answer.Token):", new: "case !parsed || answer.Token == \"\":",
		pkg: "./sink", test: "TestWhatATokenEndpointSays",
	},
	{
		name: "security: a refused token is tried for ever",
		file: "sink/kafka_oauth.go", old: "\treturn false, []byte{1}, nil\n", new: "\treturn false, nil, errors.New(\"unexpected\")\n",
		pkg: "./test", test: "TestKafkaAndWeLearn",
	},
	{
		name: "security: a login of Amazon's goes in clear text",
		file: "sink/kafka_iam.go", old: "\tcase !s.tls:\n", new: "\tcase false:\n",
		pkg: "./sink", test: "TestBadURLs",
	},
	{
		name: "security: the session of Amazon's keys is left out",
		file: "sink/kafka_iam.go", old: "SessionToken: keys.SessionToken", new: "SessionToken: \"\"",
		pkg: "./sink", test: "TestAnIAMLogin",
	},
	{
		name: "security: a client's secret is printed",
		file: "cmd/outboxcdc/configfile.go", old: "strings.HasSuffix(name, \".client.id\")", new: "strings.Contains(name, \".client.\")",
		pkg: "./cmd/outboxcdc", test: "TestNoFormOfASecret",
	},

	// Roles.
	{
		name: "security: the streaming role may delete events",
		file: "migrations/roles.go", old: "onTable(r.Stream, \"SELECT\", t)", new: "onTable(r.Stream, \"SELECT, DELETE\", t)",
		pkg: "./test", test: "TestTheRolesThatInit",
	},
	{
		name: "security: a service may read events",
		file: "migrations/roles.go", old: "onTable(role, \"INSERT\", t)", new: "onTable(role, \"SELECT, INSERT\", t)",
		pkg: "./test", test: "TestTheRolesThatInit",
	},
	{
		name: "security: a right that will be missed is not looked for",
		file: "checkpoint/postgres.go", old: "if !may && right.Always {", new: "if !may && right.Always && false {",
		pkg: "./test", test: "TestTheRolesThatInit",
	},
	{
		name: "security: Amazon's way to REPLICATION is not gone",
		file: "migrations/roles.go", old: "IF %[4]s THEN", new: "IF %[4]s AND false THEN",
		pkg: "./test", test: "TestRolesAreMade",
	},
	{
		name: "security: the streaming role may not drop what it has saved",
		file: "migrations/roles.go", old: "\t\t{\"checkpoint\", \"DELETE\", false}, // drop\n", new: "",
		pkg: "./test", test: "TestTheStreamingRoleMaySkipAndDrop",
	},
	{
		name: "security: the streaming role may not forget that it streamed",
		file: "migrations/roles.go", old: "\t\t{\"unsure\", \"DELETE\", false}, // drop\n", new: "",
		pkg: "./test", test: "TestTheStreamingRoleMaySkipAndDrop",
	},
	{
		name: "security: a drop without the rights for it begins",
		file: "pipeline/drop.go", old: "\"checkpoint\", \"history\"); err != nil {", new: "\"checkpoint\", \"history\"); err != nil && false {",
		pkg: "./test", test: "TestTheStreamingRoleMaySkipAndDrop",
	},
	{
		name: "security: another's publication is dropped, or tried to",
		file: "pipeline/drop.go", old: "\tif !owns {", new: "\tif !owns && false {",
		pkg: "./test", test: "TestTheStreamingRoleMaySkipAndDrop",
	},
	{
		name: "security: who may not see parked rows is not told how to",
		file: "wal/parked.go", old: "ok && refused.Code == \"42501\" {", new: "ok && refused.Code == \"\" {",
		pkg: "./test", test: "TestTheStreamingRoleMaySettle",
	},
	{
		name: "security: a mark is said to want every column",
		file: "wal/sweep.go", old: "\"UPDATE (\"+quoteName(s.Mark)+\")\"", new: "\"UPDATE\"",
		pkg: "./test", test: "TestTheStreamingRoleMayLet",
	},
	{
		name: "security: each partition wants grants of its own",
		file: "wal/sweep.go", old: "\tname := target.quoted()\n\tif len(leaves) == 1 &&", new: "\tname := leaves[0].table().quoted()\n\tif len(leaves) == 1 &&",
		pkg: "./test", test: "TestTheStreamingRoleNeedsNoRightsOnPartitions",
	},
	{
		name: "sweep: the shortest partition ends it",
		file: "wal/sweep.go", old: "\t\tif reach == 0 {", new: "\t\tif reach < int64(len(leaves)) {",
		pkg: "./test", test: "TestTheStreamingRoleNeedsNoRightsOnPartitions",
	},
	{
		name: "sweep: Postgres 14 reads no interval of half an hour",
		file: "wal/sweep.go", old: "\"%d * interval '1 microsecond'\"", new: "\"interval '%d microseconds'\"",
		pkg: "./test", test: "TestPruneKnows",
	},
	{
		name: "sweep: a mark moves rows, which are sent again",
		file: "wal/sweep.go", old: "\tif moves {", new: "\tif moves && false {",
		pkg: "./test", test: "TestRowsThatWereSentAreMarked",
	},
	{
		name: "security: a table of ours has no rights",
		file: "migrations/roles.go", old: "\t\t{\"unsure\", \"SELECT, INSERT\", true},\n", new: "",
		pkg: "./migrations", test: "TestEveryTableOfOurs",
	},
}
