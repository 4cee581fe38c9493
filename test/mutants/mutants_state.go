package main

// stateMutants are mistakes in what is known of a stream's past: whether it may go on,
// and what was delivered.
//
//nolint:gochecknoglobals // a table
var stateMutants = []mutant{
	{
		name: "watch: a successor's slot is the operator's matter",
		file: "pipeline/open.go", old: "\t\treturn moved\n", new: "\t\treturn fault.NewOperator(moved, \"\")\n",
		pkg: "./pipeline", test: "TestASlotThatMovedIsTheOperatorsOnlyWhereNobodySavedThat",
	},
	{
		name: "start: a slot that was invalidated is accepted",
		file: "pipeline/verdict.go", old: "if e.slot.Lost() {", new: "if false {",
		pkg: "./pipeline", test: "TestGapsAreRefusedWithTheirRange",
	},
	{
		name: "start: --accept-gap accepts whatever comes",
		file: "pipeline/accept.go", old: "e.saved.LSN == r.config.AcceptGap", new: "e.saved.LSN != 0",
		pkg: "./pipeline", test: "TestOnlyTheGapThatWasNamedIsAccepted",
	},
	{
		name: "start: an accepted gap is not recorded",
		file: "pipeline/accept.go", old: "historian.Replace(ctx, checkpoint.Entry{Position: position, Gap: gap})", new: "historian.Replace(ctx, checkpoint.Entry{Position: position})",
		pkg: "./test", test: "TestASlotThatSomebodyAdvancedIsRefusedWithItsGap",
	},
	{
		name: "start: a snapshot is carried past a change of timeline",
		file: "pipeline/accept.go", old: "bound = min(bound, sent)", new: "bound = max(bound, sent)",
		pkg: "./pipeline", test: "TestASnapshotIsCarriedOnlyWhereItStillHolds",
	},

	// What is delivered, in terms of transactions.
	{
		name: "snapshot: it counts before the mark has passed it",
		file: "pipeline/samples.go", old: "s.waiting[n].At <= mark", new: "s.waiting[n].At != 0",
		pkg: "./pipeline", test: "TestASnapshotIsDeliveredOnceTheMarkHasPassedIt",
	},
	{
		name: "snapshot: the position is taken before it",
		file: "wal/sample.go", old: "\trow, _, err := fetchOne[sampleRow](ctx, pg, sampleSQL)\n", new: "\tearly, _, _ := fetchOne[sampleRow](ctx, pg, sampleSQL)\n\trow, _, err := fetchOne[sampleRow](ctx, pg, sampleSQL)\n\trow.At = early.At\n",
		pkg: "./test", test: "TestASampleShowsNothingThatCommitsBehindItsPosition",
	},
	{
		name: "snapshot: an idle stream saves every one",
		file: "pipeline/saver.go", old: "case lacked && s.delivered.lacks == 0:", new: "case lacked || s.delivered.visible.Text() != s.position.Delivered.Text:",
		pkg: "./pipeline", test: "TestAnIdleStreamSavesWithItsRowsAndNotAgain",
	},
	{
		name: "snapshot: a transaction counts when it is sent, not when the mark has passed it",
		file: "pipeline/delivered.go", old: "t.waiting[n].commit < mark", new: "t.waiting[n].commit < mark+0x80",
		pkg: "./pipeline", test: "TestWhatIsSavedShowsTheTransactionsUpToThePositionAndNoOthers",
	},
	{
		name: "snapshot: transactions between two snapshots are not added",
		file: "pipeline/pipeline.go", old: "\ts.saver.delivered.sent.add(batch.Rows)\n", new: "",
		pkg: "./test", test: "TestARecoveryUnderLoadMissesNothingAndDoublesOnlyWhatWasInFlight",
	},
	{
		name: "snapshot: a transaction that is added brings those before it along",
		file: "checkpoint/visible.go", old: "\tfor ; v.next < full; v.next++ {\n\t\tv.open = append(v.open, v.next)\n\t}\n", new: "\tv.next = full\n",
		pkg: "./checkpoint", test: "TestTheSetIsWhatWasJoinedAndAdded",
	},
	{
		name: "snapshot: what the watch has not looked behind is saved although it found fault",
		file: "pipeline/delivered.go", old: " || d.distrusted.Load() {", new: " {",
		pkg: "./pipeline", test: "TestWhatIsNotSettledIsNeitherKeptNorSweptNorSavedOnceTheWatchFindsFault",
	},
	{
		name: "snapshot: rows are swept by what the watch has not looked behind",
		file: "pipeline/saver.go", old: "\tsettled := s.settled()\n", new: "\tsettled := s.position\n",
		pkg: "./pipeline", test: "TestWhatIsNotSettledIsNeitherKeptNorSweptNorSavedOnceTheWatchFindsFault",
	},
	{
		name: "snapshot: none is known until the first was delivered",
		file: "pipeline/accept.go", old: "if e.slot == nil || e.slot.Horizon == 0 ||", new: "if true || e.slot == nil ||",
		pkg: "./test", test: "TestASlotThatIsLostBeforeAnythingWasDeliveredIsRecovered",
	},
	{
		name: "snapshot: that of another server is taken",
		file: "pipeline/samples.go", old: "sample.System != s.system || sample.Timeline != s.timeline", new: "false",
		pkg: "./pipeline", test: "TestASnapshotOfAnotherServerIsNotTaken",
	},
	{
		name: "start: a position that is gone makes a first start",
		file: "pipeline/verdict.go", old: "case e.streamed == 0 || e.slot != nil && e.slot.Confirmed == e.streamed:", new: "case true:",
		pkg: "./pipeline", test: "TestASavedPositionThatIsGoneIsNoFirstStart",
	},
	{
		name: "start: whether a slot was streamed from is not looked up",
		file: "pipeline/open.go", old: "\te.streamed, _, err = conn.Streamed(ctx)\n", new: "",
		pkg: "./test", test: "TestASavedPositionThatIsGoneIsToldWhereverItWas",
	},
	{
		name: "status: a table that the stream leaves out is not noted",
		file: "wal/register.go", old: "left_at = CASE WHEN NOT k.streams THEN coalesce(t.left_at, now()) END,", new: "left_at = NULL,",
		pkg: "./test", test: "TestRowsOfATableThatIsLeftOutForAWhileAreNeverCalledSent",
	},
	{
		name: "status: a table counts as streamed before the stream begins with it",
		file: "migrations/0010_left.sql", old: "t.streamed_lsn IS NOT NULL) THEN now() END)", new: "t.streamed_lsn IS NOT NULL) THEN NULL::timestamptz END)",
		pkg: "./test", test: "TestRowsOfATableThatIsNotStreamedYetAreNeverCalledSent",
	},
	{
		name: "status: what waits is not looked for by its transaction's number",
		file: "wal/rows.go", old: "\" >= pg_snapshot_xmin(\" + quoteText(d.Snapshot) + \"::pg_snapshot) AND NOT \"", new: "\" IS NOT NULL AND NOT \"",
		pkg: "./test", test: "TestCountingWhatWaitsReadsNewRowsAloneWhereXidHasAnIndex",
	},
	{
		name: "history: each save adds an entry",
		file: "pipeline/saver.go", old: "now.Sub(*s.kept) < s.historic", new: "false",
		pkg: "./pipeline", test: "TestTheHistoryGetsAnEntryAnIntervalAndNoneWithoutASave",
	},
	{
		name: "history: a command that mends cuts it to a week",
		file: "pipeline/config.go", old: "HistoryAge: checkpoint.Forever, ", new: "",
		pkg: "./pipeline", test: "TestOnlyAStreamForgetsHistory",
	},
	{
		name: "history: what is too old stays in the topic",
		file: "checkpoint/kafka.go", old: "append(s.outdated(e), record)", new: "[]*kgo.Record{record}",
		pkg: "./checkpoint", test: "TestEntriesThatAreTooOldAreDeletedFromTheTopic",
	},
	{
		name: "idle: each save of ours calls for the next",
		file: "pipeline/saver.go", old: "return stride >= s.idleStride && now.Sub(s.at) >= s.idle", new: "return stride > 0 && now.Sub(s.at) >= s.idle",
		pkg: "./pipeline", test: "TestAnIdleStreamSleepsThroughTheNight",
	},
	{
		name: "status: the view asks the present snapshot",
		file: "migrations/0005_status.sql", old: "WHEN pg_visible_in_snapshot(r.xid, $4) THEN", new: "WHEN pg_visible_in_snapshot(r.xid, pg_current_snapshot()) THEN",
		pkg: "./test", test: "TestARowIsPendingWhileTheBrokerIsSilentAndSentAfterwards",
	},
	{
		name: "prune: rows that may never have been sent go too",
		file: "wal/rows.go", old: `return "(NOT " + d.unsure() + " AND " + visible(d.Snapshot) + ")"`, new: `return "(" + visible(d.Snapshot) + ")"`,
		pkg: "./test", test: "TestPruneDeletesOnlyWhatIsDeliveredAndOld",
	},
	{
		name: "verify: a parked row counts as missing",
		file: "pipeline/verify/compare.go", old: "case r.aside[s.row.identity] == Parked:", new: "case false:",
		pkg: "./pipeline/verify", test: "TestEachDefectIsCountedAsWhatItIs",
	},
	{
		name: "verify: a row that was dropped on request counts as missing",
		file: "wal/parkedlook.go", old: `AND event_id IS NOT NULL AND state <> '"+ParkedSent+"')`, new: `AND event_id IS NOT NULL AND state <> '"+ParkedDropped+"')`,
		pkg: "./test", test: "TestVerifyTellsParkedRowsFromMissingOnes",
	},
	{
		name: "verify: a row that cannot be mapped is counted again by each comparison",
		file: "pipeline/verify/compare.go", old: "p.Unmappable, p.Parked, p.Dropped = r.nameless, 0, 0", new: "p.Parked, p.Dropped = 0, 0",
		pkg: "./pipeline/verify", test: "TestARowWithoutAnIDIsCountedOnceInEachComparison",
	},
	{
		name: "kafka store: an earlier position behind a later one counts",
		file: "checkpoint/kafka_log.go", old: "if s.saved == nil || replaces || follow(*s.saved, e.Position) == nil {", new: "if true || replaces {",
		pkg: "./checkpoint", test: "TestAnEarlierPositionBehindALaterOneIsPassedOver",
	},
	{
		name: "kafka store: a broker that is slow holds no position",
		file: "checkpoint/kafka_log.go", old: "&& s.fetched.n.Load() >= before+idleAnswers", new: "&& before >= 0",
		pkg: "./checkpoint", test: "TestABrokerThatGivesNoRecordsForNow",
	},
	{
		name: "kafka store: an answer of no leader is one without records",
		file: "checkpoint/kafka.go", old: "\t\tkgo.KeepRetryableFetchErrors(), // or an answer with one would look like one without records\n", new: "",
		pkg: "./checkpoint", test: "TestABrokerThatGivesNoRecordsForNow",
	},
	{
		name: "kafka store: a topic whose beginning was removed is a first start",
		file: "checkpoint/kafka_log.go", old: "if s.saved == nil && start > 0 {", new: "if false {",
		pkg: "./checkpoint", test: "TestATopicThatCannotBeTrustedIsRefused",
	},
}
