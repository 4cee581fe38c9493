package wal

import "testing"

func TestASnapshotWhoseEndIsBeforeItsBeginningIsMadeLegal(t *testing.T) {
	for text, want := range map[string]string{
		"1430:1429:":             "1430:1430:",
		"1430:1430:":             "1430:1430:",
		"10:20:10,14,19":         "10:20:10,14,19",
		"4294967300:4294967296:": "4294967300:4294967300:",
	} {
		if got, err := legalSnapshot(text); err != nil || got != want {
			t.Errorf("legalSnapshot(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1:2", "a:b:", "1:-2:"} {
		if got, err := legalSnapshot(text); err == nil {
			t.Errorf("legalSnapshot(%q) = %q, want an error", text, got)
		}
	}
}
