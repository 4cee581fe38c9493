// Package checkpointtest holds what every checkpoint store must do, so that a new
// one is a file and one line: checkpointtest.Run.
package checkpointtest

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Slot is the slot that the stores under test are opened for.
const Slot = "conformance"

// Factory makes an empty place, such as a database or a path, and gives a function
// that opens the store there, again and again, as a new process would. Run closes
// what it opens.
type Factory func(t *testing.T) (open func() checkpoint.Store)

// Run tests a store against the contract of checkpoint.Store.
func Run(t *testing.T, factory Factory) {
	for name, test := range map[string]func(*testing.T, place){
		"NothingSavedIsErrNone":           nothingSaved,
		"EveryFieldComesBack":             everyField,
		"OddTextComesBack":                oddText,
		"SavedOutlivesACrash":             crash,
		"SavedOutlivesClose":              reopen,
		"LaterReplacesEarlier":            later,
		"NeverBackwards":                  backwards,
		"EqualMayBeSavedAgain":            equal,
		"NewTimelineMayBeginLower":        newTimeline,
		"PositionOfAnotherLogIsRefused":   foreign,
		"IncompletePositionIsRefused":     incomplete,
		"CancelledSaveIsWholeOrNothing":   cancelled,
		"AnotherInstanceIsNotOverwritten": instances,
		"TheHistoryIsInOrderOfTime":       historyInOrder,
		"TheHistoryIsBoundedButForGaps":   historyBounded,
		"ReplaceTakesWhateverStandsThere": replaces,
		"IncompleteEntryIsRefused":        incompleteEntry,
		"DeleteForgetsAll":                deletes,
	} {
		t.Run(name, func(t *testing.T) { test(t, place{t, factory(t)}) })
	}
}

// place is where one test's position is kept.
type place struct {
	t    *testing.T
	open func() checkpoint.Store
}

// store opens the store; it is closed with the test.
func (p place) store() checkpoint.Store {
	p.t.Helper()
	s := p.open()
	p.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			p.t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// position is a complete one; microseconds are what every store keeps.
func position() checkpoint.Position {
	return checkpoint.Position{
		Slot:      Slot,
		System:    "7398712345678901234",
		Timeline:  3,
		Database:  "shop",
		LSN:       0x1_6B374D48,
		Time:      time.Date(2026, 2, 3, 4, 5, 6, 789_012_000, time.UTC),
		Delivered: snapshot(0x1_6B374000),
	}
}

func snapshot(at wal.LSN) checkpoint.Snapshot {
	return checkpoint.Snapshot{
		Text: "4294968000:4294968010:4294968001,4294968004", At: at,
		Time: time.Date(2026, 2, 3, 4, 5, 0, 1_000, time.UTC),
	}
}

func (p place) save(s checkpoint.Store, next checkpoint.Position) {
	p.t.Helper()
	if err := s.Save(p.t.Context(), next); err != nil {
		p.t.Fatalf("Save(%+v) = %v", next, err)
	}
}

// holds fails the test unless the place holds want, as a new store sees it.
func (p place) holds(want checkpoint.Position) {
	p.t.Helper()
	got, err := p.store().Load(p.t.Context())
	if err != nil {
		p.t.Fatalf("Load = %v, want %+v", err, want)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Fatalf("Load (-want +got):\n%s", diff)
	}
}

// refuses fails the test unless Save refuses next with want and keeps saved.
func (p place) refuses(s checkpoint.Store, next checkpoint.Position, want error, saved checkpoint.Position) {
	p.t.Helper()
	if err := s.Save(p.t.Context(), next); !errors.Is(err, want) {
		p.t.Errorf("Save(%+v) = %v, want %v", next, err, want)
	}
	p.holds(saved)
}

func nothingSaved(t *testing.T, p place) {
	s := p.store()
	for range 2 {
		if got, err := s.Load(t.Context()); !errors.Is(err, checkpoint.ErrNone) {
			t.Fatalf("Load of an empty store = %+v, %v, want ErrNone", got, err)
		}
	}
}

func everyField(_ *testing.T, p place) {
	s := p.store()
	last := position()
	p.save(s, last)
	p.holds(last)
	for _, change := range []func(*checkpoint.Position){
		func(q *checkpoint.Position) { q.Index = 7 },
		func(q *checkpoint.Position) { q.LSN, q.Index = q.LSN+1, 0 },
		func(q *checkpoint.Position) { q.Delivered = snapshot(q.LSN) },
		func(q *checkpoint.Position) { q.Delivered = checkpoint.Snapshot{} },
		func(q *checkpoint.Position) { q.Delivered = snapshot(1) },
		func(q *checkpoint.Position) { q.Delivered.Text = "3:3:" },
		func(q *checkpoint.Position) { q.Delivered.Text = manyOpen() },
		func(q *checkpoint.Position) { q.LSN = 1<<63 - 1 },
		func(q *checkpoint.Position) { q.LSN = 1 << 63 },
		func(q *checkpoint.Position) { q.LSN = math.MaxUint64 },
		func(q *checkpoint.Position) { q.Timeline = math.MaxUint32 },
		func(q *checkpoint.Position) { q.Time = time.Date(2031, 12, 31, 23, 59, 59, 0, time.UTC) },
	} {
		change(&last)
		p.save(s, last)
		p.holds(last)
	}
}

func oddText(_ *testing.T, p place) {
	odd := position()
	odd.System, odd.Database = "18446744073709551615", "Ünï \"co'de\\ <&> $1 \n"
	p.save(p.store(), odd)
	p.holds(odd)
}

// crash abandons the store, as a killed process does.
func crash(_ *testing.T, p place) {
	p.save(p.store(), position())
	p.holds(position())
}

func reopen(t *testing.T, p place) {
	s := p.open()
	p.save(s, position())
	if err := s.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
	p.holds(position())
}

func later(_ *testing.T, p place) {
	s := p.store()
	next := position()
	for range 20 {
		next.LSN += 0x28
		next.Time = next.Time.Add(time.Second)
		p.save(s, next)
	}
	p.holds(next)
}

func backwards(_ *testing.T, p place) {
	s := p.store()
	saved := position()
	p.save(s, saved)

	lower := saved
	lower.LSN--
	p.refuses(s, lower, checkpoint.ErrBackwards, saved)

	lower.LSN, lower.Delivered = 1, checkpoint.Snapshot{}
	p.refuses(p.store(), lower, checkpoint.ErrBackwards, saved)

	former := saved
	former.Timeline--
	former.LSN += 0x1000
	p.refuses(s, former, checkpoint.ErrBackwards, saved)

	inside := saved
	inside.Index = 3
	p.save(s, inside)
	p.refuses(s, saved, checkpoint.ErrBackwards, inside)

	saved.LSN = 1 << 63
	p.save(s, saved)
	lower.LSN = 1<<63 - 1
	p.refuses(s, lower, checkpoint.ErrBackwards, saved)
}

func equal(_ *testing.T, p place) {
	s := p.store()
	again := position()
	p.save(s, again)
	again.Time = again.Time.Add(time.Minute)
	p.save(s, again)
	p.holds(again)
}

func newTimeline(_ *testing.T, p place) {
	s := p.store()
	next := position()
	p.save(s, next)
	next.Timeline++
	next.LSN -= 0x100
	p.save(s, next)
	p.holds(next)
}

func foreign(t *testing.T, p place) {
	s := p.store()
	saved := position()
	p.save(s, saved)
	for _, change := range []func(*checkpoint.Position){
		func(q *checkpoint.Position) { q.System = "7398712345678901235" },
		func(q *checkpoint.Position) { q.Database = "Shop" },
		func(q *checkpoint.Position) { q.System, q.Timeline = "1", 9 },
	} {
		other := saved
		other.LSN += 0x1000
		change(&other)
		p.refuses(s, other, checkpoint.ErrForeign, saved)
		if got := fault.Classify(s.Save(t.Context(), other)); got != fault.Operator {
			t.Errorf("Save(%+v) has class %v, want operator", other, got)
		}
	}
}

func incomplete(t *testing.T, p place) {
	s := p.store()
	for name, change := range map[string]func(*checkpoint.Position){
		"another slot": func(q *checkpoint.Position) { q.Slot = "other" },
		"no slot":      func(q *checkpoint.Position) { q.Slot = "" },
		"no system":    func(q *checkpoint.Position) { q.System = "" },
		"no timeline":  func(q *checkpoint.Position) { q.Timeline = 0 },
		"no database":  func(q *checkpoint.Position) { q.Database = "" },
		"no LSN":       func(q *checkpoint.Position) { q.LSN = 0 },

		"snapshot of a later place": func(q *checkpoint.Position) { q.Delivered.At = q.LSN + 1 },
		"snapshot of no place":      func(q *checkpoint.Position) { q.Delivered.At = 0 },
		"place of no snapshot":      func(q *checkpoint.Position) { q.Delivered.Text = "" },
		"endless snapshot":          func(q *checkpoint.Position) { q.Delivered.Text = strings.Repeat("1", checkpoint.MaxSnapshotBytes+1) },
	} {
		bad := position()
		change(&bad)
		if err := s.Save(t.Context(), bad); fault.Classify(err) != fault.Bug {
			t.Errorf("%s: Save = %v, want an error of class bug", name, err)
		}
	}
	if got, err := p.store().Load(t.Context()); !errors.Is(err, checkpoint.ErrNone) {
		t.Fatalf("Load = %+v, %v, want ErrNone", got, err)
	}
}

func cancelled(t *testing.T, p place) {
	s := p.store()
	saved := position()
	p.save(s, saved)
	next := saved
	next.LSN += 0x1000
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(gone, next); !errors.Is(err, context.Canceled) {
		t.Fatalf("Save with a cancelled context = %v, want context.Canceled", err)
	}
	got, err := p.store().Load(t.Context())
	if err != nil {
		t.Fatalf("Load after a cancelled Save = %v", err)
	}
	if got.LSN != saved.LSN && got.LSN != next.LSN {
		t.Fatalf("after a cancelled Save of %v over %v the store holds %v", next.LSN, saved.LSN, got.LSN)
	}
	next.LSN += 0x1000
	p.save(s, next)
	p.holds(next)
}

// instances: what another process saved counts, not what this one remembers.
func instances(_ *testing.T, p place) {
	ours, theirs := p.store(), p.store()
	first := position()
	p.save(ours, first)
	ahead := first
	ahead.LSN += 0x2000
	p.save(theirs, ahead)
	between := first
	between.LSN += 0x1000
	p.refuses(ours, between, checkpoint.ErrBackwards, ahead)
}
