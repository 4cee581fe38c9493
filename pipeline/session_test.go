package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

const sessionStart = wal.LSN(0x1000)

// script is a source that gives what the test puts into batches, and a record of
// what the session told it.
type script struct {
	batches chan wal.Batch
	broken  chan error
	mu      sync.Mutex
	order   *[]string // shared with sink and store: who was called when
	at      wal.LSN
	given   wal.LSN // the latest End of a batch
	beyond  wal.LSN // what was confirmed and not given, at which a stream panics
}

func (s *script) Run(ctx context.Context, stop <-chan struct{}, out chan<- wal.Batch) error {
	err := s.give(stop, out)
	close(out)
	if err == nil {
		<-ctx.Done()
	}
	return err
}

func (s *script) give(stop <-chan struct{}, out chan<- wal.Batch) error {
	for {
		select {
		case b := <-s.batches:
			s.mu.Lock()
			s.given = max(s.given, b.End)
			s.mu.Unlock()
			select {
			case out <- b:
			case <-stop:
				return nil
			}
		case err := <-s.broken:
			return err
		case <-stop:
			return nil
		}
	}
}

func (s *script) Confirm(lsn wal.LSN) {
	s.note("confirm "+lsn.String(), lsn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if lsn > s.given {
		s.beyond = lsn
	}
}

func (s *script) note(what string, at wal.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*s.order = append(*s.order, what)
	if at > s.at {
		s.at = at
	}
}

func (s *script) noted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), *s.order...)
}

// handSink acks when the test says so.
type handSink struct {
	script *script
	acks   chan sink.Ack
	block  chan struct{} // Send waits for it; nil does not
	flush  chan struct{} // Flush waits for it
}

func (h *handSink) Send(ctx context.Context, msgs []sink.Message, ack sink.Ack) error {
	for _, m := range msgs {
		h.script.note("send "+string(m.Key), 0)
		if h.block != nil {
			select {
			case <-h.block:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		h.acks <- ack
	}
	return nil
}

func (h *handSink) Flush(ctx context.Context) error {
	select {
	case <-h.flush:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *handSink) Close() error { return nil }

type noteStore struct {
	script *script
	err    error
}

func (n *noteStore) Load(context.Context) (checkpoint.Position, error) {
	return checkpoint.Position{}, checkpoint.ErrNone
}

func (n *noteStore) Save(_ context.Context, p checkpoint.Position) error {
	n.script.note("save "+p.LSN.String(), 0)
	return n.err
}
func (n *noteStore) Close() error { return nil }

// trial is a session with everything in the test's hands.
type trial struct {
	*script
	sink  *handSink
	store *noteStore
	s     *session
	stop  chan struct{}
	done  chan error
}

// inTrial runs body beside a session in a bubble.
func inTrial(t *testing.T, body func(t *testing.T, x *trial)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		x := newTrial(t)
		go func() { x.done <- x.s.run(ctx, x.stop) }()
		body(t, x)
		cancel()
	})
}

func newTrial(t *testing.T) *trial {
	t.Helper()
	plan := mustPlan(t, "all")
	source := &script{batches: make(chan wal.Batch), broken: make(chan error), order: new([]string)}
	broker := &handSink{script: source, acks: make(chan sink.Ack, 100), flush: make(chan struct{})}
	store := &noteStore{script: source}
	seen := &counters{}
	tracker := checkpoint.NewTracker(sessionStart)
	keeper := newSaver(store, checkpoint.Position{Slot: "orders", LSN: sessionStart}, time.Second)
	keeper.tracker, keeper.confirm, keeper.seen = tracker, source.Confirm, seen
	return &trial{
		script: source, sink: broker, store: store, stop: make(chan struct{}), done: make(chan error, 1),
		s: &session{
			source: source, mapper: outbox.NewMapper(plan),
			sink: broker, tracker: tracker, saver: keeper, budget: newBudget(1 << 20), drain: 30 * time.Second, queue: 1,
			seen: seen, read: func() wal.LSN { return 0 }, draining: func() {}, bugs: make(chan error, 1),
		},
	}
}

// mustPlan is for one outbox table with its usual columns, and for messages.
func mustPlan(tb testing.TB, topic string) *outbox.Plan {
	tb.Helper()
	plan, err := outbox.NewPlan(outbox.Config{Default: outbox.Mapping{Topic: topic}, Messages: &outbox.Mapping{Topic: topic}}, []wal.Table{{Schema: "public", Name: "outbox"}})
	if err != nil {
		tb.Fatal(err)
	}
	return plan
}

func batchOf(end wal.LSN, keys ...string) wal.Batch {
	b := wal.Batch{End: end}
	for i, key := range keys {
		b.Rows = append(b.Rows, wal.Row{Commit: end - 8, Index: i, Columns: [][]byte{nil, []byte("t"), []byte(key), []byte("e"), nil, nil}})
	}
	return b
}

func count(order []string, what string) (n int) {
	for _, o := range order {
		if o == what {
			n++
		}
	}
	return n
}

func TestNothingIsSavedOrConfirmedBeforeTheAck(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		x.batches <- batchOf(0x1100, "a")
		time.Sleep(10 * time.Second)
		if got := x.noted(); len(got) != 1 {
			t.Fatalf("before the ack: %q, want the send alone", got)
		}
		(<-x.sink.acks)(nil)
		time.Sleep(2 * time.Second)
		want := []string{"send a", "save 0/1100", "confirm 0/1100"}
		if got := x.noted(); len(got) != 3 || got[1] != want[1] || got[2] != want[2] {
			t.Errorf("after the ack: %q, want %q", got, want)
		}
	})
}

func TestSlotNeverPassesStore(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		x.store.err = errors.New("disk full")
		x.batches <- batchOf(0x1100, "a")
		(<-x.sink.acks)(nil)
		close(x.sink.flush)
		if err := <-x.done; !errors.Is(err, x.store.err) {
			t.Errorf("session ended with %v, want the store's error", err)
		}
		for _, o := range x.noted() {
			if o == "confirm 0/1100" {
				t.Error("confirmed what the store refused to save")
			}
		}
	})
}

func TestNothingIsSentAfterAFailedAck(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		refused := errors.New("refused")
		x.batches <- batchOf(0x1100, "a")
		x.batches <- batchOf(0x1200, "b")
		first := <-x.sink.acks
		first(refused)
		go func() {
			for i := range 10 {
				select {
				case x.batches <- batchOf(wal.LSN(0x1300+i*0x100), "late"):
				case <-time.After(time.Minute): //nolint:forbidigo // the bubble's clock
				}
			}
		}()
		err := <-x.done
		if !errors.Is(err, refused) {
			t.Errorf("session ended with %v, want the failed ack's error", err)
		}
		if n := count(x.noted(), "send late"); n > 0 {
			t.Errorf("%d messages were sent after the failed ack, want none", n)
		}
		if x.at > sessionStart {
			t.Errorf("confirmed %v, want nothing", x.at)
		}
		time.Sleep(time.Hour)
	})
}

func TestStopDrainsSavesAndConfirms(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		x.batches <- batchOf(0x1100, "a")
		ack := <-x.sink.acks
		close(x.stop)
		time.Sleep(20 * time.Second)
		ack(nil)
		close(x.sink.flush)
		if err := <-x.done; err != nil {
			t.Errorf("session ended with %v after a clean stop, want nil", err)
		}
		if got := x.noted(); got[len(got)-1] != "confirm 0/1100" {
			t.Errorf("order %q, want the confirmation last", got)
		}
	})
}

func TestAcksAndConfirmsAreTimed(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		batch := batchOf(0x1100, "a", "b")
		for i := range batch.Rows {
			batch.Rows[i].Time = time.Now()
		}
		x.batches <- batch
		for range 2 {
			ack := <-x.sink.acks
			time.Sleep(2 * time.Second)
			ack(nil)
		}
		close(x.stop)
		close(x.sink.flush)
		if err := <-x.done; err != nil {
			t.Fatal(err)
		}
		if l := x.s.seen.commitToAck.latency(); l.Count != 2 || l.Sum != 8*time.Second {
			t.Errorf("%d rows took %v from commit to ack, want 2 rows 8s", l.Count, l.Sum)
		}
		if l := x.s.seen.ackToConfirm.latency(); l.Count != 1 || l.Sum > time.Second {
			t.Errorf("%d saves took %v from ack to confirm, want 1, soon", l.Count, l.Sum)
		}
	})
}

func TestARunnerWhoseDrainTimedOutSaysSo(t *testing.T) {
	r := &Runner{logger: slog.New(slog.DiscardHandler)}
	err := r.stopped(errors.Join(fault.ErrDrainTimeout, fmt.Errorf("flush: %w", context.Canceled)))
	if fault.ExitCode(err) != fault.ExitDrainTimeout {
		t.Errorf("Run ends with %v, want a drain timeout", err)
	}
}

func TestDrainTimeoutHasItsOwnExitAndConfirmsOnlyWhatIsAcked(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		x.batches <- batchOf(0x1100, "a")
		x.batches <- batchOf(0x1200, "b")
		first := <-x.sink.acks
		<-x.sink.acks
		close(x.stop)
		first(nil)
		began := time.Now()
		err := <-x.done
		if fault.ExitCode(err) != fault.ExitDrainTimeout {
			t.Errorf("session ended with %v, want a drain timeout", err)
		}
		if waited := time.Since(began); waited != 30*time.Second {
			t.Errorf("waited %v, want the drain timeout of 30s", waited)
		}
		if x.at != 0x1100 {
			t.Errorf("confirmed %v, want what was acked, 0/1100", x.at)
		}
	})
}

func TestABrokenSourceStillDeliversWhatWasSent(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		x.batches <- batchOf(0x1100, "a")
		ack := <-x.sink.acks
		cut := errors.New("connection reset")
		x.broken <- cut
		ack(nil)
		close(x.sink.flush)
		if err := <-x.done; !errors.Is(err, cut) {
			t.Errorf("session ended with %v, want the source's error", err)
		}
		if n := count(x.noted(), "save 0/1100"); n != 1 {
			t.Errorf("saved %d times, want once: the next session would send it again", n)
		}
	})
}

func TestABlockedBrokerDoesNotKeepABrokenSession(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		x.sink.block = make(chan struct{})
		x.batches <- batchOf(0x1100, "a")
		synctest.Wait()
		began := time.Now()
		x.broken <- errors.New("connection reset")
		if err := <-x.done; err == nil {
			t.Error("session ended with nil, want the source's error")
		}
		if waited := time.Since(began); waited > 10*time.Second {
			t.Errorf("waited %v for a broker that is away, want a few seconds", waited)
		}
	})
}

func TestARowThatCannotBeMappedEndsTheSessionBehindTheGoodRows(t *testing.T) {
	inTrial(t, func(t *testing.T, x *trial) {
		good, bad := batchOf(0x1200, "b"), batchOf(0x1300, "c", "", "d")
		good.Rows, good.End = append(good.Rows, bad.Rows...), bad.End
		x.batches <- batchOf(0x1100, "a")
		x.batches <- good
		(<-x.sink.acks)(nil)
		(<-x.sink.acks)(nil)
		close(x.sink.flush)
		err := <-x.done
		if fault.Classify(err) != fault.Data {
			t.Errorf("session ended with %v, want a data error", err)
		}
		if got := x.noted(); count(got, "send b") != 1 || count(got, "send c")+count(got, "send d") != 0 {
			t.Errorf("order %q, want b sent, and nothing of the transaction of the bad row", got)
		}
		if want := bad.Rows[0].Commit; x.at != want {
			t.Errorf("confirmed %v, want %v: before the transaction of the bad row and behind all others", x.at, want)
		}
	})
}

func TestWatchEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrial(t)
		dropped := fault.NewOperator(errors.New("the table left the publication"), "put it back")
		x.s.watch = func(context.Context) error { return dropped }
		close(x.sink.flush)
		if err := x.s.run(t.Context(), x.stop); !errors.Is(err, dropped) {
			t.Errorf("session ended with %v, want what the watch found", err)
		}
	})
}

func TestBudgetBoundsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		ctx := t.Context()
		if b.acquire(ctx, 60) != nil || b.acquire(ctx, 40) != nil {
			t.Fatal("the budget refused what fits")
		}
		got := make(chan error, 1)
		go func() { got <- b.acquire(ctx, 1000) }()
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("the budget gave more than it has")
		}
		b.release(60)
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("a batch larger than the budget did not wait to go alone")
		}
		b.release(40)
		if err := <-got; err != nil {
			t.Errorf("acquire: %v", err)
		}
	})
}

func TestBatchesBeyondTheBudgetAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		x := newTrial(t)
		x.s.budget = newBudget(batchOf(0x1100, "a").Bytes())
		go func() { x.done <- x.s.run(ctx, x.stop) }()
		x.batches <- batchOf(0x1100, "a")
		x.batches <- batchOf(0x1200, "b")
		time.Sleep(time.Minute)
		if got := x.noted(); count(got, "send b") != 0 {
			t.Errorf("sent %q, want b to wait until a is acked", got)
		}
		(<-x.sink.acks)(nil)
		<-x.sink.acks
		cancel()
		if err := <-x.done; !errors.Is(err, context.Canceled) {
			t.Errorf("session ended with %v, want that it was cancelled", err)
		}
	})
}

func TestIdleLogIsSavedInStridesWhenASaveWritesLog(t *testing.T) {
	s := saver{position: checkpoint.Position{LSN: 0x1000}, idle: time.Minute, idleStride: quietStrideBytes}
	at := time.Unix(0, 0)
	s.at = at
	for _, c := range []struct {
		mark  checkpoint.Mark
		after time.Duration
		want  bool
	}{
		{checkpoint.Mark{LSN: 0x1000}, time.Hour, false},
		{checkpoint.Mark{LSN: 0x1001, Rows: 1}, 0, true},
		{checkpoint.Mark{LSN: 0x1000 + quietStrideBytes - 1}, time.Hour, false},
		{checkpoint.Mark{LSN: 0x1000 + quietStrideBytes}, time.Second, false},
		{checkpoint.Mark{LSN: 0x1000 + quietStrideBytes}, time.Minute, true},
		{checkpoint.Mark{LSN: 0x1000 + urgentStrideBytes}, 0, true},
	} {
		if got := s.due(c.mark, at.Add(c.after)); got != c.want {
			t.Errorf("due(%v after %v) = %v, want %v", c.mark, c.after, got, c.want)
		}
	}
}

func TestChainHoldsInStats(t *testing.T) {
	r := &Runner{logger: slog.New(slog.DiscardHandler)}
	if s := r.Stats(); s.Read != 0 || s.Confirmed != 0 {
		t.Errorf("positions before the first session: %+v, want none", s)
	}
	tracker := checkpoint.NewTracker(0x1000)
	keeper := &saver{position: checkpoint.Position{LSN: 0x1000}}
	r.board.begin(&session{tracker: tracker, saver: keeper, budget: newBudget(1), seen: &r.seen, read: func() wal.LSN { return 0x1300 }})
	tracker.Begin(0x1100, 1, nil).Ack(nil)
	tracker.Begin(0x1200, 1, nil)
	s := r.Stats()
	if s.Confirmed != 0x1000 || s.Saved != 0x1000 || s.Acked != 0x1100 || s.Sent != 0x1200 || s.Read != 0x1300 {
		t.Errorf("positions %+v, want 1000 1000 1100 1200 1300", s)
	}
}
