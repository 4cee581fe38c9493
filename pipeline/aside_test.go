package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// fussyBroker stands behind the sinks of one session after the other. It takes each call
// of Send as one batch, and refuses a batch whole when a key in it is one that it
// refuses.
type fussyBroker struct {
	refuses map[string]bool // keys, once they are sent
	unfit   map[string]bool // keys that the sink refuses beforehand, but as dead letters
	stored  []string        // what it holds, as topic and key

	refusesTopic string
	positions    []string // of what it holds
}

// fussySink is a session's connection to it, which ends at the first refusal.
type fussySink struct {
	broker *fussyBroker
	failed error
}

func (f *fussySink) Send(_ context.Context, msgs []sink.Message, ack sink.Ack) error {
	if f.failed != nil {
		return f.failed
	}
	for i := range msgs {
		if f.broker.refuses[string(msgs[i].Key)] && msgs[i].Topic != testLetters || msgs[i].Topic == f.broker.refusesTopic {
			f.failed = &sink.RefusalError{Topic: msgs[i].Topic, Err: fault.NewOperator(errors.New("the policy is against it"), "ask it")}
			for range msgs {
				ack(f.failed)
			}
			return nil
		}
	}
	for i := range msgs {
		f.broker.stored = append(f.broker.stored, msgs[i].Topic+" "+string(msgs[i].Key))
		at := slices.IndexFunc(msgs[i].Headers, func(h sink.Header) bool { return h.Key == outbox.PositionHeader })
		f.broker.positions = append(f.broker.positions, msgs[i].Topic+" "+string(msgs[i].Key)+" "+string(msgs[i].Headers[at].Value))
		ack(nil)
	}
	return nil
}

func (f *fussySink) Flush(context.Context) error { return f.failed }
func (f *fussySink) Close() error                { return nil }
func (f *fussySink) Reconsider()                 {}

func (f *fussySink) Judge(_ context.Context, msgs []sink.Message) (int, error) {
	for i := range msgs {
		if f.broker.unfit[string(msgs[i].Key)] && msgs[i].Topic != testLetters {
			return i, &sink.RefusalError{Topic: msgs[i].Topic, Err: fault.NewData(errors.New("it is too large"), "make it smaller")}
		}
	}
	return len(msgs), nil
}

// asideRun is a Runner's memory with a log that its sessions read.
type asideRun struct {
	runner Runner
	broker fussyBroker
	lot    *memoryLot // nil where rows are skipped
	log    bytes.Buffer
	saved  wal.LSN
}

func newAsideRun(t *testing.T, topic string) *asideRun {
	t.Helper()
	x := &asideRun{saved: sessionStart}
	logger := slog.New(slog.NewTextHandler(&x.log, nil))
	plan := mustPlan(t, topic)
	x.runner = Runner{config: Config{OnError: OnErrorSkip, Wal: wal.Config{Tables: plan.Tables()}, Logger: logger}, plan: plan, logger: logger}
	return x
}

// session runs one session over the batches behind what is saved, and gives what the
// runner makes of its end.
func (x *asideRun) session(t *testing.T, batches []wal.Batch) error {
	t.Helper()
	s, trial := x.open(t)
	left := slices.DeleteFunc(slices.Clone(batches), func(b wal.Batch) bool { return b.End != 0 && b.End <= x.saved })
	s.finite, s.source = true, &finiteScript{script: trial.script, left: left}
	return x.end(s, s.run(t.Context(), trial.stop))
}

// inSession runs body beside a session, which then is stopped, unless it ends by itself.
func (x *asideRun) inSession(t *testing.T, body func(give chan<- wal.Batch)) {
	t.Helper()
	s, trial := x.open(t)
	done := make(chan error, 1)
	go func() { done <- s.run(t.Context(), trial.stop) }()
	body(trial.batches)
	close(trial.stop)
	x.end(s, <-done) //nolint:errcheck // what it leaves behind is looked at
}

func (x *asideRun) open(t *testing.T) (*session, *trial) {
	t.Helper()
	trial := newTrial(t)
	s := trial.s
	s.sink = &fussySink{broker: &x.broker}
	s.mapper = outbox.NewMapper(x.runner.plan)
	s.seen = &x.runner.seen
	keeper := newSaver(trial.store, checkpoint.Position{Slot: "orders", LSN: x.saved}, time.Second)
	s.tracker = checkpoint.NewTracker(x.saved)
	keeper.tracker, keeper.confirm, keeper.seen = s.tracker, trial.Confirm, &x.runner.seen
	s.saver = keeper
	x.runner.putAside(s, s.sink, x.lot)
	if err := s.aside.load(t.Context(), x.saved); err != nil {
		t.Fatal(err)
	}
	return s, trial
}

func (x *asideRun) end(s *session, err error) error {
	x.saved = s.saver.position.LSN
	return s.aside.learn(err)
}

// wantPositions wants that the positions of a key's events rise.
func wantPositions(t *testing.T, x *asideRun, key string) {
	t.Helper()
	var last string
	for _, p := range x.broker.positions {
		if position, ok := strings.CutPrefix(p, "all "+key+" "); ok {
			if position <= last {
				t.Errorf("the event at %s of %s came behind that at %s", position, key, last)
			}
			last = position
		}
	}
}

// untilDone runs sessions until one ends by itself, and says how many that were.
func (x *asideRun) untilDone(t *testing.T, batches []wal.Batch) (sessions int) {
	t.Helper()
	for sessions < 20 {
		sessions++
		err := x.session(t, batches)
		if err == nil {
			return sessions
		}
		if fault.Classify(err) != fault.Transient {
			t.Fatalf("session %d ended with %v, want one that another follows", sessions, err)
		}
	}
	t.Fatalf("%d sessions did not come to an end; the last ones say:\n%s", sessions, x.log.String())
	return sessions
}

func TestASkippedRowIsCountedLoggedAndPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newAsideRun(t, "all")
		x.broker.unfit = map[string]bool{"large": true}
		batch := batchOf(0x1100, "a", "", "b", "large", "c")
		batch.Rows[1].Columns = [][]byte{[]byte("e7"), []byte("t"), nil, []byte("e"), []byte(`"s3cret"`), nil}
		if n := x.untilDone(t, []wal.Batch{batch, batchOf(0x1200, "d")}); n != 1 {
			t.Errorf("it took %d sessions, want 1: both are known before they are sent", n)
		}
		if diff := cmp.Diff([]string{"all a", "all b", "all c", "all d"}, x.broker.stored); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if x.saved != 0x1200 {
			t.Errorf("saved %v, want that the skipped rows are passed: 0/1200", x.saved)
		}
		if got := x.runner.Stats(); got.Skipped != 2 || got.Rows != 4 {
			t.Errorf("%d rows skipped and %d sent, want 2 and 4", got.Skipped, got.Rows)
		}
		log := x.log.String()
		for _, want := range []string{
			`msg="row skipped" position=00000000000010F8/1 table=public.outbox id=e7 reason="map row 1 of`,
			`msg="row skipped" position=00000000000010F8/3 table=public.outbox id="" reason="it is too large"`,
		} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %s:\n%s", want, log)
			}
		}
		if strings.Contains(log, "s3cret") {
			t.Errorf("the log shows a payload:\n%s", log)
		}
	})
}

// TestASkippedRowAtTheEndOfTheLogIsSaved wants that the next start does not skip, count
// and log it once more, although nothing that is worth a save follows it.
func TestASkippedRowAtTheEndOfTheLogIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newAsideRun(t, "all")
		x.broker.unfit = map[string]bool{"large": true}
		s, trial := x.open(t)
		s.saver.idle, s.saver.idleStride = time.Minute, quietStrideBytes // as with a database
		done := make(chan error, 1)
		go func() { done <- s.run(t.Context(), trial.stop) }()
		trial.batches <- batchOf(0x1100, "large")
		time.Sleep(10 * time.Second) // the bubble's clock
		if n := count(trial.noted(), "confirm 0/1100"); n != 1 {
			t.Errorf("ten seconds later: %q, want that 0/1100, behind the skipped row, is confirmed", trial.noted())
		}
		begins := batchOf(0x1200, "a", "large") // of two transactions, and the second's end comes with no row
		begins.Rows[1].Commit, begins.Rows[1].Index = 0x12F8, 0
		trial.batches <- begins
		time.Sleep(10 * time.Second)
		trial.batches <- wal.Batch{End: 0x1300}
		time.Sleep(10 * time.Second)
		if n := count(trial.noted(), "confirm 0/1300"); n != 1 {
			t.Errorf("ten seconds after its end: %q, want that 0/1300, the end of a skipped row's transaction, is confirmed", trial.noted())
		}
		close(trial.stop)
		if err := x.end(s, <-done); err != nil {
			t.Error(err)
		}
	})
}

// TestWhatWasRefusedIsForgottenOnceItIsPassed bounds what a process remembers in its life.
func TestWhatWasRefusedIsForgottenOnceItIsPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newAsideRun(t, "all")
		x.broker.refuses = map[string]bool{"x": true}
		var batches []wal.Batch
		for end := wal.LSN(0x1100); end < 0x1600; end += 0x100 {
			batches = append(batches, batchOf(end, "x", "a"))
			x.untilDone(t, batches)
		}
		if n := len(x.runner.refusals.blamed); n > 1 {
			t.Errorf("%d refusals are remembered, want that of the last row at the most: the others are never read again", n)
		}
		if skipped := x.runner.Stats().Skipped; skipped != 5 {
			t.Errorf("%d rows are skipped, want 5", skipped)
		}
	})
}

func TestWhatTheBrokerRefusesIsFoundAmongManyAndOnlyThatIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newAsideRun(t, "all")
		x.broker.refuses = map[string]bool{"x": true, "y": true}
		batches := []wal.Batch{batchOf(0x1100, "a", "b"), batchOf(0x1200, "c", "x", "d"), batchOf(0x1300, "e", "y"), batchOf(0x1400, "f")}
		n := x.untilDone(t, batches)
		if n > 5 {
			t.Errorf("it took %d sessions, want two that are refused, two that each find a row, and one that goes on", n)
		}
		var first []string
		for _, s := range x.broker.stored {
			if !slices.Contains(first, s) {
				first = append(first, s)
			}
		}
		if diff := cmp.Diff([]string{"all a", "all b", "all c", "all d", "all e", "all f"}, first); diff != "" {
			t.Errorf("stored for the first time (-want +got):\n%s", diff)
		}
		if got := x.runner.Stats().Skipped; x.saved != 0x1400 || got < 2 {
			t.Errorf("saved %v with %d rows skipped, want 0/1400 and both", x.saved, got)
		}
		if text := x.log.String(); strings.Count(text, "00000000000011F8/1") == 0 || strings.Count(text, "00000000000012F8/1") == 0 {
			t.Errorf("the log does not name the two rows:\n%s", text)
		}
	})
}

func TestMessagesThatCannotBeToBlameAreNotSentAlone(t *testing.T) {
	r := refusals{suspects: "all", until: 0x1200}
	for _, c := range []struct {
		topic  string
		commit wal.LSN
		want   bool
	}{{"all", 0x1200, true}, {"all", 0x1201, false}, {"other", 0x1100, false}} {
		if got := r.suspicious(&wal.Row{Commit: c.commit}, c.topic); got != c.want {
			t.Errorf("a row of topic %s at %v is sent alone: %v, want %v", c.topic, c.commit, got, c.want)
		}
	}
	if (&refusals{}).suspicious(&wal.Row{}, "") {
		t.Error("a message is sent alone although nothing was refused")
	}
}

func TestATableThatCannotBeMappedIsNoRowsFault(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fault.NewOperator(errors.New("the table has no key"), ""), false},
		{errors.New("connection reset"), false},
		{context.Canceled, false},
		{fault.NewData(errors.New("the key is null"), ""), true},
		{fmt.Errorf("send: %w", &sink.RefusalError{Topic: "t", Err: fault.NewOperator(errors.New("unknown"), "")}), true},
	} {
		if got := ofTheRow(c.err); got != c.want {
			t.Errorf("%v is one row's: %v, want %v", c.err, got, c.want)
		}
	}
}
