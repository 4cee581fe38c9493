package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
)

func sampleAt(lsn wal.LSN) wal.Sample {
	return wal.Sample{System: "7", Timeline: 1, Snapshot: fmt.Sprintf("%d:%[1]d:", uint64(lsn)), At: lsn, Time: time.Unix(1, 0)}
}

// savingTo is a saver to memory that stands at 0/1000, with the patience of one to a
// database.
func savingTo(t *testing.T) (*saver, *checkpoint.Memory) {
	t.Helper()
	store := checkpoint.NewMemory("orders")
	start := checkpoint.Position{Slot: "orders", System: "7", Timeline: 1, Database: "shop", LSN: 0x1000, Time: time.Unix(1, 0)}
	if err := store.Save(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	s := newSaver(store, start, time.Second)
	s.tracker, s.seen, s.confirm = checkpoint.NewTracker(start.LSN), new(counters), func(wal.LSN) {}
	s.idle, s.idleStride = time.Minute, quietStrideBytes
	return s, store
}

func TestASnapshotIsDeliveredOnceTheMarkHasPassedIt(t *testing.T) {
	s, store := savingTo(t)
	first := s.tracker.Begin(0x1100, 1, nil)
	second := s.tracker.Begin(0x1200, 1, nil)
	s.offer(sampleAt(0x1101)) // the commit of the second begins behind the first
	s.offer(sampleAt(0x1200))
	s.offer(sampleAt(0x1300))
	saved := func(want string, mark wal.LSN) {
		t.Helper()
		if err := s.save(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := store.Load(t.Context())
		if err != nil || got.Delivered.Text != want || got.LSN != mark {
			t.Errorf("saved %v with the snapshot %q, %v, want %v with %q", got.LSN, got.Delivered.Text, err, mark, want)
		}
		if want != "" && got.Delivered.At != mark {
			t.Errorf("the snapshot saved with %v is said to be of %v", mark, got.Delivered.At)
		}
	}
	second.Ack(nil)
	saved("", 0x1000)
	first.Ack(nil)
	saved("4608:4608:", 0x1200)
	s.tracker.Begin(0x12FF, 1, nil).Ack(nil)
	saved("4608:4608:", 0x12FF)
}

// A save writes log and changes the next snapshot: neither may call for another save.
func TestAnIdleStreamSavesWithItsRowsAndNotAgain(t *testing.T) {
	s, store := savingTo(t)
	now := time.Unix(1000, 0)
	s.at = now
	var at []wal.LSN
	turn := func(end wal.LSN, rows ...wal.Row) {
		t.Helper()
		now = now.Add(10 * time.Second)
		s.offer(sampleAt(end - 0x80))
		s.delivered.sent.add(rows)
		ticket := s.tracker.Begin(end, len(rows), nil)
		for range rows {
			ticket.Ack(nil)
		}
		if !s.due(s.tracker.Mark(), now) {
			return
		}
		if err := s.save(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.at = now
		got, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, got.LSN)
	}
	turn(0x1100) // shows what was saved before this session
	turn(0x1200)
	turn(0x1300, wal.Row{Commit: 0x12F0, XID: 0x12F0})
	for end := wal.LSN(0x1400); end < 0x1400+500*0x80; end += 0x80 { // what our own saves write
		turn(end)
	}
	if want := []wal.LSN{0x1100, 0x1300}; fmt.Sprint(at) != fmt.Sprint(want) {
		t.Errorf("saved at %v, want %v", at, want)
	}
	turn(0x20000, wal.Row{Commit: 0x1FFF0, XID: 0x21780}) // behind more others than are listed
	turn(0x20100)
	turn(0x20900)
	turn(0x20A00)
	if want := []wal.LSN{0x1100, 0x1300, 0x20000, 0x20900}; fmt.Sprint(at) != fmt.Sprint(want) {
		t.Errorf("with a transaction that only a snapshot can show: saved at %v, want %v", at, want)
	}
}

func TestASnapshotOfAnotherServerIsNotTaken(t *testing.T) {
	s, _ := savingTo(t)
	s.tracker.Begin(0x2000, 0, nil)
	for name, change := range map[string]func(*wal.Sample){
		"cluster":  func(x *wal.Sample) { x.System = "8" },
		"timeline": func(x *wal.Sample) { x.Timeline = 2 },
		"none":     func(x *wal.Sample) { x.Snapshot = "" },
	} {
		other := sampleAt(0x1100)
		change(&other)
		s.offer(other)
		s.delivered.pass(0x2000)
		if got := s.delivered.upTo(0x2000, time.Now()); got.Known() {
			t.Errorf("%s: %+v counts as delivered", name, got)
		}
	}
}

func TestSnapshotsThatWaitForTheBrokerBecomeSparse(t *testing.T) {
	var s samples
	for i := range 100_000 {
		s.offer(checkpoint.Snapshot{Text: "1:1:", At: wal.LSN(i + 1)})
	}
	if n := len(s.waiting); n > waitingSamples {
		t.Errorf("%d snapshots wait, want at most %d", n, waitingSamples)
	}
	if first, last := s.waiting[0].At, s.waiting[len(s.waiting)-1].At; first != 1 || last != 100_000 {
		t.Errorf("the ones that wait are of %v to %v, want the oldest and the newest among them", first, last)
	}
	half, ok := s.passed(50_000)
	if !ok || half.At > 50_000 || half.At < 40_000 {
		t.Errorf("at half the way the snapshot of %d counts, %v, want one of shortly before", half.At, ok)
	}
}

func TestTheHistoryGetsAnEntryAnIntervalAndNoneWithoutASave(t *testing.T) {
	for interval, want := range map[time.Duration]int{time.Minute: 10, 20 * time.Second: 30} {
		t.Run(interval.String(), func(t *testing.T) { historyOfTenMinutes(t, interval, want) })
	}
}

func historyOfTenMinutes(t *testing.T, interval time.Duration, want int) {
	t.Helper()
	s, store := savingTo(t)
	s.historic = interval
	now := time.Unix(1000, 0)
	for i := range 600 {
		s.tracker.Begin(wal.LSN(0x1000+8*(i+1)), 1, nil).Ack(nil)
		now = now.Add(time.Second)
		if err := s.save(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.position.Time = now // the store's clock is ours
		if err := s.keep(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := store.History(t.Context())
	if err != nil || len(entries) != want {
		t.Fatalf("ten minutes left %d entries, %v, want %d", len(entries), err, want)
	}
	if first, last := entries[0].LSN, entries[want-1].LSN; last-first != wal.LSN(8*600*(want-1)/want) {
		t.Errorf("the entries lie from %v to %v, want one every %v", first, last, interval)
	}
}
