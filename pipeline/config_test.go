package pipeline

import (
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
)

// A command that mends knows nothing of how long the stream keeps its history, and must
// not cut it.
func TestOnlyAStreamForgetsHistory(t *testing.T) {
	const month = 30 * 24 * time.Hour
	r, err := New(Config{
		Wal:  wal.Config{Slot: "orders", Publication: "outboxcdc", Tables: []wal.Table{{Schema: "public", Name: "outbox"}}},
		Sink: "stdout://", HistoryKeep: month,
	})
	if err != nil {
		t.Fatal(err)
	}
	config := r.Config()
	old := checkpoint.Entry{Position: checkpoint.Position{Slot: "orders", System: "7", Timeline: 1, Database: "shop", LSN: 0x1000, Time: time.Unix(1e9, 0)}}
	for name, c := range map[string]struct {
		options checkpoint.Options
		later   time.Duration
		want    int
	}{
		"a stream that keeps it":      {config.streamsOptions(), month - time.Hour, 2},
		"a stream that is through":    {config.streamsOptions(), month + time.Hour, 1},
		"a command, years afterwards": {config.storeOptions(), 50 * 365 * 24 * time.Hour, 2},
	} {
		store, err := checkpoint.Open(t.Context(), "memory://", c.options)
		if err != nil {
			t.Fatal(err)
		}
		history, ok := store.(checkpoint.Historian)
		if !ok {
			t.Fatal("the store keeps no history")
		}
		next := old
		next.Time = old.Time.Add(c.later)
		if err := history.Keep(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		if err := history.Replace(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		if entries, err := history.History(t.Context()); err != nil || len(entries) != c.want {
			t.Errorf("%s: %d entries, %v, want %d", name, len(entries), err, c.want)
		}
	}
}
