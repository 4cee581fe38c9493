package checkpoint_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
)

const start = wal.LSN(0x1000)

func wantMark(t *testing.T, tracker *checkpoint.Tracker, want wal.LSN) {
	t.Helper()
	if got := tracker.Mark().LSN; got != want {
		t.Errorf("mark %v, want %v", got, want)
	}
}

func TestMarkIsTheEndOfTheLongestAckedPrefix(t *testing.T) {
	tracker := checkpoint.NewTracker(start)
	a := tracker.Begin(0x1100, 1, nil)
	b := tracker.Begin(0x1200, 2, nil)
	c := tracker.Begin(0x1300, 1, nil)
	c.Ack(nil)
	b.Ack(nil)
	wantMark(t, tracker, start) // the latest ack proves nothing about the first
	a.Ack(nil)
	wantMark(t, tracker, 0x1100) // half of b is not the whole of b
	b.Ack(nil)
	wantMark(t, tracker, 0x1300)
	if got := tracker.Mark().Rows; got != 4 {
		t.Errorf("%d rows up to the mark, want 4", got)
	}
}

func TestMarkWaitsForTheBatchThatHoldsTheCommit(t *testing.T) {
	tracker := checkpoint.NewTracker(start)
	tracker.Begin(0x1100, 1, nil).Ack(nil)
	tracker.Begin(0, 3, nil)
	for range 3 {
		tracker.Begin(0, 1, nil).Ack(nil)
	}
	wantMark(t, tracker, 0x1100)
}

// A mark whose rows are counted too early looks idle when the commit comes, and is not
// saved for as long as the log stays idle.
func TestRowsCountWithTheCommitOfTheirTransaction(t *testing.T) {
	tracker := checkpoint.NewTracker(start)
	tracker.Begin(0x1100, 2, nil) // a whole transaction, and the first row of another
	ticket := tracker.Begin(0, 1, nil)
	ticket.Ack(nil)
	if got := tracker.Mark(); got.Rows != 0 {
		t.Errorf("%d rows up to the mark while the first batch is open, want none", got.Rows)
	}
	other := checkpoint.NewTracker(start)
	other.Begin(0x1100, 1, nil).Ack(nil)
	other.Begin(0, 1, nil).Ack(nil)
	if got := other.Mark().Rows; got != 1 {
		t.Errorf("%d rows up to the mark, want 1: the second one's commit is not there", got)
	}
	other.Begin(0x1200, 0, nil)
	if got := other.Mark(); got.Rows != 2 || got.LSN != 0x1200 {
		t.Errorf("mark %+v after the commit, want 2 rows up to 0/1200", got)
	}
}

func TestIdleLogWaitsInLine(t *testing.T) {
	tracker := checkpoint.NewTracker(start)
	row := tracker.Begin(0x1100, 1, nil)
	tracker.Begin(0x1200, 0, nil)
	wantMark(t, tracker, start)
	row.Ack(nil)
	wantMark(t, tracker, 0x1200)
	tracker.Begin(0x1300, 0, nil)
	wantMark(t, tracker, 0x1300)
}

func TestAnErrorIsNeverAnAck(t *testing.T) {
	tracker := checkpoint.NewTracker(start)
	broken := errors.New("refused")
	done := 0
	a := tracker.Begin(0x1100, 2, func() { done++ })
	b := tracker.Begin(0x1200, 1, nil)
	a.Ack(nil)
	a.Ack(broken)
	b.Ack(nil)
	b.Ack(errors.New("a later one"))
	wantMark(t, tracker, start)
	if done != 0 {
		t.Error("the failed batch was called done: its memory would be reused while the sink may hold it")
	}
	select {
	case <-tracker.Failed():
	default:
		t.Error("Failed is open after a failed ack")
	}
	if !errors.Is(tracker.Err(), broken) {
		t.Errorf("Err %v, want the first failure", tracker.Err())
	}
}

func TestDoneIsCalledOnceAfterTheLastAck(t *testing.T) {
	tracker := checkpoint.NewTracker(start)
	done := 0
	ticket := tracker.Begin(0x1100, 2, func() { done++ })
	ticket.Ack(nil)
	if done != 0 {
		t.Error("done before the last ack")
	}
	ticket.Ack(nil)
	tracker.Begin(0x1200, 0, func() { done++ })
	if done != 2 {
		t.Errorf("done was called %d times for two batches", done)
	}
}

func TestBugsPanic(t *testing.T) {
	for name, bug := range map[string]func(*checkpoint.Tracker){
		"acked twice":     func(k *checkpoint.Tracker) { b := k.Begin(0x1100, 1, nil); b.Ack(nil); b.Ack(nil) },
		"ends backwards":  func(k *checkpoint.Tracker) { k.Begin(0x1100, 1, nil); k.Begin(0x1080, 1, nil) },
		"ends before it":  func(k *checkpoint.Tracker) { k.Begin(start, 0, nil) },
		"same end again":  func(k *checkpoint.Tracker) { k.Begin(0x1100, 0, nil); k.Begin(0x1100, 0, nil) },
		"empty and acked": func(k *checkpoint.Tracker) { k.Begin(0x1100, 0, nil).Ack(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("passed, want a panic")
				}
			}()
			bug(checkpoint.NewTracker(start))
		})
	}
}

// TestMarkNeverPassesAnOpenMessage compares the tracker with the rule written down
// naively, over random batches acked in random order, a failure now and then.
func TestMarkNeverPassesAnOpenMessage(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		checkOneLedger(t, r)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

type modelBatch struct {
	end    wal.LSN
	open   int
	ticket *checkpoint.Ticket
}

func checkOneLedger(t *testing.T, r *rand.Rand) {
	t.Helper()
	tracker := checkpoint.NewTracker(start)
	var batches []*modelBatch
	end := start
	for range 60 {
		if r.IntN(2) == 0 {
			b := &modelBatch{open: r.IntN(4)}
			if b.open == 0 || r.IntN(3) > 0 {
				end += wal.LSN(1 + r.IntN(100))
				b.end = end
			}
			b.ticket = tracker.Begin(b.end, b.open, nil)
			batches = append(batches, b)
		} else if b := pickOpen(r, batches); b != nil {
			if r.IntN(40) == 0 {
				b.ticket.Ack(errors.New("refused"))
			} else {
				b.ticket.Ack(nil)
				b.open--
			}
		}
		wantMark(t, tracker, modelMark(batches))
	}
}

func pickOpen(r *rand.Rand, batches []*modelBatch) *modelBatch {
	var open []*modelBatch
	for _, b := range batches {
		if b.open > 0 {
			open = append(open, b)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return open[r.IntN(len(open))]
}

// modelMark is the rule: the last end before the first open batch. A message that
// failed stays open.
func modelMark(batches []*modelBatch) wal.LSN {
	mark := start
	for _, b := range batches {
		if b.open > 0 {
			break
		}
		if b.end != 0 {
			mark = b.end
		}
	}
	return mark
}

func BenchmarkTracker(b *testing.B) {
	tracker := checkpoint.NewTracker(0)
	for i := range b.N {
		tracker.Begin(wal.LSN(i+1), 1, nil).Ack(nil)
	}
}
