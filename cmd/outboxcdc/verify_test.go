package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/pipeline/verify"
)

func TestAReportShowsWhatThereIsAndWhereToLook(t *testing.T) {
	report := &verify.Report{
		Rows: 1_000_003, Records: 1_000_020, Present: 1_000_000, Missing: 1, Altered: 1, Expired: 1, Disordered: 2,
		Redelivered: 17, Duplicates: 1, Foreign: 1, Rowless: 4, Snapshot: "1A/BEEF0000", Confirmed: "1A/BEEF0000",
		Notes: []string{"retention has removed 5 offsets of partition 0 of topic orders"},
		Examples: []verify.Example{
			{Kind: verify.Missing, Table: "public.outbox", Seq: 42, Row: "6f1b5ad4-0b0a-4c6c-9f0e-1f0a4b1c2d3e", Offset: -1},
			{Kind: verify.Disordered, Topic: "orders", Partition: 3, Offset: 1234, Position: "0000001ABEEF0000/0"},
			{Kind: verify.Foreign, Topic: "orders", Partition: 3, Offset: 1235},
		},
	}
	var text, machine bytes.Buffer
	if err := printReport(&text, report); err != nil {
		t.Fatal(err)
	}
	if err := printReportJSON(&machine, report); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", text.String())
	golden(t, "report.json", machine.String())
}

func TestSinceIsATimeOrHowLongAgo(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"24h":                       now.Add(-24 * time.Hour),
		"2026-01-31T12:00:00Z":      time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		"2026-01-31T12:00:00+02:00": time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC),
	} {
		got, err := parseTime("since", text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-1h", "0s", "2026-01-31"} {
		if _, err := parseTime("since", text, now); fault.Classify(err) != fault.Usage {
			t.Errorf("parseTime(%q) gave %v, want a usage error", text, err)
		}
	}
}
