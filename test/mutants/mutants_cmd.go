package main

// commandMutants are mistakes in what a person or an orchestrator sees.
//
//nolint:gochecknoglobals // a table
var commandMutants = []mutant{
	{
		name: "command: the second signal is not heard",
		file: "cmd/outboxcdc/signals.go", old: "\tcase <-p.signals:\n\t\tquit()", new: "\tcase <-make(chan int):\n\t\tquit()",
		pkg: "./cmd/outboxcdc", test: "TestTheSecondSignalExitsAtOnce",
	},
	{
		name: "command: the first signal does not drain",
		file: "cmd/outboxcdc/signals.go", old: "\t\tclose(stop)\n", new: "\t\tclose(stop)\n\t\tquit()\n",
		pkg: "./cmd/outboxcdc", test: "TestTheFirstSignalDrains",
	},
	{
		name: "command: an interrupted command has done its work",
		file: "cmd/outboxcdc/signals.go", old: "Class: fault.Transient", new: "Class: fault.Stopped",
		pkg: "./cmd/outboxcdc", test: "TestAnInterruptedCommand",
	},
	{
		name: "command: a standby is not ready",
		file: "cmd/outboxcdc/http.go", old: "s.State == pipeline.Standby", new: "s.State == pipeline.Retrying",
		pkg: "./cmd/outboxcdc", test: "TestReadyMeans",
	},
	{
		name: "command: metrics take more than GET",
		file: "cmd/outboxcdc/http.go", old: "\"GET /metrics\"", new: "\"/metrics\"",
		pkg: "./cmd/outboxcdc", test: "TestNothingButGet",
	},
	{
		name: "command: a position that is not known is zero",
		file: "cmd/outboxcdc/metrics.go", old: "if p.at != 0 {", new: "if true {",
		pkg: "./cmd/outboxcdc", test: "TestWhatIsNotKnown",
	},
	{
		name: "command: a slot without a limit has -1 bytes left",
		file: "cmd/outboxcdc/metrics.go", old: "if s.Slot.SafeBytes >= 0 {", new: "if true {",
		pkg: "./cmd/outboxcdc", test: "TestASlotWithoutALimit",
	},
	{
		name: "command: a warning of check is a failure",
		file: "cmd/outboxcdc/check.go", old: "if f.Severity == fault.Failure {", new: "if f.Severity != fault.OK {",
		pkg: "./cmd/outboxcdc", test: "TestOnlyAFailure",
	},
	{
		name: "command: one failure of check is none",
		file: "cmd/outboxcdc/check.go", old: "if failures == 0 {", new: "if failures < 2 {",
		pkg: "./cmd/outboxcdc", test: "TestOnlyAFailure",
	},
}
