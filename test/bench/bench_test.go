package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// TestBenchRuns keeps the benchmark alive: every contestant drains a small backlog of
// each shape and streams live traffic, with the right number of records. It says
// nothing about speed.
func TestBenchRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := run(ctx, []string{
		"-rounds", "1", "-events", "2000", "-rates", "1000", "-traffic", "200ms", "-idle", "200ms",
	}, &out)
	if err != nil {
		t.Fatalf("%v; it printed:\n%s", err, out.String())
	}
	shapes := len(mainShapes())
	for name, want := range map[string]int{ours: shapes + 2, bare: shapes + 2, coalesced: shapes, "idle": 1} {
		if got := strings.Count(out.String(), "\n| "+name+" ") + strings.Count(out.String(), "\n| 1000     | "+name+" ") +
			strings.Count(out.String(), "\n"+name+" for "); got != want {
			t.Errorf("%s has %d lines in tables, want %d; printed:\n%s", name, got, want, out.String())
		}
	}
}
