package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// TestBenchRuns keeps the benchmark alive: every contestant drains a small backlog of
// each shape, with the right number of records. It says nothing about speed.
func TestBenchRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, []string{"-rounds", "1", "-events", "2000"}, &out); err != nil {
		t.Fatalf("%v; it printed:\n%s", err, out.String())
	}
	for _, name := range []string{ours, coalesced, bare} {
		if got := strings.Count(out.String(), "| "+name+" "); got != len(mainShapes()) {
			t.Errorf("%s has %d lines in tables, want %d; printed:\n%s", name, got, len(mainShapes()), out.String())
		}
	}
}
