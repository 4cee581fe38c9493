package main

const poisonSimulation = "TestSimulatedWorldsParkAndBringBackInOrder"

// poisonMutants are mistakes with rows that cannot be sent.
//
//nolint:gochecknoglobals // a table
var poisonMutants = []mutant{
	{
		name: "refused: what was refused is remembered for good",
		file: "pipeline/parked.go", old: "\ta.refusals.forget(from)\n", new: "",
		pkg: "./pipeline", test: "TestWhatWasRefusedIsForgottenOnceItIsPassed",
	},
	{
		name: "park: parked rows trouble nobody",
		file: "pipeline/trouble.go", old: "if s.ParkedRows > 0 {", new: "if false {",
		pkg: "./pipeline", test: "TestTroublesAreToldWhileEventsShouldFlow",
	},
	{
		name: "park: a row that was read and not sent is not worth a save",
		file: "pipeline/pipeline.go", old: "s.saver.read.Store(uint64(batch.Rows[rows-1].Commit))", new: "",
		pkg: "./pipeline", test: "TestASkippedRowAtTheEndOfTheLogIsSaved",
	},
	{
		name: "park: a row that was read and not sent ends where what came before it ends",
		file: "pipeline/pipeline.go", old: "s.saver.read.Store(uint64(batch.Rows[rows-1].Commit))", new: "s.saver.read.Store(uint64(s.tracker.Begun().LSN))",
		pkg: "./pipeline", test: "TestASkippedRowAtTheEndOfTheLogIsSaved",
	},
	{
		name: "park: a row counts as parked that is nowhere",
		file: "pipeline/parked.go", old: "if err := p.lot.Park(ctx, p.pending); err != nil {", new: "if err := ctx.Err(); err != nil {",
		pkg: "./pipeline", test: poisonSimulation,
	},
	{
		name: "park: a row counts as dealt with before its dead letter is acked",
		file: "pipeline/aside.go", old: "a.messages, a.origins = append(a.messages, letter), append(a.origins, at)", new: "_ = letter",
		pkg: "./pipeline", test: poisonSimulation,
	},
	{
		name: "park: what follows a parked row overtakes it",
		file: "pipeline/parked.go", old: "return known && !at.Before(line.since)", new: "return false && known && !at.Before(line.since)",
		pkg: "./pipeline", test: poisonSimulation,
	},
	{
		name: "park: what came before a parked row waits with it",
		file: "pipeline/parked.go", old: "return known && !at.Before(line.since)", new: "return known && line.rows >= 0",
		pkg: "./pipeline", test: "TestWhatCameBeforeTheParkedRowIsSentWhenItIsReadAgain",
	},
	{
		name: "park: a new session does not know what is parked",
		file: "pipeline/parked.go", old: "\t\t\tp.add(h.Place, h.Aggregate, h.Bytes)\n", new: "",
		pkg: "./pipeline", test: "TestAParkedAggregateIsParkedInTheNextSessionToo",
	},
	{
		name: "park: there is always room",
		file: "pipeline/parked.go", old: "case p.rows >= p.limit.Rows:", new: "case p.rows < 0:",
		pkg: "./pipeline", test: "TestAStreamHaltsBeforeTheRowForWhichThereIsNoRoom",
	},
	{
		name: "retry: rows count as sent before the broker holds them",
		file: "pipeline/retry.go", old: "\tif err == nil {\n\t\terr = a.flush(ctx)\n\t}\n\tif err != nil {\n\t\treturn a.explainRetry", new: "\tif err != nil {\n\t\treturn a.explainRetry",
		pkg: "./pipeline", test: poisonSimulation,
	},
	{
		name: "retry: what was sent is sent anew when it is read again",
		file: "pipeline/parked.go", old: "return known && head.Settled", new: "return known && !known && head.Settled",
		pkg: "./pipeline", test: "TestRowsThatWereSentOnRequestAreNotParkedOrSentAnewWhenTheyAreReadAgain",
	},
	{
		name: "retry: an aggregate flows of which rows are parked still",
		file: "pipeline/retry.go", old: "\tif len(left) > 0 {\n\t\tp.lines[string(aggregate)].since = left[0].Place\n\t} else {\n\t\tdelete(p.lines, string(aggregate))\n\t}\n", new: "\t_ = left\n\tdelete(p.lines, string(aggregate))\n",
		pkg: "./pipeline", test: "TestARetryStopsAtTheRowThatCannotBeSentStill",
	},
	{
		name: "retry: a row that is refused still is tried for ever",
		file: "pipeline/retry.go", old: "\treturn errors.Join(err, a.refuse(context.WithoutCancel(ctx), &rows[0], why))\n", new: "\treturn err\n",
		pkg: "./pipeline", test: "TestARefusalOfARetryIsFoundAndEndsNoOtherRow",
	},
	{
		name: "refused: the broker's batch is blamed on whatever is in it",
		file: "pipeline/onerror.go", old: "return r.suspects == topic && row.Commit <= r.until && topic != \"\"", new: "return topic == \"\" && r.suspects == topic && row.Commit <= r.until",
		pkg: "./pipeline", test: "TestWhatTheBrokerRefusesIsFoundAmongManyAndOnlyThatIsSkipped",
	},
	{
		name: "park: a stream that halts overtakes what is parked",
		file: "pipeline/parked.go", old: "if err != nil || count.Rows == 0 {", new: "if err != nil || count.Rows >= 0 {",
		pkg: "./test", test: "TestDroppedRowsArePassedAndTheRestFollowsThroughADeath",
	},
	{
		name: "park: a recovery overtakes what is parked",
		file: "pipeline/recover.go", old: "\tif int64(count.Rows) == dropped {", new: "\tif int64(count.Rows) >= dropped {",
		pkg: "./test", test: "TestDroppedRowsArePassedAndTheRestFollowsThroughADeath",
	},
	{
		name: "retry: parked rows come ahead of what is yet to be read again",
		file: "pipeline/retry.go", old: "return known && line.since.Commit < a.read", new: "return known && line.since.Commit > 0",
		pkg: "./pipeline", test: "TestARetryWaitsForWhatComesBeforeTheParkedRow",
	},
	{
		name: "park: other topics make another aggregate of a parked one",
		file: "pipeline/rekey.go", old: "bytes.HasPrefix(key, []byte{0}) == a.plan.Typed()", new: "len(key) == 0",
		pkg: "./pipeline", test: "TestAParkedAggregateWaitsWhereTopicsTellItsType",
	},
	{
		name: "poison: what was sent before it is not confirmed where its end came with it",
		file: "pipeline/pipeline.go", old: "end <= begun {", new: "good == 0 || end <= begun {",
		pkg: "./pipeline", test: "TestWhatIsBeforeABadRowIsConfirmed",
	},
	{
		name: "poison: what was not read is confirmed before it",
		file: "pipeline/pipeline.go", old: "if end = min(batch.End, commit); end", new: "if end = commit; end",
		pkg: "./pipeline", test: "TestOnlyWhatWasReadIsConfirmedBeforeABadRow",
	},
	{
		name: "park: rows of another cluster stay behind",
		file: "wal/parked.go", old: "\tif err := p.bring(ctx, from); err != nil {", new: "\tif err := ctx.Err(); err != nil {",
		pkg: "./test", test: "TestParkedRowsComeAlongToAnotherCluster",
	},
	{
		name: "park: rows of another cluster keep positions ahead of the log",
		file: "wal/parked.go", old: "commit_lsn = CASE WHEN o.top < %s THEN", new: "commit_lsn = CASE WHEN o.top < %s OR true THEN",
		pkg: "./test", test: "TestParkedRowsComeAlongToAnotherCluster",
	},
	{
		name: "park: the database forgets whose parked rows are now",
		file: "wal/parked.go", old: "UPDATE outboxcdc.parked q SET aggregate = v.aggregate,", new: "UPDATE outboxcdc.parked q SET aggregate = q.aggregate,",
		pkg: "./test", test: "TestAParkedAggregateWaitsWhereItsTopicIsAnother",
	},
	{
		name: "retry: a drop that was asked for meanwhile is forgotten",
		file: "wal/parked.go", old: "SET asked = nullif(asked, '\"+AskRetry+\"'), ", new: "SET asked = NULL, ",
		pkg: "./test", test: "TestADropThatIsAskedForDuringARetryStands",
	},
	{
		name: "park: a row that was parked past the session is taken for one of its own",
		file: "pipeline/retry.go", old: "if p.lines[string(r.Aggregate)] == nil {", new: "if p.lot == nil {",
		pkg: "./pipeline", test: "TestARowThatWasParkedPastTheSession",
	},
	{
		name: "park: the view calls a parked row SENT",
		file: "migrations/0009_parked_status.sql", old: "THEN ''PARKED'' '", new: "THEN ''SENT'' '",
		pkg: "./test", test: "TestDroppedRowsArePassedAndTheRestFollowsThroughADeath",
	},
	{
		name: "park: where no id is read, the view calls a parked row SENT",
		file: "migrations/0009_parked_status.sql", old: "''parked'') AND array_position(p.column_names, ''id'') IS NULL)", new: "''none'') AND array_position(p.column_names, ''id'') IS NULL)",
		pkg: "./test", test: "TestDroppedRowsArePassedAndTheRestFollowsThroughADeath",
	},
}
