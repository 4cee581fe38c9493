package main

// storeMutants are mistakes in what makes a position durable, and in migrations.
//
//nolint:gochecknoglobals // a table
var storeMutants = []mutant{
	// The database store.
	{
		name: "database store: a save does not wait for the disk",
		file: "checkpoint/postgresrow.go", old: "set_config('synchronous_commit', 'local', true)", new: "'local'::text",
		pkg: "./test", test: "TestASavedPositionSurvivesACrashOfTheServer",
	},
	{
		name: "database store: a save waits for standbys",
		file: "checkpoint/postgresrow.go", old: "set_config('synchronous_commit', 'local', true) AS level)", new: "left(set_config('synchronous_commit', 'on', true), 0) || 'local' AS level)",
		pkg: "./test", test: "TestASaveDoesNotWaitForStandbys",
	},
	{
		name: "database store: a save goes backwards",
		file: "checkpoint/postgresrow.go", old: "AND (saved.lsn, saved.index) <= (excluded.lsn, excluded.index)", new: "AND true",
		pkg: "./test", test: "TestDatabaseStoreKeepsTheContract",
	},
	{
		name: "database store: a save goes back to a former timeline",
		file: "checkpoint/postgresrow.go", old: "(saved.timeline < excluded.timeline", new: "(saved.timeline <> excluded.timeline",
		pkg: "./test", test: "TestDatabaseStoreKeepsTheContract",
	},
	{
		name: "database store: an equal position cannot be saved again",
		file: "checkpoint/postgresrow.go", old: "(saved.lsn, saved.index) <= (excluded.lsn, excluded.index)", new: "(saved.lsn, saved.index) < (excluded.lsn, excluded.index)",
		pkg: "./test", test: "TestDatabaseStoreKeepsTheContract",
	},
	{
		name: "database store: another cluster's position is overwritten",
		file: "checkpoint/postgresrow.go", old: "\tAND saved.system = excluded.system\n", new: "",
		pkg: "./test", test: "TestDatabaseStoreKeepsTheContract",
	},
	{
		name: "database store: another database's position is overwritten",
		file: "checkpoint/postgresrow.go", old: "\tAND saved.database = excluded.database\n", new: "",
		pkg: "./test", test: "TestDatabaseStoreKeepsTheContract",
	},
	{
		name: "database store: a newer format is overwritten",
		file: "checkpoint/postgresrow.go", old: "WHERE saved.format <= excluded.format\n\tAND", new: "WHERE",
		pkg: "./test", test: "TestARowThatCannotBeTrustedIsNeitherReadNorReplaced",
	},
	{
		name: "database store: a newer format is read",
		file: "checkpoint/postgresrow.go", old: "case version < oldestFormat || version > format:", new: "case version < oldestFormat:",
		pkg: "./test", test: "TestARowThatCannotBeTrustedIsNeitherReadNorReplaced",
	},
	{
		name: "database store: a refused save counts as saved",
		file: "checkpoint/postgres.go", old: "if err != nil || tag.RowsAffected() == 1 {", new: "if err != nil || tag.RowsAffected() <= 1 {",
		pkg: "./test", test: "TestDatabaseStoreKeepsTheContract",
	},
	{
		name: "database store: a missing table counts as nothing saved",
		file: "checkpoint/postgres.go", old: "return fault.NewOperator(fmt.Errorf(\"%w: %w\", errNoTable, err), \"run `outboxcdc init`\")", new: "return ErrNone",
		pkg: "./test", test: "TestTheStorePreparesWhatIsMissing",
	},
	{
		name: "database store: a broken connection is used again",
		file: "checkpoint/postgres.go", old: "\ts.drop()\n\tif answer.Err()", new: "\tif answer.Err()",
		pkg: "./test", test: "TestTheStoreConnectsAgainAfterItsConnectionBroke",
	},
	{
		name: "database store: a save waits for an answer for ever",
		file: "checkpoint/postgres.go", old: "context.WithTimeout(ctx, answerTimeout)", new: "context.WithCancel(ctx)",
		pkg: "./checkpoint", test: "TestADatabaseThatNeverAnswersEndsTheSave",
	},
	// The file store.
	{
		name: "file store: renamed before its content is on disk",
		file: "checkpoint/file.go", old: "\tif err == nil {\n\t\terr = f.Sync()\n\t}\n", new: "",
		pkg: "./checkpoint", test: "TestAPowerCutAtAnyMomentLeavesOldOrNew",
	},
	{
		name: "file store: the directory is not synced",
		file: "checkpoint/file.go", old: "return s.explain(\"sync the directory of\", s.sync(filepath.Dir(s.path)))", new: "return nil",
		pkg: "./checkpoint", test: "TestAPowerCutAtAnyMomentLeavesOldOrNew",
	},
	{
		name: "file store: written in place",
		file: "checkpoint/file.go", old: "func (s *fileStore) temporary() string { return s.path + \".new\" }", new: "func (s *fileStore) temporary() string { return s.path }",
		pkg: "./checkpoint", test: "TestAPowerCutAtAnyMomentLeavesOldOrNew",
	},
	{
		name: "file store: a load trusts what is not on disk",
		file: "checkpoint/file.go", old: "\tif err := s.sync(filepath.Dir(s.path)); err != nil {\n\t\treturn Position{}, s.explain(\"read\", err)\n\t}\n", new: "",
		pkg: "./checkpoint", test: "TestWhatWasLoadedSurvivesAPowerCut",
	},
	{
		name: "file store: half a file stays on a full disk",
		file: "checkpoint/file.go", old: "\t\ts.disk.remove(s.temporary()) //nolint:errcheck // half a file takes room, the first error says why\n", new: "",
		pkg: "./checkpoint", test: "TestAFullDiskLeavesTheOldFileAndNoLitter",
	},
	{
		name: "file store: the guard forgets what others saved",
		file: "checkpoint/file.go", old: "\t\terr = follow(saved, p)\n", new: "\t\t_, err = saved, follow(p, p)\n",
		pkg: "./checkpoint", test: "TestFileKeepsTheContract",
	},
	{
		name: "file store: looks and renames without the lock",
		file: "checkpoint/lock_unix.go", old: "err := syscall.Flock(int(l.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)", new: "err := error(nil)",
		pkg: "./checkpoint", test: "TestASaveWaitsForAnotherProcess",
	},
	{
		name: "file: a start beside a process that is frozen in a save is given up",
		file: "checkpoint/file.go", old: "\tif told {\n\t\treturn err\n\t}\n\treturn fault.NewOperator(err, \"name a file", new: "\tif told && false {\n\t\treturn err\n\t}\n\treturn fault.NewOperator(err, \"name a file",
		pkg: "./checkpoint", test: "TestASaveWaitsForAnotherProcess",
	},
	{
		name: "file store: a damaged file counts as nothing saved",
		file: "checkpoint/file.go", old: "\tcase err != nil:\n\t\treturn p, fault.NewOperator(", new: "\tcase err != nil:\n\t\treturn p, ErrNone\n\t\treturn p, fault.NewOperator(",
		pkg: "./checkpoint", test: "TestADamagedFileIsNeverNone",
	},
	{
		name: "file store: a changed file is believed",
		file: "checkpoint/form.go", old: "!bytes.Equal(again, compact(content))", new: "again == nil",
		pkg: "./checkpoint", test: "TestADamagedFileIsNeverNone",
	},
	{
		name: "file store: another slot's file is read",
		file: "checkpoint/file.go", old: "case p.Slot != s.slot:", new: "case p.Slot == \"\":",
		pkg: "./checkpoint", test: "TestAFileOfAnotherSlotIsRefused",
	},
	// The rule that all of them share.
	{
		name: "store: a bare LSN is saved",
		file: "checkpoint/guard.go", old: "case p.System == \"\":", new: "case false:",
		pkg: "./checkpoint", test: "TestMemoryKeepsTheContract|TestFileKeepsTheContract",
	},
	{
		name: "store: backwards within a timeline",
		file: "checkpoint/guard.go", old: "next.Timeline == saved.Timeline && behind(next, saved)", new: "false",
		pkg: "./checkpoint", test: "TestMemoryKeepsTheContract|TestFileKeepsTheContract",
	},
	{
		name: "store: positions compared as signed numbers",
		file: "checkpoint/guard.go", old: "return p.LSN < q.LSN ||", new: "return int64(p.LSN) < int64(q.LSN) ||",
		pkg: "./checkpoint", test: "TestMemoryKeepsTheContract|TestFileKeepsTheContract",
	},
	// Migrations.
	{
		name: "migrations: without the lock",
		file: "migrations/apply.go", old: "exec(ctx, tx, settings+lock)", new: "exec(ctx, tx, settings)",
		pkg: "./test", test: "TestMigrationsByTwoAtOnceRunOnce",
	},
	{
		name: "migrations: look with the snapshot from before the lock",
		file: "migrations/apply.go", old: "IsoLevel: pgx.ReadCommitted, ", new: "",
		pkg: "./test", test: "TestMigrationsByTwoAtOnceRunOnce",
	},
	{
		name: "migrations: a user's own table is taken over",
		file: "migrations/apply.go", old: "case s.perTable && !ours:\n\t\treturn false, nil", new: "case s.perTable && !ours && false:\n\t\treturn false, nil",
		pkg: "./migrations", test: "TestAStepRunsWhenItsWorkIsNotThere",
	},
	{
		name: "migrations: a user's own comments are replaced",
		file: "migrations/0002_outbox.sql", old: "    IF makes = 'none' THEN\n        RETURN;\n    END IF;\n", new: "    IF makes = 'none' THEN makes := 'public.outbox'; END IF;\n",
		pkg: "./test", test: "TestATableOfSomeoneElseIsLeftUntouched",
	},
	{
		name: "migrations: a newer database is not refused",
		file: "migrations/apply.go", old: "if r.Number > s.newest {", new: "if r.Number > s.newest && false {",
		pkg: "./test", test: "TestADatabaseOfANewerVersionIsRefused",
	},
	{
		name: "migrations: strings quoted for another setting",
		file: "migrations/psql.go", old: "return ` E` + strings.ReplaceAll(quoted, `\\`, `\\\\`)", new: "return ` E` + quoted",
		pkg: "./migrations", test: "TestVariablesAreFilledInAsPsqlDoes",
	},
	{
		name: "migrations: a variable inside a string is filled in",
		file: "migrations/psql.go", old: "case s[0] == '\\'', s[0] == '\"':", new: "case s[0] == '\"':",
		pkg: "./migrations", test: "TestVariablesAreFilledInAsPsqlDoes",
	},
	{
		name: "migrations: a search path decides what runs",
		file: "migrations/apply.go", old: "\t\"SET LOCAL search_path = pg_catalog;\\n\" +\n", new: "",
		pkg: "./test", test: "TestMigrationsRunUnderHostileNamesAndSettings",
	},
}
