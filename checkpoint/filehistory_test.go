package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func testEntry(minutes int) Entry {
	e := Entry{Position: testPosition(0x100)}
	e.Time = e.Time.Add(time.Duration(minutes) * time.Minute)
	return e
}

// For every operation of a Keep and every state that a power cut at that moment may
// leave: what was kept is there, and the new entry once Keep has returned.
func TestAPowerCutAtAnyMomentLeavesTheHistoryThatWasKept(t *testing.T) {
	for name, next := range map[string]Entry{
		"appended":      testEntry(2),
		"written anew":  testEntry(0),
		"old ones gone": testEntry(9 * 24 * 60),
	} {
		t.Run(name, func(t *testing.T) {
			finished := false
			for n := 0; !finished; n++ {
				d := newFakeDisk()
				first := testEntry(1)
				first.Gap.Reason = "it stays"
				if err := storeOn(d).Keep(t.Context(), first); err != nil {
					t.Fatal(err)
				}
				d.failAfter(n, errPower)
				finished = storeOn(d).Keep(t.Context(), next) == nil
				for i, left := range d.powerCuts() {
					checkHistory(t, storeOn(left), finished, first, next)
					if err := storeOn(left).Keep(t.Context(), next); err != nil {
						t.Errorf("power cut %d after %d operations: Keep = %v", i, n, err)
					}
					checkHistory(t, storeOn(left), true, first, next)
				}
			}
		})
	}
}

func checkHistory(t *testing.T, s *fileStore, finished bool, first, next Entry) {
	t.Helper()
	got, err := s.History(t.Context())
	if err != nil {
		t.Fatalf("History = %v", err)
	}
	var times []time.Time
	for i := range got {
		times = append(times, got[i].Time)
	}
	both := []time.Time{first.Time, next.Time}
	if next.Time.Before(first.Time) {
		both = []time.Time{next.Time, first.Time}
	}
	if !cmp.Equal(times, both) && (finished || !cmp.Equal(times, []time.Time{first.Time})) {
		t.Errorf("History holds %v, want %v and, when it was kept, %v", times, first.Time, next.Time)
	}
}

func TestAHistoryIsAppendedToAndWrittenAnewOnceADay(t *testing.T) {
	d := newFakeDisk()
	s := storeOn(d)
	s.age = time.Hour
	var anew int
	var before *inode
	for i := range 3 * 24 * 6 {
		if err := s.Keep(t.Context(), testEntry(10*i)); err != nil {
			t.Fatal(err)
		}
		if now := d.names[s.historyPath()]; now != before {
			before, anew = now, anew+1
		}
	}
	if anew < 2 || anew > 4 {
		t.Errorf("in three days the file was made %d times, want about once a day", anew)
	}
	if got, err := s.History(t.Context()); err != nil || len(got) != 7 {
		t.Errorf("History gives %d entries, %v, want those of an hour", len(got), err)
	}
}

func TestADamagedHistoryIsToldAndNotGuessedAt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.json")
	h, ok := openTest(t, path).(Historian)
	if !ok {
		t.Fatal("the file store keeps no history")
	}
	for minute := range 3 {
		if err := h.Keep(t.Context(), testEntry(minute)); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(path + ".history")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".history", []byte(strings.Replace(string(good), "0/100", "0/900", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = h.History(t.Context())
	var e *fault.Error
	if !errors.As(err, &e) || e.Class != fault.Operator || e.Advice == "" || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("History = %v, want an operator error that names the line", err)
	}
}

// A file that the first version wrote.
const firstVersion = `{
  "format": 1,
  "position": {
    "slot": "orders",
    "system": "7398712345678901234",
    "timeline": 1,
    "database": "shop",
    "lsn": "0/100",
    "saved_at": "2026-02-03T04:05:06.789012345Z"
  },
  "checksum": "crc32c:d3a1660a"
}
`

func TestAFileOfTheFirstVersionIsReadAndReplaced(t *testing.T) {
	d := newFakeDisk()
	d.names["/state/orders.json"] = &inode{content: []byte(firstVersion), synced: []byte(firstVersion)}
	d.synced["/state/orders.json"] = d.names["/state/orders.json"]
	got, err := storeOn(d).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testPosition(0x100), got); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	next := testPosition(0x200)
	next.Delivered = Snapshot{Text: "3:3:", At: 0x180, Time: next.Time}
	if err := storeOn(d).Save(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if got, err := storeOn(d).Load(t.Context()); err != nil || got != next {
		t.Errorf("Load = %+v, %v, want %+v", got, err, next)
	}
	if !strings.Contains(string(d.names["/state/orders.json"].content), `"format": 2`) {
		t.Error("the file is still of a version that an older outboxcdc would misread")
	}
}

func TestAFirstVersionThatHoldsMoreIsDamaged(t *testing.T) {
	e := testEntry(1)
	e.Delivered = Snapshot{Text: "3:3:", At: 0x80, Time: e.Time}
	content, err := encode(e, oldestFormat)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseForm(content); !errors.Is(err, errDamaged) {
		t.Errorf("parse = %v, want that it is damaged", err)
	}
}

func TestEntriesAreFoundByPositionAndByTime(t *testing.T) {
	entries := make([]Entry, 4)
	for i := range entries {
		entries[i] = testEntry(i)
		entries[i].LSN = wal.LSN(0x1000 * (i + 1))
		entries[i].Delivered = Snapshot{Text: strconv.Itoa(i), At: entries[i].LSN - 0x10}
	}
	entries[1].Delivered = Snapshot{}
	entries[3].Timeline = 2
	for lsn, want := range map[wal.LSN]string{0xFEF: "", 0xFF0: "0", 0x2000: "0", 0x2FEF: "0", 0x2FF0: "2", 0x9000: "2"} {
		if got, ok := SnapshotAt(entries, 1, lsn); got.Text != want || ok != (want != "") {
			t.Errorf("SnapshotAt %v is %q, %v, want %q", lsn, got.Text, ok, want)
		}
	}
	for lsn, want := range map[wal.LSN]wal.LSN{0xFFF: 0, 0x1000: 0x1000, 0x2FFF: 0x2000, 0x9000: 0x3000} {
		if got, ok := EntryAtLSN(entries, 1, lsn); got.LSN != want || ok != (want != 0) {
			t.Errorf("EntryAtLSN %v is %v, %v, want %v", lsn, got.LSN, ok, want)
		}
	}
	for minute, want := range map[int]wal.LSN{-1: 0, 0: 0x1000, 1: 0x2000, 9: 0x4000} {
		if got, ok := EntryAtTime(entries, testEntry(minute).Time); got.LSN != want || ok != (want != 0) {
			t.Errorf("EntryAtTime of minute %d is %v, %v, want %v", minute, got.LSN, ok, want)
		}
	}
}
