package wal

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQuotingKeepsEveryNameWhole(t *testing.T) {
	for name, want := range map[string][3]string{
		"orders": {`"orders"`, `'orders'`, `orders`},
		`o"r'd`:  {`"o""r'd"`, `'o"r''d'`, `"o""r'd"`},
		"Orders": {`"Orders"`, `'Orders'`, `"Orders"`},
		"1st":    {`"1st"`, `'1st'`, `"1st"`},
		"o1_$":   {`"o1_$"`, `'o1_$'`, `o1_$`},
		`a\b`:    {`"a\b"`, `'a\b'`, `"a\b"`},
		"":       {`""`, `''`, `""`},
	} {
		if got := [3]string{quoteName(name), quoteText(name), displayName(name)}; got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

func TestStatementsQuoteWhatTheyName(t *testing.T) {
	c := Config{Slot: "s", Publication: `p"'`, Tables: []Table{{Schema: "public", Name: "outbox"}, {Schema: "A", Name: `b"`}}}
	wantPublication := `CREATE PUBLICATION "p""'" FOR TABLE "public"."outbox", "A"."b""" WITH (publish = 'insert', publish_via_partition_root = true);`
	if got := PublicationSQL(c); got != wantPublication {
		t.Errorf("got  %s\nwant %s", got, wantPublication)
	}
	if got, want := SlotSQL(c), "SELECT pg_create_logical_replication_slot('s', 'pgoutput');"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want := []string{"proto_version '1'", `publication_names '"p""''"'`}
	if diff := cmp.Diff(want, (&Conn{config: c}).startOptions()); diff != "" {
		t.Errorf("options of START_REPLICATION (-want +got):\n%s", diff)
	}
}

func TestPositionsInJSONAreReadStrictly(t *testing.T) {
	for text, want := range map[string]position{`"0/16B3748"`: 0x16B3748, `"1/0"`: 1 << 32, `null`: 0} {
		var got position
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s reads as %v, %v, want %v", text, LSN(got), err, LSN(want))
		}
	}
	for _, text := range []string{`"1/2 3"`, `"100000000/0"`, `""`, `7`} {
		var got position
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s reads as %v, want an error", text, LSN(got))
		}
	}
}

func TestSlotRowOfEveryMajorIsRead(t *testing.T) {
	const common = `"slot_name":"s","plugin":"pgoutput","slot_type":"logical","database":"d","temporary":false,
		"restart_lsn":"0/1","confirmed_flush_lsn":"0/2","wal_status":"reserved","retained_bytes":3,"horizon":4294967299`
	base := Slot{
		Name: "s", Plugin: "pgoutput", Type: "logical", Database: "d", Restart: 1, Confirmed: 2,
		WALStatus: "reserved", RetainedBytes: 3, SafeBytes: -1, Horizon: 1<<32 + 3,
	}
	with := func(change func(*Slot)) Slot {
		s := base
		change(&s)
		return s
	}
	for text, want := range map[string]Slot{
		`{` + common + `,"active":false,"active_pid":null,"safe_wal_size":null}`: base,
		`{` + common + `,"active":true,"active_pid":7,"safe_wal_size":0}`: with(func(s *Slot) {
			s.Active, s.ActivePID, s.SafeBytes = true, 7, 0
		}),
		`{` + common + `,"conflicting":true}`: with(func(s *Slot) { s.Reason = "conflict" }),
		`{` + common + `,"conflicting":true,"invalidation_reason":"rows_removed","failover":true,"synced":true,"two_phase":true}`: with(func(s *Slot) {
			s.Reason, s.Failover, s.Synced, s.TwoPhase = "rows_removed", true, true, true
		}),
		`{"slot_name":"s","plugin":null,"slot_type":"physical","database":null,"restart_lsn":null,"confirmed_flush_lsn":null,"wal_status":null,"retained_bytes":null}`: {
			Name: "s", Type: "physical", SafeBytes: -1,
		},
	} {
		var row slotRow
		if err := json.Unmarshal([]byte(text), &row); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, row.slot()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestHolderIsNamedAsFarAsItIsKnown(t *testing.T) {
	for want, h := range map[string]Holder{
		"pid 7": {PID: 7},
		"pid 7 (outboxcdc orders, role cdc, from 10.0.0.7)": {PID: 7, Application: "outboxcdc orders", Role: "cdc", Address: "10.0.0.7"},
		`pid 7 (role "C D")`: {PID: 7, Role: "C D"},
	} {
		if got := h.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
