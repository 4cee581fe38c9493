package main

// adminMutants are mistakes around the stream: connection, slot, publication,
// preflight and watch.
//
//nolint:gochecknoglobals // a table
var adminMutants = []mutant{
	{
		name: "read: what is too large behind a transaction is blamed on it",
		file: "wal/stream_errors.go", old: "errors.Is(err, ErrFrameTooLarge) && !s.rows.tx.open {", new: "errors.Is(err, ErrFrameTooLarge) && s.rows.last == 0 {",
		pkg: "./wal", test: "TestAGiantMessageBlamesNoTransactionBeforeIt",
	},
	{
		name: "admin: two spellings of one setting",
		file: "wal/connect.go", old: "\t\t\tif strings.EqualFold(ours, name) {", new: "\t\t\tif strings.EqualFold(ours, name) && ours == name {",
		pkg: "./wal", test: "TestStartupPacket",
	},
	{
		name: "admin: the settings are not sent",
		file: "wal/connect.go", old: "\tmaps.Copy(settings.RuntimeParams, fixed)\n", new: "",
		pkg: "./wal", test: "TestStartupPacket",
	},
	{
		name: "admin: client_encoding is not fixed",
		file: "wal/connect.go", old: "\t\t\"client_encoding\":       \"UTF8\",\n", new: "",
		pkg: "./test", test: "TestPayload",
	},
	{
		name: "admin: TimeZone is not fixed",
		file: "wal/connect.go", old: "\t\t\"TimeZone\":              \"UTC\",\n", new: "",
		pkg: "./test", test: "TestPayloadText",
	},
	{
		name: "admin: DateStyle is not fixed",
		file: "wal/connect.go", old: "\t\t\"DateStyle\":             \"ISO, MDY\",\n", new: "",
		pkg: "./test", test: "TestPayloadText",
	},
	{
		name: "admin: IntervalStyle is not fixed",
		file: "wal/connect.go", old: "\t\t\"IntervalStyle\":         \"postgres\",\n", new: "",
		pkg: "./test", test: "TestPayloadText",
	},
	{
		name: "admin: extra_float_digits is not fixed",
		file: "wal/connect.go", old: "\t\t\"extra_float_digits\":    \"1\",\n", new: "",
		pkg: "./test", test: "TestPayloadText",
	},
	{
		name: "admin: bytea_output is not fixed",
		file: "wal/connect.go", old: "\t\t\"bytea_output\":          \"hex\",\n", new: "",
		pkg: "./test", test: "TestPayloadText",
	},
	{
		name: "admin: search_path is not fixed",
		file: "wal/connect.go", old: "\t\t\"search_path\":           \"pg_catalog\",\n", new: "",
		pkg: "./test", test: "TestPayloadText",
	},
	{
		name: "admin: a read-only role is taken for a standby",
		file: "wal/connect.go", old: "\t\t\"default_transaction_read_only\": \"off\",\n", new: "",
		pkg: "./test", test: "TestPayloadText",
	},
	{
		name: "admin: SQL_ASCII is read as UTF-8",
		file: "wal/connect.go", old: "pg.ParameterStatus(\"server_encoding\") == \"SQL_ASCII\"", new: "false",
		pkg: "./test", test: "TestPayloadIsUTF8",
	},
	{
		name: "admin: transaction_timeout is left to the role",
		file: "wal/connect.go", old: "\tif version >= 17 {", new: "\tif version >= 19 {",
		pkg: "./wal", test: "TestSettingsOfNewer",
	},
	{
		name: "admin: every old server is let in",
		file: "wal/connect.go", old: "\tif version < minimumVersion {", new: "\tif version < 0 {",
		pkg: "./wal", test: "TestServerThatIsTooOld",
	},
	{
		name: "admin: a standby is read",
		file: "wal/connect.go", old: "\tif settings.ValidateConnect == nil {", new: "\tif false {",
		pkg: "./test", test: "TestStandby",
	},
	{
		name: "admin: the configuration is not validated",
		file: "wal/connect.go", old: "\tif err := config.Validate(); err != nil {\n\t\treturn nil, err\n\t}\n", new: "",
		pkg: "./wal", test: "TestBadConfiguration",
	},
	{
		name: "admin: the error carries the configuration",
		file: "wal/errors.go", old: "\tcase errors.As(err, &refused):", new: "\tcase errors.As(err, &refused) && false:",
		pkg: "./wal", test: "TestFaultLets",
	},
	{
		name: "admin: a busy slot is not recognised",
		file: "wal/errors.go", old: "\tif code == \"55006\" {", new: "\tif code == \"55000\" {",
		pkg: "./wal", test: "TestFaultClass",
	},
	{
		name: "admin: a class is overruled",
		file: "wal/errors.go", old: "case err == nil, errors.As(err, &classified):", new: "case err == nil, errors.As(err, &classified) && false:",
		pkg: "./wal", test: "TestFaultLeaves",
	},
	{
		name: "admin: a dropped database is retried for ever",
		file: "wal/errors.go", old: "\t\t\"57P04\": {fault.Operator,", new: "\t\t\"57P04\": {fault.Transient,",
		pkg: "./wal", test: "TestFaultClass",
	},
	{
		name: "admin: a cancelled connect is an error",
		file: "wal/errors.go", old: "\tcase errors.Is(cause, context.Canceled):\n\t\treturn err\n", new: "",
		pkg: "./test", test: "TestCancelledConnect",
	},
	{
		name: "admin: half of a password reads as host",
		file: "wal/validate.go", old: "\tif hosts, _, _ := strings.Cut(rest, \"?\"); strings.Contains(hosts, \"@\") {", new: "\tif false {",
		pkg: "./wal", test: "TestDatabaseURLErrors",
	},
	{
		name: "admin: a password reads as user",
		file: "wal/validate.go", old: "\t\tif user, _, _ := strings.Cut(rest[:i], \":\"); strings.Contains(user, \"?\") {", new: "\t\tif false {",
		pkg: "./wal", test: "TestDatabaseURLErrors",
	},
	{
		name: "admin: the error repeats the database URL",
		file: "wal/validate.go", old: "\terr := errors.New(\"the database URL cannot be used\")\n", new: "\terr := fmt.Errorf(\"the database URL cannot be used: %v\", cause)\n",
		pkg: "./wal", test: "TestDatabaseURLErrors",
	},
	{
		name: "admin: a misspelt parameter goes to the server",
		file: "wal/validate.go", old: "\tif _, err := pgconn.ParseConfigWithOptions(text, options); err != nil {", new: "\tif _, err := pgconn.ParseConfigWithOptions(text, options); err != nil && false {",
		pkg: "./wal", test: "TestDatabaseURLErrors",
	},
	{
		name: "admin: a slot name may be too long",
		file: "wal/validate.go", old: "len(name) >= 1 && len(name) <= nameBytes\n\tfor", new: "len(name) >= 1\n\tfor",
		pkg: "./wal", test: "TestOnlyNames",
	},
	{
		name: "admin: a cancelled creation is left alone",
		file: "wal/slot.go", old: "\t\t\treturn 0, errors.Join(ctx.Err(), c.cancelCreation(ctx, made))", new: "\t\t\treturn 0, ctx.Err()",
		pkg: "./test", test: "TestSlotCreationThat",
	},
	{
		name: "admin: a slot made too late is left behind",
		file: "wal/slot.go", old: "\tif m.at == 0 { // cancelled", new: "\tif true { // cancelled",
		pkg: "./test", test: "TestSlotMadeIn",
	},
	{
		name: "admin: a killed creation waits on",
		file: "wal/slot.go", old: "\"SET client_connection_check_interval = '1s'\"", new: "\"SET client_connection_check_interval = 0\"",
		pkg: "./test", test: "TestSlotCreationThat",
	},
	{
		name: "admin: nobody is named while a slot waits",
		file: "wal/slotwait.go", old: "AND NOT w.granted AND w.pid = %d", new: "AND w.granted AND w.pid = %d",
		pkg: "./test", test: "TestSlotCreationNames",
	},
	{
		name: "admin: an identifier is not quoted",
		file: "wal/sql.go", old: "strings.ReplaceAll(name, `\"`, `\"\"`)", new: "name",
		pkg: "./wal", test: "TestQuoting",
	},
	{
		name: "admin: a literal is not quoted",
		file: "wal/sql.go", old: "strings.ReplaceAll(text, \"'\", \"''\")", new: "text",
		pkg: "./wal", test: "TestQuoting",
	},
	{
		name: "admin: publication names are no list of identifiers",
		file: "wal/publication.go", old: "quoteText(quoteName(c.config.Publication))", new: "quoteText(c.config.Publication)",
		pkg: "./test", test: "TestSlotAndPublicationOf",
	},
	{
		name: "admin: updates and deletes are published",
		file: "wal/publication.go", old: "publish = 'insert', publish", new: "publish",
		pkg: "./wal", test: "TestStatements",
	},
	{
		name: "admin: a damaged history is believed",
		file: "wal/identity.go", old: "s.Timeline <= switches[n-1].Timeline || ", new: "",
		pkg: "./wal", test: "TestDamaged",
	},
	{
		name: "admin: inserts need not be published",
		file: "wal/preflight_publication.go", old: "\tif !p.publication.Insert {", new: "\tif false {",
		pkg: "./test", test: "TestPreflightFindsWhat",
	},
	{
		name: "admin: a row filter is let through",
		file: "wal/preflight_publication.go", old: "\tif table.Filter != \"\" {", new: "\tif false {",
		pkg: "./test", test: "TestPreflightFindsWhat",
	},
	{
		name: "admin: rows named after partitions are let through",
		file: "wal/preflight_publication.go", old: "\tcase table.Kind == \"p\" && !publication.Root:", new: "\tcase false:",
		pkg: "./test", test: "TestPreflightFindsWhat",
	},
	{
		name: "admin: a column list is let through",
		file: "wal/preflight_publication.go", old: "table.Sent != nil && !slices", new: "table.Sent == nil && !slices",
		pkg: "./test", test: "TestPreflightFindsWhat",
	},
	{
		name: "admin: a table outside the publication is let through",
		file: "wal/preflight_publication.go", old: "\tcase !table.Published:", new: "\tcase false:",
		pkg: "./test", test: "TestPreflightFindsWhat",
	},
	{
		name: "admin: a missing column is let through",
		file: "wal/preflight_table.go", old: "\tcase !ok && wanted.Required:", new: "\tcase false:",
		pkg: "./test", test: "TestPreflightFindsWhat",
	},
	{
		name: "admin: an unlogged table is let through",
		file: "wal/preflight_table.go", old: "\tcase facts.Persistence == \"u\":", new: "\tcase false:",
		pkg: "./test", test: "TestPreflightFindsWhat",
	},
	{
		name: "admin: any plugin will do",
		file: "wal/preflight_slot.go", old: "slot.Plugin != plugin", new: "false",
		pkg: "./wal", test: "TestSlotIsJudged",
	},
	{
		name: "admin: any database will do",
		file: "wal/preflight_slot.go", old: "slot.Database != server.Database", new: "false",
		pkg: "./wal", test: "TestSlotIsJudged",
	},
	{
		name: "admin: a promoted slot is refused",
		file: "wal/preflight_slot.go", old: "slot.Synced && server.Standby", new: "slot.Synced",
		pkg: "./wal", test: "TestSlotIsJudged",
	},
	{
		name: "admin: a slot beyond the log is let through",
		file: "wal/preflight_slot.go", old: "slot.Confirmed > end &&", new: "false &&",
		pkg: "./test", test: "TestPreflightFindsASlotThatConfirmed",
	},
	{
		name: "admin: a lost slot is let through",
		file: "wal/preflight_slot.go", old: "\tif !slot.Lost() {", new: "\tif true {",
		pkg: "./wal", test: "TestSlotIsJudged",
	},
	{
		name: "admin: any wal_level will do",
		file: "wal/preflight_server.go", old: "s.WALLevel != \"logical\" &&", new: "false &&",
		pkg: "./test", test: "TestServerWithout",
	},
	{
		name: "admin: a table made anew goes unseen",
		file: "wal/watch.go", old: "\tcase m.table != before.table:", new: "\tcase false:",
		pkg: "./test", test: "TestWatchEnds",
	},
	{
		name: "admin: a publication made anew goes unseen",
		file: "wal/watch.go", old: "\tcase m.publication != before.publication:", new: "\tcase false:",
		pkg: "./test", test: "TestWatchEnds",
	},
	{
		name: "admin: a table that left and came back goes unseen",
		file: "wal/watch.go", old: "\tcase m.membership != before.membership:", new: "\tcase false:",
		pkg: "./test", test: "TestWatchEnds",
	},
	{
		name: "admin: a publication that left inserts out for a while goes unseen",
		file: "wal/watch.go", old: "\tcase m.altered != before.altered:", new: "\tcase false:",
		pkg: "./test", test: "TestWatchEnds",
	},
	{
		name: "stream: a walsender that slept through a commit sleeps on",
		file: "wal/config.go", old: "const DefaultStatusInterval = time.Second", new: "const DefaultStatusInterval = 10 * time.Second",
		pkg: "./wal", test: "TestARowThatTheWalsenderSleptThroughIsFetchedSoon",
	},
	{
		name: "admin: the publication is not watched",
		file: "wal/watch.go", old: "\tif err = fault.Failures(p.judge(w.config)); err == nil {\n", new: "\tif err == nil {\n",
		pkg: "./test", test: "TestWatchEnds",
	},
	{
		name: "admin: nobody listens between two looks",
		file: "wal/watch.go", old: "\t\terr := w.pg.WaitForNotification(until)", new: "\t\t<-until.Done()\n\t\terr := until.Err()",
		pkg: "./test", test: "TestWatchNotices",
	},
}
