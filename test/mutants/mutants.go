package main

const simulation = "TestSimulatedWorldsLoseAndReorderNothing"

// chainMutants are mistakes that real projects have shipped, and each line of the chain
// read, send, ack, mark, save, confirm broken once.
//
//nolint:gochecknoglobals // a table
var chainMutants = []mutant{
	// The unsafe ledgers: rules for what to confirm that lose events.
	{
		name: "ledger: confirm every keepalive",
		file: "wal/stream.go", old: "s.rows.keepalive(k.end)", new: "s.rows.keepalive(k.end); s.confirmed.Store(max(s.confirmed.Load(), uint64(k.end)))",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "ledger: a keepalive inside a transaction counts",
		file: "wal/batch.go", old: "if !a.tx.open && end > a.last {", new: "if end > a.last {",
		pkg: "./wal", test: "TestKeepaliveCountsOnlyOutsideATransactionAndForward",
	},
	{
		name: "ledger: confirm a keepalive plus one",
		file: "wal/batch.go", old: "a.last, a.end = end, end", new: "a.last, a.end = end+1, end+1",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "ledger: confirm on receipt of the commit",
		file: "pipeline/saver.go", old: "\tmark := s.tracker.Mark()\n\ts.delivered.pass(", new: "\tmark := s.tracker.Begun()\n\ts.delivered.pass(",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "ledger: confirm the commit's position plus one",
		file: "wal/batch.go", old: "a.tx = transaction{begin: b, open: true}", new: "a.tx = transaction{begin: b, open: true}; a.end = b.commit + 1",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "ledger: highest acked instead of the contiguous prefix",
		file: "checkpoint/tracker.go", old: "\tticket.settled = true\n", new: "\tticket.settled = true\n\tt.mark.LSN = max(t.mark.LSN, ticket.end)\n",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "ledger: a transaction is complete before its commit is seen",
		file: "wal/batch.go", old: "\ta.tx.rows++\n\ta.rows++\n", new: "\ta.tx.rows++\n\ta.end = a.tx.commit + 48\n\ta.rows++\n",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "ledger: idle log does not wait in line",
		file: "checkpoint/tracker.go", old: "\tif n == 0 {\n\t\tt.settle(ticket)", new: "\tif n == 0 {\n\t\tt.mark.LSN = max(t.mark.LSN, end)\n\t\tt.settle(ticket)",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "ledger: an error is counted as an ack",
		file: "checkpoint/tracker.go", old: "\t\tk.tracker.Fail(err)\n\t\treturn\n", new: "\t\tk.tracker.Fail(err)\n",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "ledger: a failed message is skipped and sending goes on",
		file: "checkpoint/tracker.go", old: "\tif t.err == nil {\n\t\tt.err = err", new: "\tif false {\n\t\tt.err = err",
		pkg: "./pipeline", test: "TestNothingIsSentAfterAFailedAck",
	},

	// The chain, one link after the other.
	{
		name: "read: a row's place in its transaction starts over in each batch",
		file: "wal/batch.go", old: "Index:   a.tx.rows,", new: "Index:   a.rows,",
		pkg: "./wal", test: "TestBatchInsideATransactionHasNoEnd|TestLargeTransactionComesInBoundedBatches",
	},
	{
		name: "read: columns by place instead of by name",
		file: "wal/batch.go", old: "at := indexOf(m.columns, column.Name)", new: "at := want; if at >= len(m.columns) { at = -1 }",
		pkg: "./wal", test: "TestRowsAreNamedByCommitAndIndex",
	},
	{
		name: "read: a table that was renamed is dropped in silence",
		file: "wal/batch.go", old: "if known && old.table >= 0 {", new: "if known && old.table >= 0 && false {",
		pkg: "./wal", test: "TestRenamedTableStops",
	},
	{
		name: "read: the warning that rows are skipped is passed over",
		file: "wal/stream_errors.go", old: "case m.Code == objectNotInPrerequisiteState:", new: "case m.Code == objectNotInPrerequisiteState && false:",
		pkg: "./wal", test: "TestSkippedPublicationStopsTheStream",
	},
	{
		name: "read: a batch is kept for company",
		file: "wal/stream.go", old: "\t\tif !ok {\n\t\t\treturn s.give(ctx, stop, out)\n\t\t}", new: "\t\tif !ok {\n\t\t\tif s.rows.full() {\n\t\t\t\treturn s.give(ctx, stop, out)\n\t\t\t}\n\t\t\treturn nil\n\t\t}",
		pkg: "./wal", test: "TestSingleRowOnAnIdleLogIsPassedOnAtOnce",
	},
	{
		name: "read: no status while nobody takes the batch",
		file: "wal/stream.go", old: "\t\t\ts.heard = now // we do not listen, so silence says nothing\n\t\t\tif err := s.report(now); err != nil {\n\t\t\t\treturn err\n\t\t\t}", new: "\t\t\ts.heard = now",
		pkg: "./wal", test: "TestStatusFlowsWhileNobodyTakesBatches",
	},
	{
		name: "read: every request for a status is answered at once",
		file: "wal/stream.go", old: "if since < s.interval && (since < s.tick || !news) {", new: "if since < s.interval && !news {",
		pkg: "./wal", test: "TestReplyStormIsAnsweredTwiceASecond",
	},
	{
		name: "read: a dead link is never noticed",
		file: "wal/stream.go", old: "if silence >= s.silence {", new: "if silence >= 2000*s.silence {",
		pkg: "./wal", test: "TestSilentServerIsFoundDead",
	},
	{
		name: "read: memory that is still held is used again",
		file: "wal/arena.go", old: "\tidle := a.out == 0\n", new: "\tidle := true\n",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "read: memory of a batch comes back with old values",
		file: "wal/arena.go", old: "\tclear(slots)\n", new: "",
		pkg: "./wal", test: "TestColumnSlotsStartAsNull",
	},
	{
		name: "map: a row's headers may carry our names",
		file: "outbox/header.go", old: "strings.EqualFold(key[:len(HeaderPrefix)], HeaderPrefix)", new: "strings.EqualFold(key, HeaderPrefix)",
		pkg: "./outbox", test: "TestRowsCannotForgeOurHeaders",
	},
	{
		name: "map: an empty key is sent",
		file: "outbox/plan.go", old: "if len(m.Key) == 0 {", new: "if m.Key == nil {",
		pkg: "./outbox", test: "TestRowThatCannotBeMappedIsADataErrorThatNamesIt",
	},
	{
		name: "send: a batch is let go of before its acks",
		file: "pipeline/pipeline.go", old: "\tif err := s.send(ctx, batch, messages, ack); err != nil {", new: "\tbatch.Release()\n\tif err := s.send(ctx, batch, messages, ack); err != nil {",
		pkg: "./pipeline", test: simulation,
	},
	{
		name: "send: the budget is not waited for",
		file: "pipeline/budget.go", old: "if n > b.free && b.free < b.total {", new: "if false {",
		pkg: "./pipeline", test: "TestBudgetBoundsWhatIsInFlight|TestBatchesBeyondTheBudgetAreNotSent",
	},
	{
		name: "ack: half a batch is a batch",
		file: "checkpoint/tracker.go", old: "case left == 0:", new: "case left == 0 || left == int64(k.rows)/2:",
		pkg: "./checkpoint", test: "TestMarkIsTheEndOfTheLongestAckedPrefix|TestMarkNeverPassesAnOpenMessage",
	},
	{
		name: "save: confirm before save",
		file: "pipeline/saver.go", old: "\tif err := s.store.Save(ctx, next); err != nil {", new: "\ts.confirm(mark.LSN)\n\tif err := s.store.Save(ctx, next); err != nil {",
		pkg: "./pipeline", test: "TestSlotNeverPassesStore",
	},
	{
		name: "save: idle log is saved at every turn",
		file: "pipeline/saver.go", old: "return stride >= s.idleStride && now.Sub(s.at) >= s.idle", new: "return true",
		pkg: "./pipeline", test: "TestIdleLogIsSavedInStridesWhenASaveWritesLog",
	},
	{
		name: "confirm: a stop forgets the last acks",
		file: "pipeline/pipeline.go", old: "\tsaved := s.lastSave(connected)\n", new: "\tvar saved error\n",
		pkg: "./pipeline", test: "TestStopDrainsSavesAndConfirms",
	},
	{
		name: "confirm: a stop that could not save is one in order",
		file: "pipeline/pipeline.go", old: "return errors.Join(fault.ErrDrainTimeout, err)", new: "return err",
		pkg: "./pipeline", test: "TestAStopThatCannotSaveIsNotOneInOrder",
	},
	{
		name: "confirm: goodbye without the last position",
		file: "wal/stream.go", old: "if s.writeStatus(now, false) != nil || s.conn", new: "if s.conn",
		pkg: "./wal", test: "TestStopEndsReadingAndGoodbyeCarriesTheLastConfirm",
	},
	{
		name: "confirm: flush of zero becomes the write position",
		file: "wal/stream.go", old: "\tconfirmed := s.Confirmed()\n\ts.status.frame", new: "\tconfirmed := s.Read()\n\ts.status.frame",
		pkg: "./wal", test: "TestConfirmIsToldWithinHalfASecondAndOnlyThen",
	},
	{
		name: "start: a slot that was made anew is accepted",
		file: "pipeline/verdict.go", old: "if e.slot.Confirmed > common {", new: "if false {",
		pkg: "./pipeline", test: "TestGapsAreRefusedWithTheirRange",
	},
	{
		name: "start: another cluster is accepted",
		file: "pipeline/verdict.go", old: "case id.System != saved.System:", new: "case false:",
		pkg: "./pipeline", test: "TestGapsAreRefusedWithTheirRange",
	},
	{
		name: "start: a position is carried past a change of timeline",
		file: "pipeline/verdict.go", old: "return min(e.saved.LSN, s.At), true, nil", new: "return e.saved.LSN, true, nil",
		pkg: "./pipeline", test: "TestAPromotedStandbyIsFollowedFromWhereBothTimelinesAgree",
	},

	// Bugs of ours.
	{
		name: "bug: a panic of an ack is Go's own business",
		file: "pipeline/pipeline.go", old: "\t\tdefer fault.Catch(s.halt)\n", new: "",
		pkg: "./pipeline", test: "TestABugInAnyPart",
	},
	{
		name: "bug: the session is drained and saved all the same",
		file: "pipeline/bug.go", old: "\tcase s.bugs <- bug:\n", new: "",
		pkg: "./pipeline", test: "TestABugInAnyPart",
	},
	{
		name: "bug: what a broken ledger says is saved",
		file: "pipeline/saver.go", old: "\tif s.halted.Load() {\n\t\treturn nil\n\t}\n", new: "",
		pkg: "./pipeline", test: "TestABugInAnyPart",
	},
	{
		name: "bug: an error that may carry a payload is shown",
		file: "pipeline/fault/bug.go", old: "return fmt.Sprintf(\"panic with a %T\", value)", new: "return fmt.Sprint(value)",
		pkg: "./pipeline/fault", test: "TestAPanicBecomesOneLine",
	},
	{
		name: "open: the last look at the slot waits without end",
		file: "pipeline/open.go", old: "\tctx, cancel := context.WithTimeout(ctx, openTimeout)\n\tdefer cancel()\n\tslot, err := r.slot(ctx, conn)", new: "\tslot, err := r.slot(ctx, conn)",
		pkg: "./pipeline", test: "TestAnOpeningEndsInTime",
	},
	{
		name: "open: a connection is prepared without end",
		file: "wal/connect.go", old: "settle(settling, pg)", new: "settle(context.WithoutCancel(settling), pg)",
		pkg: "./pipeline", test: "TestAnOpeningEndsInTime",
	},

	// What ends a session, and what does not.
	{
		name: "end: more is written behind half a status",
		file: "wal/stream.go", old: "if _, err := s.conn.Write(s.status.frame); err != nil {", new: "if _, err := s.conn.Write(s.status.frame); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {",
		pkg: "./wal", test: "TestAStatusThatIsWrittenInPart",
	},
	{
		name: "end: a login that is refused is tried for ever",
		file: "pipeline/run.go", old: "return r.denied <= deniedTries", new: "return true",
		pkg: "./pipeline", test: "TestALoginThatIsRefused",
	},
	{
		name: "end: a login that is refused once is the end",
		file: "pipeline/run.go", old: "errors.Is(err, wal.ErrDenied) && r.streamed", new: "false",
		pkg: "./pipeline", test: "TestALoginThatIsRefused",
	},
	{
		name: "memory: what only the start used stays resident",
		file: "cmd/outboxcdc/giveback_linux.go", old: "unix.MADV_DONTNEED); err", new: "unix.MADV_NORMAL); err",
		pkg: "./cmd/outboxcdc", test: "TestWhatOnlyTheStartUsedIsGivenBack",
	},
}
