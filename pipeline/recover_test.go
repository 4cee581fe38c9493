package pipeline

import (
	"testing"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
)

// The numbers of transactions are given out again behind a switch of timelines, so that
// a snapshot from there would call rows delivered that were never sent.
func TestTheDeliveredSnapshotIsOneThatTheServersLogKnows(t *testing.T) {
	entry := func(timeline uint32, at wal.LSN, text string) checkpoint.Entry {
		return checkpoint.Entry{Position: checkpoint.Position{
			System: "1", Timeline: timeline, Delivered: checkpoint.Snapshot{Text: text, At: at},
		}}
	}
	other := entry(2, 0x900, "of another cluster")
	other.System = "2"
	switches := []wal.TimelineSwitch{{Timeline: 1, At: 0x300}}
	for name, c := range map[string]struct {
		entries []checkpoint.Entry
		want    string
	}{
		"nothing known":                         {nil, ""},
		"the newest":                            {[]checkpoint.Entry{entry(2, 0x400, "a"), entry(2, 0x500, "b"), entry(2, 0x450, "c")}, "b"},
		"not beyond the end of the log":         {[]checkpoint.Entry{entry(2, 0x400, "a"), entry(2, 0x1001, "b")}, "a"},
		"not of another cluster":                {[]checkpoint.Entry{entry(2, 0x400, "a"), other}, "a"},
		"not without a snapshot":                {[]checkpoint.Entry{entry(2, 0x400, "a"), entry(2, 0x500, "")}, "a"},
		"from before the switch":                {[]checkpoint.Entry{entry(1, 0x200, "a"), entry(1, 0x300, "b"), entry(1, 0x301, "c")}, "b"},
		"the newer timeline goes first":         {[]checkpoint.Entry{entry(2, 0x310, "a"), entry(1, 0x300, "b")}, "a"},
		"not of a timeline that is no ancestor": {[]checkpoint.Entry{entry(3, 0x100, "a")}, ""},
	} {
		got, ok := newestDelivered(c.entries, wal.Identity{System: "1", Timeline: 2, Flush: 0x1000}, switches)
		if got.Text != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, got.Text, ok, c.want)
		}
	}
}
