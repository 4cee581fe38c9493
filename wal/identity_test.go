package wal

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTimelineHistoryIsReadWhole(t *testing.T) {
	for content, want := range map[string][]TimelineSwitch{
		"":                nil,
		"# a comment\n\n": nil,
		"1\t0/3000000\tno recovery target specified\n":                           {{1, 0x3000000}},
		"1\t0/3000000\tat restore point \"a # b\"\n2\t1/A0\tafter\n  # x\n4 2/0": {{1, 0x3000000}, {2, 1<<32 | 0xA0}, {4, 2 << 32}},
	} {
		got, err := parseHistory([]byte(content))
		if err != nil {
			t.Errorf("%q: %v", content, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", content, diff)
		}
	}
}

func TestDamagedTimelineHistoryIsRefused(t *testing.T) {
	for _, content := range []string{
		"1", "x\t0/1", "-1\t0/1", "1\t0/1zz", "1\t01", "4294967296\t0/1",
		"2\t0/1\n1\t0/2", "1\t0/2\n2\t0/1", "1\t0/1\n1\t0/2",
	} {
		if got, err := parseHistory([]byte(content)); err == nil {
			t.Errorf("%q reads as %v, want an error", content, got)
		}
	}
}
