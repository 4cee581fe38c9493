package wal

import (
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// soundServer and soundSlot are what nothing is found about.
func soundServer() serverFacts {
	return serverFacts{
		Version: "17.5", Major: 17, WALLevel: "logical", End: 100, Encoding: "UTF8", Database: "d", Application: "outboxcdc s",
		MaxSlots: 10, Slots: 1, MaxSenders: 10, Senders: 1, KeepMegabytes: -1, IdleTimeout: "",
	}
}

func soundSlot() slotFacts {
	return slotFacts{exists: true, holder: "pid 7", Slot: Slot{
		Name: "s", Plugin: "pgoutput", Type: "logical", Database: "d", Restart: 40, Confirmed: 50, WALStatus: "reserved", SafeBytes: -1,
	}}
}

// wantOne checks that exactly one finding came, of that code and severity, and that
// one that is not fine has a fix.
func wantOne(tb testing.TB, got []fault.Finding, code string, severity fault.Severity) {
	tb.Helper()
	if len(got) != 1 || got[0].Code != code || got[0].Severity != severity {
		tb.Errorf("got %+v, want one %v %s", got, severity, code)
		return
	}
	if (got[0].Fix == "") != (severity == fault.OK) || got[0].Subject == "" || got[0].Problem == "" {
		tb.Errorf("incomplete finding %+v", got[0])
	}
}

func TestServerIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(*serverFacts)
		code     string
		severity fault.Severity
	}{
		"sound":                  {func(*serverFacts) {}, CodeServer, fault.OK},
		"replica":                {func(s *serverFacts) { s.WALLevel = "replica" }, CodeWALLevel, fault.Failure},
		"replica on 19":          {func(s *serverFacts) { s.WALLevel, s.Major = "replica", 19 }, CodeServer, fault.OK},
		"minimal on 19":          {func(s *serverFacts) { s.WALLevel, s.Major = "minimal", 19 }, CodeWALLevel, fault.Failure},
		"standby":                {func(s *serverFacts) { s.Standby = true }, CodeStandby, fault.Failure},
		"slots full":             {func(s *serverFacts) { s.Slots = 10 }, CodeSlotsFull, fault.Failure},
		"senders full":           {func(s *serverFacts) { s.Senders = 10 }, CodeSendersFull, fault.Warning},
		"keeps little":           {func(s *serverFacts) { s.KeepMegabytes = 1023 }, CodeKeepSize, fault.Warning},
		"keeps nothing":          {func(s *serverFacts) { s.KeepMegabytes = 0 }, CodeKeepSize, fault.Warning},
		"keeps enough":           {func(s *serverFacts) { s.KeepMegabytes = 1024 }, CodeServer, fault.OK},
		"idle timeout":           {func(s *serverFacts) { s.IdleTimeout = "2d" }, CodeIdleTimeout, fault.Warning},
		"no idle timeout":        {func(s *serverFacts) { s.IdleTimeout = "0" }, CodeServer, fault.OK},
		"synchronous everybody":  {func(s *serverFacts) { s.Synchronous = "FIRST 1 (*)" }, CodeSynchronous, fault.Warning},
		"synchronous others":     {func(s *serverFacts) { s.Synchronous = "ANY 1 (a, b)" }, CodeServer, fault.OK},
		"unknown text encodings": {func(s *serverFacts) { s.Encoding = "SQL_ASCII" }, CodeEncoding, fault.Warning},
	} {
		t.Run(name, func(t *testing.T) {
			s := soundServer()
			c.change(&s)
			wantOne(t, judgeServer(s, false), c.code, c.severity)
		})
	}
	full := soundServer()
	full.Slots = full.MaxSlots
	wantOne(t, judgeServer(full, true), CodeServer, fault.OK) // ours is one of them
}

func TestSynchronousStandbyNamesMeanUsOrNot(t *testing.T) {
	for names, want := range map[string]bool{
		"": false, "*": true, "a, *": true, `"*"`: true, "a,b": false, `"outboxcdc s"`: true, `"OutboxCDC S"`: true,
		`FIRST 2 (a, "outboxcdc s")`: true, "ANY 1 (b)": false, "2 (*)": true, `"a (b)"`: false, `x, "outboxcdc sx"`: false,
	} {
		if got := capturedBy(names, "outboxcdc s"); got != want {
			t.Errorf("%s means us: %v, want %v", names, got, want)
		}
	}
}

func TestSlotIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(*slotFacts, *serverFacts)
		code     string
		severity fault.Severity
	}{
		"sound":             {func(*slotFacts, *serverFacts) {}, CodeSlot, fault.OK},
		"missing":           {func(s *slotFacts, _ *serverFacts) { *s = slotFacts{} }, CodeSlotMissing, fault.Failure},
		"physical":          {func(s *slotFacts, _ *serverFacts) { s.Type, s.Plugin, s.Database = "physical", "", "" }, CodeSlotForeign, fault.Failure},
		"other plugin":      {func(s *slotFacts, _ *serverFacts) { s.Plugin = "wal2json" }, CodeSlotForeign, fault.Failure},
		"other database":    {func(s *slotFacts, _ *serverFacts) { s.Database = "D" }, CodeSlotForeign, fault.Failure},
		"temporary":         {func(s *slotFacts, _ *serverFacts) { s.Temporary = true }, CodeSlotForeign, fault.Failure},
		"lost":              {func(s *slotFacts, _ *serverFacts) { s.WALStatus, s.Restart = "lost", 0 }, CodeSlotLost, fault.Failure},
		"invalidated":       {func(s *slotFacts, _ *serverFacts) { s.Reason = "idle_timeout" }, CodeSlotLost, fault.Failure},
		"standby's copy":    {func(s *slotFacts, v *serverFacts) { s.Synced, v.Standby = true, true }, CodeSlotSynced, fault.Failure},
		"promoted copy":     {func(s *slotFacts, _ *serverFacts) { s.Synced = true }, CodeSlot, fault.OK},
		"two phase":         {func(s *slotFacts, _ *serverFacts) { s.TwoPhase = true }, CodeSlotTwoPhase, fault.Failure},
		"ahead of the log":  {func(s *slotFacts, _ *serverFacts) { s.Confirmed = 101 }, CodeSlotAhead, fault.Failure},
		"at the end of log": {func(s *slotFacts, _ *serverFacts) { s.Confirmed = 100 }, CodeSlot, fault.OK},
		"ahead of standby":  {func(s *slotFacts, v *serverFacts) { s.Confirmed, v.Standby = 101, true }, CodeSlot, fault.OK},
		"active":            {func(s *slotFacts, _ *serverFacts) { s.Active = true }, CodeSlotActive, fault.Warning},
		"being made":        {func(s *slotFacts, _ *serverFacts) { s.Active, s.Confirmed = true, 0 }, CodeSlotActive, fault.Warning},
		"unreserved":        {func(s *slotFacts, _ *serverFacts) { s.WALStatus = "unreserved" }, CodeSlotRetained, fault.Warning},
		"half way to lost":  {func(s *slotFacts, _ *serverFacts) { s.RetainedBytes, s.SafeBytes = 11, 10 }, CodeSlotRetained, fault.Warning},
		"far from lost":     {func(s *slotFacts, _ *serverFacts) { s.RetainedBytes, s.SafeBytes = 10, 10 }, CodeSlot, fault.OK},
	} {
		t.Run(name, func(t *testing.T) {
			slot, server := soundSlot(), soundServer()
			c.change(&slot, &server)
			wantOne(t, judgeSlot(Config{Slot: "s"}, server, slot), c.code, c.severity)
		})
	}
}

func TestOldTransactionsAreNamedWithTheirWayOut(t *testing.T) {
	got := judgeTransactions([]transactionFacts{
		{PID: 7, Application: "report", Database: "d", State: "idle in transaction", Seconds: 300},
		{Prepared: "it's", Database: "d", Seconds: 400},
		{PID: 8, Seconds: 299},
	})
	if len(got) != 2 || !strings.Contains(got[0].Problem, "5m0s") || !strings.Contains(got[0].Fix, "pg_terminate_backend(7)") ||
		!strings.Contains(got[1].Fix, "ROLLBACK PREPARED 'it''s'") {
		t.Errorf("got %+v", got)
	}
}

func TestSizesAreReadable(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1536: "1.5 KiB", 64 << 20: "64 MiB", 5 << 40: "5 TiB", 5 << 50: "5120 TiB",
	} {
		if got := humanBytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestMemberTellsWhatWasMadeAnew(t *testing.T) {
	before := member{publication: 1, table: 2, membership: 3, altered: 4}
	for now, want := range map[member]string{
		before:       "",
		{1, 9, 9, 9}: "it was dropped and made again",
		{9, 2, 9, 9}: "its publication was dropped and made again",
		{1, 2, 9, 9}: "it left the publication and came back",
		{1, 2, 3, 9}: alteredPublication,
	} {
		if got := now.changed(before); got != want {
			t.Errorf("%+v after %+v: %q, want %q", now, before, got, want)
		}
	}
}
