package main

const (
	recoveryUnderLoad = "TestARecoveryUnderLoadMissesNothingAndDoublesOnlyWhatWasInFlight"
	exactReplay       = "TestAReplayFromABookmarkIsExactlyTheSuffixInCommitOrder"
)

// replayMutants are mistakes in what is done after an incident.
//
//nolint:gochecknoglobals // a table
var replayMutants = []mutant{
	// Recovery.
	{
		name: "skip: what a stream saved meanwhile is taken back",
		file: "pipeline/skip.go", old: "saved.LSN != s.e.saved.LSN {", new: "saved.LSN < s.e.saved.LSN {",
		pkg: "./test", test: "TestASkipTakesNothingBack",
	},
	{
		name: "replay: parked rows are sent",
		file: "pipeline/replay.go", old: "&& !aside[row.Place()] }", new: "&& (len(aside) >= 0 || !aside[row.Place()]) }",
		pkg: "./test", test: "TestAReplayLeavesParkedRowsAside",
	},
	{
		name: "skip: a message outside of a transaction gets a number",
		file: "pipeline/skip.go", old: "if s.poison.XID == 0 {", new: "if s.poison.behind == 0 {",
		pkg: "./test", test: "TestASkippedMessageLeavesWhatIsSaidOfRows",
	},
	{
		name: "recover: rows that do not tell their transaction are passed",
		file: "pipeline/recover.go", old: "if err != nil || len(untold) == 0 {", new: "if err != nil || len(untold) >= 0 {",
		pkg: "./test", test: "TestARecoveryDoesNotPassRowsThatDoNotTellTheirTransaction",
	},
	{
		name: "recover: the table is read as it is, not as the new slot saw it",
		file: "wal/copy.go", old: "LOGICAL %s USE_SNAPSHOT", new: "LOGICAL %s NOEXPORT_SNAPSHOT",
		pkg: "./test", test: recoveryUnderLoad,
	},
	{
		name: "recover: a log that begins anew is taken for one behind an upgrade",
		file: "pipeline/recover.go", old: "\tcase r.e.identity.Flush < saved.LSN:", new: "\tcase false:",
		pkg: "./test", test: "TestARestoredDumpIsNotTakenForAnUpgrade",
	},
	{
		name: "recover: transactions that begin anew are taken for those behind an upgrade",
		file: "pipeline/recover.go", old: "\tif err == nil && !reached {", new: "\tif err == nil && !reached && false {",
		pkg: "./test", test: "TestARestoredDumpIsNotTakenForAnUpgrade",
	},
	{
		name: "recover: what was delivered before an upgrade is not known",
		file: "pipeline/recover.go", old: "newestDelivered(entries, r.origin().identity, switches)", new: "newestDelivered(entries, r.e.identity, switches)",
		pkg: "./test", test: "TestARecoveryAfterAnUpgradeSendsWhatNobodyStreamed",
	},
	{
		name: "replay: a row that was dropped halts it",
		file: "wal/parkedlook.go", old: "AND state <> '\"+ParkedSent+\"') p\")", new: "AND state = 'parked') p\")",
		pkg: "./test", test: "TestAReplayLeavesDroppedRowsOut",
	},
	{
		name: "recover: what was delivered is sent again",
		file: "pipeline/recover.go", old: "wal.Selection{Unseen: r.done.From.Text, Ordered: true}", new: "wal.Selection{Ordered: true}",
		pkg: "./test", test: recoveryUnderLoad,
	},
	{
		name: "recover: nothing is sent from the table",
		file: "pipeline/recover.go", old: "wal.Selection{Unseen: r.done.From.Text, Ordered: true}", new: "wal.Selection{Unseen: born.Snapshot, Ordered: true}",
		pkg: "./test", test: recoveryUnderLoad,
	},
	{
		name: "recover: the new slot is saved before its past is sent",
		file: "pipeline/recover.go", old: "\tif err := r.send(ctx, stop, conn, broker, born); err != nil {", new: "\tif err := r.save(ctx, born); err != nil {\n\t\treturn err\n\t}\n\tif err := r.send(ctx, stop, conn, broker, born); err != nil {",
		pkg: "./test", test: "TestARecoveryThatDiesAtAnyStepIsBegunAnew",
	},
	{
		name: "recover: a slot that is sound is replaced",
		file: "pipeline/recover.go", old: "if verdict.Begins() && !slot.TwoPhase && !r.config.Anew {", new: "if verdict.Begins() && slot.Name == \"\" {",
		pkg: "./test", test: "TestARecoveryOfASlotThatIsSoundOrUnknownIsRefused",
	},
	{
		name: "recover: a snapshot from behind the switch of timelines counts",
		file: "pipeline/recover.go", old: "!e.Delivered.Known() || e.Delivered.At > limit {", new: "!e.Delivered.Known() || e.Delivered.At > limit+1<<40 {",
		pkg: "./pipeline", test: "TestTheDeliveredSnapshotIsOneThatTheServersLogKnows",
	},
	{
		name: "recover: a snapshot that ends before it begins is saved",
		file: "wal/copy.go", old: "\tif end < begin {", new: "\tif end < begin && end == 0 {",
		pkg: "./wal", test: "TestASnapshotWhoseEndIsBeforeItsBeginningIsMadeLegal",
	},
	// Replay.
	{
		name: "replay: the bookmark itself is read, and moved",
		file: "wal/copy.go", old: "\tif err := c.copySlot(ctx, from, name, \"true\"); err != nil {\n\t\treturn err\n\t}\n", new: "\tname = from\n",
		pkg: "./test", test: exactReplay,
	},
	{
		name: "replay: the live slot is read",
		file: "pipeline/replay.go", old: "openExcerpt(ctx, r.config.Wal, r.Plan.Slot,", new: "openExcerpt(ctx, r.config.Wal, r.config.Wal.Slot,",
		pkg: "./test", test: exactReplay,
	},
	{
		name: "replay: ends with a batch that ends before its end",
		file: "pipeline/excerpt.go", old: "batch.End >= e.to; last {", new: "batch.End+1<<19 >= e.to; last {",
		pkg: "./test", test: exactReplay,
	},
	{
		name: "replay: goes on behind its end",
		file: "pipeline/excerpt.go", old: "if row.Commit >= e.to {", new: "if row.Commit >= e.to+4096 {",
		pkg: "./test", test: exactReplay,
	},
	{
		name: "replay: begins at the slot instead of where it was asked to",
		file: "pipeline/replay.go", old: "max(r.Plan.From, r.reached.LSN), r.Plan.To)", new: "r.reached.LSN, r.Plan.To)",
		pkg: "./test", test: exactReplay,
	},
	{
		name: "replay: what was sent and not acked counts as replayed",
		file: "pipeline/replay.go", old: "return reached{LSN: mark}, mark >= e.to", new: "return reached{LSN: e.to}, mark >= e.to",
		pkg: "./test", test: "TestAReplayGoesOnWhereItWasInterrupted",
	},
	{
		name: "replay: rows of the table carry a position",
		file: "outbox/outbox.go", old: "if m.plan.position && row.Commit != 0 {", new: "if m.plan.position {",
		pkg: "./test", test: "TestAReplayFromTheTableIsASupersetThatMissesNothing",
	},
	{
		name: "replay: the caller's headers are written over",
		file: "sink/decorate.go", old: "append(slices.Clip(m.Headers), t.header)", new: "append(slices.Grow(m.Headers, 0), t.header)",
		pkg: "./sink", test: "TestATaggedMessageHasOneMoreHeaderAndTheCallersIsAsItWas",
	},
	{
		name: "replay: a finite session drops what is queued",
		file: "pipeline/pipeline.go", old: "\t\texhausted = published\n", new: "\t\tgone := make(chan struct{})\n\t\tclose(gone)\n\t\texhausted = gone\n",
		pkg: "./pipeline", test: "TestASessionOfAFiniteSourceEndsWhenAllOfItIsAckedAndSaved",
	},
	// The replay window.
	{
		name: "window: the slot moves ahead of the stream",
		file: "pipeline/window.go", old: "return min(to, live.Confirmed)", new: "return to",
		pkg: "./pipeline", test: "TestTheTrailingSlotFollowsWithTheLagOfTheWindow",
	},
	{
		name: "window: it is kept whatever the server can keep",
		file: "pipeline/window.go", old: "case t.keep >= 0 && slot.RetainedBytes > t.keep/4*3:", new: "case false:",
		pkg: "./pipeline", test: "TestASlotThatEndangersTheDiskIsTold",
	},
	// skip and drop.
	{
		name: "skip: two transactions are passed",
		file: "pipeline/skip.go", old: "\t\t\ts.behind(batch.End, row)\n\t\t\treturn errFound\n\t\t}\n\t\ts.poison.Count++", new: "\t\t\ts.poison.behind = s.e.identity.Flush\n\t\t\treturn errFound\n\t\t}\n\t\ts.poison.Count++",
		pkg: "./test", test: "TestSkipPassesExactlyOneTransaction",
	},
	{
		name: "skip: what stands before it is passed as well",
		file: "pipeline/skip.go", old: "case row.Commit < s.commit:", new: "case false:",
		pkg: "./test", test: "TestSkipPassesExactlyOneTransaction",
	},
	{
		name: "drop: a publication goes that another slot reads with",
		file: "pipeline/drop.go", old: "\tif len(others) > 0 {", new: "\tif false {",
		pkg: "./test", test: "TestDropRemovesWhatIsTheStreamsAndNothingElse",
	},
}
