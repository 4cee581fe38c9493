package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// TestBenchRuns keeps the benchmark alive: every contestant drains a small backlog of
// each shape and streams live traffic, with the right number of records, alone and as
// several with a slot each. It says nothing about speed.
func TestBenchRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := run(ctx, []string{
		"-parts", "drain,latency,handover,idle,split,server,ways", "-rounds", "1", "-events", "2000", "-rates", "1000", "-traffic", "200ms", "-idle", "200ms",
	}, &out)
	if err != nil {
		t.Fatalf("%v; it printed:\n%s", err, out.String())
	}
	shapes := len(mainShapes())
	lean := shapes // forms of the server's
	if strings.Contains(out.String(), "pg_recvlogical is not installed") {
		lean = 0
	}
	for start, want := range map[string]int{
		"| six columns, binary ": lean, "| " + ours + " over ": 3 * shapes,
		"| " + ours: 4 * shapes, "| " + coalesced: shapes, // drains and ways
		"| 1000     | " + ours: 2, "| 1000     | " + bare: 2, // latency, hand-over
		"| 4     | ": 1, // slots
		"idle for ":  1,
	} {
		if got := strings.Count(out.String(), "\n"+start); got != want {
			t.Errorf("%d lines begin with %q, want %d; printed:\n%s", got, start, want, out.String())
		}
	}
}

func TestSegmentsAreReadFromTheKernelsTable(t *testing.T) {
	const snmp = "Ip: Forwarding OutSegs\nIp: 1 2\nTcp: RtoAlgorithm InSegs OutSegs RetransSegs\nTcp: 1 70 81 3\nUdp: OutSegs\nUdp: 5\n"
	for text, want := range map[string]float64{snmp: 81, "": 0, "Tcp: OutSegs\n": 0, "Tcp: InSegs\nTcp: 5\n": 0, "Tcp: OutSegs\nTcp: many\n": 0} {
		if got := sentSegments(text); got != want {
			t.Errorf("%q has %v segments, want %v", text, got, want)
		}
	}
}
