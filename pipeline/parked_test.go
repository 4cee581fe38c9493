package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

const testLetters = "dead"

// newParkRun is a run that parks, in a lot of its own.
func newParkRun(t *testing.T) *asideRun {
	t.Helper()
	x := newAsideRun(t, "all")
	x.lot = &memoryLot{}
	x.runner.config.OnError, x.runner.config.DeadLetterTopic, x.runner.config.ParkLimit = OnErrorPark, testLetters, DefaultParkLimit()
	return x
}

// wantStored wants what the broker holds of topics without the dead letters, and of
// those.
func wantStored(t *testing.T, x *asideRun, events, letters string) {
	t.Helper()
	var got [2][]string
	for _, s := range x.broker.stored {
		topic, key, _ := strings.Cut(s, " ")
		if topic == testLetters {
			got[1] = append(got[1], key)
		} else {
			got[0] = append(got[0], key)
		}
	}
	if diff := cmp.Diff([]string{events, letters}, []string{strings.Join(got[0], " "), strings.Join(got[1], " ")}); diff != "" {
		t.Errorf("events and dead letters (-want +got):\n%s\n%s", diff, x.log.String())
	}
}

// badRow makes a row of a batch one that cannot be mapped: its event type is null.
func badRow(b wal.Batch, at int) wal.Batch {
	b.Rows[at].Columns[3] = nil
	return b
}

func TestWhatFollowsAParkedRowOfItsAggregateWaitsAndAllElseFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.untilDone(t, []wal.Batch{badRow(batchOf(0x1100, "a", "b", "a", "c"), 2), batchOf(0x1200, "b", "a"), batchOf(0x1300, "a", "c")})
		wantStored(t, x, "a b c b c", "a a a")
		if x.saved != 0x1300 {
			t.Errorf("saved %v, want 0/1300: what is parked is dealt with", x.saved)
		}
		var places []string
		for _, r := range x.lot.rows {
			places = append(places, fmt.Sprintf("%v %s", r.Place, r.Cause))
		}
		want := []string{"00000000000010F8/2 mapping", "00000000000011F8/1 behind", "00000000000012F8/0 behind"}
		if diff := cmp.Diff(want, places); diff != "" {
			t.Errorf("parked (-want +got):\n%s", diff)
		}
		if s := x.runner.Stats(); s.ParkedRows != 3 || s.ParkedAggregates != 1 {
			t.Errorf("%d rows of %d aggregates are shown as parked, want 3 of 1", s.ParkedRows, s.ParkedAggregates)
		}
		if n := strings.Count(x.log.String(), `msg="row parked"`); n != 3 {
			t.Errorf("%d lines tell of parked rows, want 3:\n%s", n, x.log.String())
		}
	})
}

func TestAParkedAggregateIsParkedInTheNextSessionToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.untilDone(t, []wal.Batch{badRow(batchOf(0x1100, "a"), 0)})
		x.untilDone(t, []wal.Batch{batchOf(0x1200, "a", "b")})
		wantStored(t, x, "b", "a a")
	})
}

// Rows that came before the first parked one and were not saved are read again, while
// their aggregate is parked already.
func TestWhatCameBeforeTheParkedRowIsSentWhenItIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		batches := []wal.Batch{batchOf(0x1100, "a"), badRow(batchOf(0x1200, "a", "a", "b"), 1)}
		x.untilDone(t, batches)
		x.broker.stored, x.saved = nil, sessionStart
		x.untilDone(t, batches)
		wantStored(t, x, "a a b", "a")
		if n := len(x.lot.rows); n != 1 {
			t.Errorf("%d rows are parked, want that the one is not parked twice", n)
		}
	})
}

func TestNothingIsSentOrSavedBeforeParkedRowsAreDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		broken := errors.New("the database is away")
		x.lot.fail = func() error {
			if strings.Contains(x.log.String(), "row parked") {
				t.Error("a row is said to be parked that is not")
			}
			return broken
		}
		x.lot.failPark = true
		err := x.session(t, []wal.Batch{batchOf(0x1100, "b"), badRow(batchOf(0x1200, "c", "a"), 1)})
		if !errors.Is(err, broken) {
			t.Errorf("the session ended with %v, want the database's error", err)
		}
		wantStored(t, x, "b", "")
		if x.saved != 0x1100 {
			t.Errorf("saved %v, want 0/1100, before the row that is nowhere", x.saved)
		}
	})
}

func TestAStreamHaltsBeforeTheRowForWhichThereIsNoRoom(t *testing.T) {
	for name, limit := range map[string]ParkLimit{
		"rows":       {Rows: 2, Aggregates: 9, Bytes: 1000},
		"aggregates": {Rows: 9, Aggregates: 1, Bytes: 1000},
		"bytes":      {Rows: 9, Aggregates: 9, Bytes: 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newParkRun(t)
				x.runner.config.ParkLimit = limit
				last := badRow(batchOf(0x1300, "d", "c", "e"), 1)
				err := x.session(t, []wal.Batch{badRow(batchOf(0x1100, "a", "b"), 0), batchOf(0x1200, "a"), last})
				if fault.Classify(err) != fault.Data || !strings.Contains(err.Error(), "dlq list") {
					t.Errorf("the session ended with %v, want a data error with the way out", err)
				}
				wantStored(t, x, "b", "a a")
				if n := len(x.lot.rows); n != 2 || x.saved > 0x12F8 {
					t.Errorf("%d rows are parked and %v is saved, want 2 and nothing of the last transaction", n, x.saved)
				}
			})
		})
	}
}

func TestARetrySendsAParkedAggregateInOrderAndLetsItFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.broker.unfit = map[string]bool{"a": true}
		x.untilDone(t, []wal.Batch{batchOf(0x1100, "a", "b", "a"), batchOf(0x1200, "a")})
		wantStored(t, x, "b", "a a a")
		x.broker.stored, x.broker.unfit = nil, nil
		x.lot.ask(wal.AskRetry, anyRow)
		x.inSession(t, func(give chan<- wal.Batch) {
			give <- batchOf(0x1300, "c", "a") // before it is asked
			time.Sleep(2 * time.Second)
			give <- batchOf(0x1400, "a")
			time.Sleep(2 * time.Second)
		})
		wantStored(t, x, "c a a a a a", "a")
		if s := x.runner.Stats(); s.ParkedRows != 0 || s.ParkedAggregates != 0 {
			t.Errorf("%d rows of %d aggregates are shown as parked, want none", s.ParkedRows, s.ParkedAggregates)
		}
		wantPositions(t, x, "a")
	})
}

func TestARetryStopsAtTheRowThatCannotBeSentStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.untilDone(t, []wal.Batch{badRow(badRow(batchOf(0x1100, "a", "a", "a", "b"), 0), 2)})
		x.lot.rows[0].Columns[3] = []byte("mended") // as a wider mapping would
		x.broker.stored = nil
		x.lot.ask(wal.AskRetry, anyRow)
		x.inSession(t, func(give chan<- wal.Batch) {
			time.Sleep(3 * time.Second)
			give <- batchOf(0x1200, "a")
			time.Sleep(3 * time.Second)
		})
		wantStored(t, x, "a a", "a")
		var left []string
		for _, r := range x.lot.rows {
			if r.state == "" {
				left = append(left, r.String()+r.Asked)
			}
		}
		if want := []string{"00000000000010F8/2", "00000000000011F8/0"}; !slices.Equal(left, want) {
			t.Errorf("parked are %q, want %q, of which nothing is asked any more", left, want)
		}
	})
}

func TestADroppedRowIsPassedAndWhatIsBehindItGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.untilDone(t, []wal.Batch{badRow(batchOf(0x1100, "a", "a", "b"), 0)})
		x.broker.stored = nil
		x.lot.ask(wal.AskRetry, anyRow)
		x.lot.ask(wal.AskDrop, func(r *wal.ParkedRow) bool { return r.Index == 0 })
		x.inSession(t, func(give chan<- wal.Batch) {
			time.Sleep(3 * time.Second)
			give <- batchOf(0x1200, "a")
			time.Sleep(time.Second)
		})
		wantStored(t, x, "a a", "")
		if !strings.Contains(x.log.String(), `msg="parked row dropped" position=00000000000010F8/0`) {
			t.Errorf("nothing tells of the dropped row:\n%s", x.log.String())
		}
	})
}

// A session that dies behind a retry has not saved what it had parked before.
func TestRowsThatWereSentOnRequestAreNotParkedOrSentAnewWhenTheyAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.broker.unfit = map[string]bool{"a": true}
		batches := []wal.Batch{batchOf(0x1100, "a", "a"), batchOf(0x1200, "b")}
		x.untilDone(t, batches)
		x.broker.unfit = nil
		x.lot.ask(wal.AskRetry, anyRow)
		x.inSession(t, func(chan<- wal.Batch) { time.Sleep(2 * time.Second) })
		x.broker.stored, x.saved = nil, sessionStart
		x.untilDone(t, append(batches, batchOf(0x1300, "a")))
		wantStored(t, x, "b a", "")
	})
}

func TestARefusalOfARetryIsFoundAndEndsNoOtherRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.broker.unfit = map[string]bool{"a": true, "b": true}
		x.untilDone(t, []wal.Batch{batchOf(0x1100, "a", "a", "b")})
		x.broker.stored, x.broker.unfit, x.broker.refuses = nil, nil, map[string]bool{"a": true}
		x.lot.ask(wal.AskRetry, anyRow)
		for range 4 {
			x.inSession(t, func(chan<- wal.Batch) { time.Sleep(3 * time.Second) })
		}
		wantStored(t, x, "b", "")
		for _, r := range x.lot.rows {
			if parked := r.state == ""; parked != (string(r.ID) == "a") || r.Asked != "" {
				t.Errorf("the row at %v of %s is %q and asked for %q, want a parked, b sent, nothing asked", r.Place, r.ID, r.state, r.Asked)
			}
		}
		if r := x.lot.rows[0]; r.Cause != causeRefused || !strings.Contains(r.Reason, "policy") {
			t.Errorf("the first row is parked for %s: %s, want what the broker said last", r.Cause, r.Reason)
		}
	})
}

func TestADeadLetterThatIsRefusedIsTheOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.broker.refusesTopic = testLetters
		err := x.session(t, []wal.Batch{badRow(batchOf(0x1100, "a"), 0)})
		if fault.Classify(err) != fault.Operator || !strings.Contains(err.Error(), "--dead-letter-topic") {
			t.Errorf("the session ended with %v, want an operator error with the way out", err)
		}
		if x.saved > sessionStart {
			t.Errorf("saved %v, want nothing", x.saved)
		}
	})
}

// A session that ended before an ack reads again what comes before the parked row.
func TestARetryWaitsForWhatComesBeforeTheParkedRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		batches := []wal.Batch{batchOf(0x1100, "a"), badRow(batchOf(0x1200, "a", "a", "a"), 1)}
		x.untilDone(t, batches)
		x.broker.stored, x.broker.positions, x.saved = nil, nil, sessionStart // the broker never had any of it
		x.lot.ask(wal.AskRetry, anyRow)
		x.lot.ask(wal.AskDrop, func(r *wal.ParkedRow) bool { return r.Index == 1 })
		x.inSession(t, func(give chan<- wal.Batch) {
			time.Sleep(5 * time.Second)
			give <- batches[0]
			give <- batches[1]
			time.Sleep(5 * time.Second)
		})
		wantPositions(t, x, "a")
		wantStored(t, x, "a a a", "a")
	})
}

// What an earlier session asked for may be carried out after the next one has looked: the
// server goes on with a statement whose client has gone, and a process that was frozen
// goes on with its own.
func TestARowThatWasParkedPastTheSessionEndsItAndIsKnownToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newParkRun(t)
		x.untilDone(t, []wal.Batch{badRow(batchOf(0x1100, "a"), 0)})
		stranger := x.lot.rows[0].ParkedRow
		stranger.Index, stranger.Aggregate, stranger.ID = 1, []byte("\x00b"), []byte("b")
		stranger.Columns = slices.Clone(stranger.Columns)
		stranger.Columns[3] = []byte("happened")
		s, trial := x.open(t)
		if err := x.lot.Park(t.Context(), []wal.ParkedRow{stranger}); err != nil {
			t.Fatal(err)
		}
		x.lot.ask(wal.AskRetry, func(r *wal.ParkedRow) bool { return string(r.ID) == "b" })
		done := make(chan error, 1)
		go func() { done <- s.run(t.Context(), trial.stop) }()
		time.Sleep(2 * time.Second)
		close(trial.stop)
		if err := x.end(s, <-done); fault.Classify(err) != fault.Transient {
			t.Fatalf("the session ended with %v, want a transient error", err)
		}
		x.inSession(t, func(chan<- wal.Batch) { time.Sleep(2 * time.Second) })
		wantStored(t, x, "a", "a")
	})
}

// A stream may be started again with topics that the type alone tells apart, or no longer
// does. Whose rows are parked, and what waits behind them, is then told by other keys.
func TestAParkedAggregateWaitsWhereTopicsTellItsTypeAndWhereTheyDoNot(t *testing.T) {
	for name, topics := range map[string][2]string{
		"they do no longer": {outbox.DefaultTopic, "all"},
		"they do now":       {"all", outbox.DefaultTopic},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newParkRun(t)
				x.runner.plan = mustPlan(t, topics[0])
				x.broker.unfit = map[string]bool{"a": true}
				x.untilDone(t, []wal.Batch{batchOf(0x1100, "a", "a")})
				x.broker.unfit = nil
				x.runner.plan = mustPlan(t, topics[1])
				x.untilDone(t, []wal.Batch{batchOf(0x1200, "a", "b")})
				wantStored(t, x, "b", "a a a")
				x.lot.ask(wal.AskRetry, func(r *wal.ParkedRow) bool { return r.Commit < 0x1100 })
				x.inSession(t, func(chan<- wal.Batch) { time.Sleep(3 * time.Second) })
				wantStored(t, x, "b a a a", "a a a")
				var last string
				for _, p := range x.broker.positions {
					parts := strings.Fields(p)
					if topic, key, position := parts[0], parts[1], parts[2]; key == "a" && topic != testLetters {
						if position <= last {
							t.Errorf("the event at %s came behind that at %s", position, last)
						}
						last = position
					}
				}
			})
		})
	}
}
