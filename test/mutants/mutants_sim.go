package main

const wholeSimulation = "TestSimulatedRunnersLoseAndReorderNothing"

// simMutants are the unsafe ledgers again, and what only whole runners can get wrong:
// the simulation alone must catch each.
//
//nolint:gochecknoglobals // a table
var simMutants = []mutant{
	{
		name: "simulation: ledger: confirm every keepalive",
		file: "wal/stream.go", old: "s.rows.keepalive(k.end)", new: "s.rows.keepalive(k.end); s.confirmed.Store(max(s.confirmed.Load(), uint64(k.end)))",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: a keepalive inside a transaction counts",
		file: "wal/batch.go", old: "if !a.tx.open && end > a.last {", new: "if end > a.last {",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: confirm a keepalive plus one",
		file: "wal/batch.go", old: "a.last, a.end = end, end", new: "a.last, a.end = end+1, end+1",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: confirm on receipt of the commit",
		file: "pipeline/saver.go", old: "\tmark := s.tracker.Mark()\n\ts.delivered.pass(", new: "\tmark := s.tracker.Begun()\n\ts.delivered.pass(",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: confirm the commit's position plus one",
		file: "wal/batch.go", old: "a.tx = transaction{begin: b, open: true}", new: "a.tx = transaction{begin: b, open: true}; a.end = b.commit + 1",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: highest acked instead of the contiguous prefix",
		file: "checkpoint/tracker.go", old: "\tticket.settled = true\n", new: "\tticket.settled = true\n\tt.mark.LSN = max(t.mark.LSN, ticket.end)\n",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: a transaction is complete before its commit is seen",
		file: "wal/batch.go", old: "\ta.tx.rows++\n\ta.rows++\n", new: "\ta.tx.rows++\n\ta.end = a.tx.commit + 48\n\ta.rows++\n",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: idle log does not wait in line",
		file: "checkpoint/tracker.go", old: "\tif n == 0 {\n\t\tt.settle(ticket)", new: "\tif n == 0 {\n\t\tt.mu.Lock()\n\t\tt.mark.LSN = max(t.mark.LSN, end)\n\t\tt.mu.Unlock()\n\t\tt.settle(ticket)",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: an error is counted as an ack",
		file: "checkpoint/tracker.go", old: "\t\tk.tracker.Fail(err)\n\t\treturn\n", new: "\t\tk.tracker.Fail(err)\n",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: ledger: a failed message is skipped and sending goes on",
		file: "sink/kafka_parcel.go", old: "\tif err == nil {\n\t\tp.stored++\n\t} else {", new: "\tif p.stored >= 0 {\n\t\tp.stored++\n\t} else {",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: save: confirm before save",
		file: "pipeline/saver.go", old: "\tif err := s.store.Save(ctx, next); err != nil {", new: "\ts.confirm(mark.LSN)\n\tif err := s.store.Save(ctx, next); err != nil {",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: start: the slot's own position is good enough",
		file: "pipeline/open.go", old: "conn.Start(ctx, position.LSN)", new: "conn.Start(ctx, 0)",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: read: memory that is still held is used again",
		file: "wal/arena.go", old: "\tidle := a.out == 0\n", new: "\tidle := true\n",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: read: no status while nobody takes the batch",
		file: "wal/stream.go", old: "\t\t\ts.heard = now // we do not listen, so silence says nothing\n\t\t\tif err := s.report(now); err != nil {\n\t\t\t\treturn err\n\t\t\t}", new: "\t\t\ts.heard = now",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: supervise: a busy slot is an operator's business",
		file: "pipeline/open.go", old: "\t\treturn nil, conn.Busy(ctx, *slot)", new: "\t\treturn nil, fault.NewOperator(conn.Busy(ctx, *slot), \"stop the other\")",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: confirm: a stop forgets the last acks",
		file: "pipeline/pipeline.go", old: "\tsaved := s.lastSave(connected)\n", new: "\tvar saved error\n",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: watch: a server that stops is not noticed",
		file: "wal/watch.go", old: "\t\tdefault:\n\t\t\treturn Fault(err)\n", new: "\t\tdefault:\n\t\t\t<-ctx.Done()\n\t\t\treturn ctx.Err()\n",
		pkg: "./test/sim", test: wholeSimulation,
	},
	{
		name: "simulation: preflight: the tables are read before the publication",
		file: "wal/preflight.go",
		old:  "\tp.publication, p.exists, err = fetchOne[publicationFacts](ctx, pg, publicationSQL(config))\n\tif err != nil {\n\t\treturn p, fmt.Errorf(\"look at publication %s: %w\", displayName(config.Publication), err)\n\t}\n\tif len(config.Tables) == 0 {\n\t\treturn p, nil\n\t}\n\tif p.tables, err = fetch[tableFacts](ctx, pg, tablesSQL(config, version)); err != nil {\n\t\treturn p, fmt.Errorf(\"look at the tables: %w\", err)\n\t}\n",
		new:  "\tif p.tables, err = fetch[tableFacts](ctx, pg, tablesSQL(config, version)); err != nil {\n\t\treturn p, fmt.Errorf(\"look at the tables: %w\", err)\n\t}\n\tp.publication, p.exists, err = fetchOne[publicationFacts](ctx, pg, publicationSQL(config))\n\tif err != nil {\n\t\treturn p, fmt.Errorf(\"look at publication %s: %w\", displayName(config.Publication), err)\n\t}\n",
		pkg:  "./test/sim", test: "TestTwoFirstStartsAtOnceEndInOneStreamAndOneStandby",
	},
}
