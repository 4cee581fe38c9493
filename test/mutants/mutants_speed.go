package main

// speedMutants are mistakes in what makes the stream fast.
//
//nolint:gochecknoglobals // a table
var speedMutants = []mutant{
	{
		name: "speed: coalescing is never taken back",
		file: "wal/pace.go", old: "\t\tp.windows, p.poor = 0, 0\n", new: "\t\tp.poor = 0\n",
		pkg: "./wal", test: "TestNoRowWaitsLongForCompany|TestWaitsThatBringLittle",
	},
	{
		name: "speed: a single busy moment is taken for a backlog",
		file: "wal/pace.go", old: "\tif p.await == nil || !p.waited && open < coalesceTime {", new: "\tif p.await == nil {",
		pkg: "./wal", test: "TestABurst|TestNoRowWaitsLongForCompany",
	},
	{
		name: "speed: a log that is late is not waited for",
		file: "wal/pace.go", old: "late := after >= lateTime", new: "late := false",
		pkg: "./wal", test: "TestALogThatIsLateIsWaitedFor",
	},
	{
		name: "speed: a fast log that comes in time is waited for",
		file: "wal/pace.go", old: "p.timely = !late && after >= 0", new: "p.timely = false",
		pkg: "./wal", test: "TestAFastLogThatComesInTime",
	},
	{
		name: "speed: a log that is sent before its commits comes in time",
		file: "wal/pace.go", old: "p.timely = !late && after >= 0", new: "p.timely = !late",
		pkg: "./wal", test: "TestAFastLogThatComesInTime",
	},
	{
		name: "speed: a log that comes in time again is waited for",
		file: "wal/pace.go", old: "\tif late != p.late {", new: "\tif late && !p.late {",
		pkg: "./wal", test: "TestALogThatIsLateIsWaitedFor",
	},
	{
		name: "speed: a server with a clock of its own makes every row wait",
		file: "wal/pace.go", old: "\tif late != p.late {", new: "\tif late || p.late {",
		pkg: "./wal", test: "TestALogThatIsLateForEver",
	},
	{
		name: "speed: whether a transaction is late is asked of the reader",
		file: "wal/stream.go", old: "s.pace.sent(pgTime(clock).Sub(s.rows.tx.time))", new: "s.pace.sent(0)",
		pkg: "./wal", test: "TestARowThatCameLate",
	},
	{
		name: "speed: a wait lasts as long as a tick",
		file: "wal/gather.go", old: "until := now.Add(coalesceTime)", new: "until := now.Add(s.tick)",
		pkg: "./wal", test: "TestNoRowWaitsLongForCompany",
	},
	{
		name: "speed: the deadline of a wait stays for the read",
		file: "wal/stream.go", old: "\t\tif err := s.setDeadline(time.Now().Add(s.tick)); err != nil {\n\t\t\treturn err\n\t\t}\n", new: "\t\tif !s.pace.waited {\n\t\t\tif err := s.setDeadline(time.Now().Add(s.tick)); err != nil {\n\t\t\t\treturn err\n\t\t\t}\n\t\t}\n",
		pkg: "./wal", test: "TestNoRowWaitsLongForCompany",
	},
	{
		name: "speed: the kernel's mark stays",
		file: "wal/pace_linux.go", old: "unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)", new: "nil",
		pkg: "./wal", test: "TestTheKernelWaitsAndForgets",
	},
	{
		name: "speed: what was read ahead is left lying while more is waited for",
		file: "wal/pace.go", old: "\t\tif under.holds() {\n\t\t\treturn nil\n\t\t}\n", new: "",
		pkg: "./wal", test: "TestWhatWasReadAheadIsNotWaitedFor",
	},
	{
		name: "speed: from a Unix socket each read is a batch",
		file: "wal/gather.go", old: "s.pace.naps && s.pile(until)", new: "false",
		pkg: "./wal", test: "TestWhereTheKernelDoesNotGather",
	},
	{
		name: "speed: what was gathered from a Unix socket waits for more",
		file: "wal/gather.go", old: "return s.frames.buffered() > before", new: "return before < 0",
		pkg: "./wal", test: "TestWhereTheKernelDoesNotGather",
	},
	{
		name: "speed: what was pulled waits for more",
		file: "wal/gather.go", old: "return brought > 0", new: "return brought < 0",
		pkg: "./wal", test: "TestNoRowWaitsLongForCompany",
	},
	{
		name: "speed: what is left behind a pull waits for more",
		file: "wal/gather.go", old: "\t\ts.fillReady(0)\n", new: "",
		pkg: "./wal", test: "TestAPullRests",
	},
	{
		name: "speed: the mark of a pull stays",
		file: "wal/gather.go", old: "\ts.window.SetLowWater(1) //nolint:errcheck // it was set a moment ago\n", new: "",
		pkg: "./wal", test: "TestAPullRests",
	},
	{
		name: "speed: a pull does not rest",
		file: "wal/gather.go", old: "time.Sleep(r.time)", new: "_ = restTime",
		pkg: "./wal", test: "TestAPullRests",
	},
	{
		name: "speed: a pull rests while much is known to be there",
		file: "wal/gather.go", old: "if !s.full {", new: "if restTime > 0 {",
		pkg: "./wal", test: "TestAPullRests",
	},
	{
		name: "speed: a pull does not end",
		file: "wal/gather.go", old: "s.frames.spare() >= pullRoom && ", new: "",
		pkg: "./wal", test: "TestAPullRests",
	},
	{
		name: "speed: what was read ahead is left lying by a pull",
		file: "wal/gather.go", old: "!s.ahead.holds() && ", new: "",
		pkg: "./wal", test: "TestAPullTakesWhatWasReadAhead",
	},
	{
		name: "speed: a pull waits for the rest of a record",
		file: "wal/gather.go", old: "if s.ahead == nil {", new: "if s.window != nil {",
		pkg: "./wal", test: "TestAPullDoesNotWait",
	},
	{
		name: "speed: a pull lasts as long as much comes",
		file: "wal/gather.go", old: "time.Now().Before(until) && ", new: "!until.IsZero() && ",
		pkg: "./wal", test: "TestAPullRests",
	},
	{
		name: "speed: a rest is as long however much comes",
		file: "wal/gather.go", old: "if r.bytes > restBytes {", new: "if r.bytes < 0 {",
		pkg: "./wal", test: "TestRestsAreTheShorter",
	},
	{
		name: "speed: what a pull brought is not counted",
		file: "wal/gather.go", old: "s.rest.bytes += brought", new: "s.rest.bytes += 0",
		pkg: "./wal", test: "TestWhatPullsBringIsCounted",
	},
	{
		name: "speed: a live log is pulled",
		file: "wal/gather.go", old: "if !s.pace.wants(now) {", new: "if !s.pace.wants(now) && s.window == nil {",
		pkg: "./wal", test: "TestALiveLogIsNotPulled|TestNoRowWaitsLongForCompany",
	},
	{
		name: "speed: the window of a stream on one machine is as wide as any",
		file: "wal/window_linux.go", old: "_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, windowBytes)", new: "_ = windowBytes",
		pkg: "./wal", test: "TestAStreamOnOneMachine",
	},
	{
		name: "speed: under TLS each record is a batch",
		file: "wal/stream.go", old: "\t\ts.drain()\n", new: "",
		pkg: "./wal", test: "TestRecordsThatCameTogetherAreReadTogether",
	},
	{
		name: "tls: a reader that is not to wait never waits again",
		file: "wal/stream.go", old: "\ts.ahead.dry = false\n", new: "",
		pkg: "./wal", test: "TestARecordThatCameInHalf",
	},
	{
		name: "tls: half a record is the end of the stream",
		file: "wal/readahead.go", old: "func (dryError) Temporary() bool { return true }", new: "func (dryError) Temporary() bool { return false }",
		pkg: "./wal", test: "TestARecordThatCameInHalf",
	},
	{
		name: "speed: a crate is used again while one of its messages is not acked",
		file: "sink/kafka_parcel.go", old: "\tif c.held.Add(-1) > 0 {", new: "\tif c.held.Add(-1) > 1 {",
		pkg: "./sink", test: "TestTheMemoryOfARecordIsItsOwnUntilItsAck",
	},
	{
		name: "speed: an event on a quiet log lingers",
		file: "sink/kafka.go", old: "\tk.hurry()\n", new: "",
		pkg: "./sink", test: "TestAnEventOnAQuietLogDoesNotLinger",
	},
	{
		name: "speed: a busy log never lingers",
		file: "sink/kafka.go", old: "k.buffer.used.Load() > quietBytes", new: "k.buffer.used.Load() < 0",
		pkg: "./sink", test: "TestEventsOfABusyLogLinger",
	},
}
