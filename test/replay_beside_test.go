package test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/wal"
)

// witness looks at a live stream many times a second, first while nothing is beside it
// and then while replays are. It counts what the stream is behind by in rows, which a
// slow machine, where the workload slows down with the stream, changes little.
type witness struct {
	l      *line
	looked chan struct{} // closed when it has looked often enough before the replays
	phase  chan struct{} // closed when the replays begin
	end    chan struct{}
	found  chan testimony
}

// looks are how many each phase needs to prove something.
const looks = 20

// testimony is what a witness saw.
type testimony struct {
	alone, beside []int64 // rows written that the topic did not hold yet
	holders       []int32 // server processes that had the slot, each once
	wrong         string  // the first look that shows the slot moved by somebody else
	err           error
}

// witness begins to look. The workload and the stream must be running.
func (l *line) witness(tb testing.TB) *witness {
	tb.Helper()
	w := &witness{l: l, looked: make(chan struct{}), phase: make(chan struct{}), end: make(chan struct{}), found: make(chan testimony, 1)}
	conn := l.db.Server.Conn(tb, l.db.Name)
	go func() {
		var seen testimony
		seen.err = w.watch(conn, &seen)
		w.found <- seen
	}()
	return w
}

// replays says that from now on replays are beside the stream, once the stream was looked
// at alone.
func (w *witness) replays(tb testing.TB) {
	tb.Helper()
	select {
	case <-w.looked:
	case seen := <-w.found:
		tb.Fatalf("look at the live stream: %v", seen.err)
	case <-time.After(time.Minute):
		tb.Fatalf("it was not looked at %d times within a minute", looks)
	}
	close(w.phase)
}

func (w *witness) watch(conn *pgx.Conn, seen *testimony) error {
	clock := time.NewTicker(20 * time.Millisecond)
	defer clock.Stop()
	var stood wal.LSN
	for {
		select {
		case <-w.end:
			return nil
		case <-clock.C:
		}
		written := w.l.w.written.Load()
		held, err := w.l.kafka.Held(context.Background(), w.l.topic)
		if err != nil {
			return err
		}
		behind := max(0, written-held)
		select {
		case <-w.phase:
			seen.beside = append(seen.beside, behind)
		default:
			if seen.alone = append(seen.alone, behind); len(seen.alone) == looks {
				close(w.looked)
			}
		}
		// The slot first: what it has confirmed was saved before.
		var slot, saved string
		var holder int32
		if err := conn.QueryRow(context.Background(), "select confirmed_flush_lsn::text, coalesce(active_pid, 0) from pg_replication_slots where slot_name = $1",
			w.l.slot).Scan(&slot, &holder); err != nil {
			return err
		}
		if err := conn.QueryRow(context.Background(), "select lsn::text from outboxcdc.checkpoint where slot = $1", w.l.slot).Scan(&saved); err != nil {
			return err
		}
		if !slices.Contains(seen.holders, holder) {
			seen.holders = append(seen.holders, holder)
		}
		confirmed, err := wal.ParseLSN(slot)
		if err != nil {
			return err
		}
		durable, err := wal.ParseLSN(saved)
		if err != nil {
			return err
		}
		if seen.wrong == "" && (confirmed > durable || confirmed < stood) {
			seen.wrong = fmt.Sprintf("it stood at %v, then at %v, and %v was saved", stood, confirmed, durable)
		}
		stood = confirmed
	}
}

// disturbance is how many times further behind than at its worst before the stream may
// be, at the median, while replays are beside it; fewRows are too few to compare.
const (
	disturbance = 4
	fewRows     = 25
)

// undisturbed ends the looking and judges: one session held the slot throughout, nobody
// but the stream moved it, and the stream kept up.
func (w *witness) undisturbed(tb testing.TB) {
	tb.Helper()
	close(w.end)
	seen := <-w.found
	if seen.err != nil {
		tb.Fatalf("look at the live stream: %v", seen.err)
	}
	if len(seen.holders) != 1 || seen.holders[0] == 0 {
		tb.Errorf("the slot was held by processes %d (0 is nobody) beside the replays, want one throughout", seen.holders)
	}
	if seen.wrong != "" {
		tb.Errorf("the slot was moved by somebody other than the stream: %s", seen.wrong)
	}
	if len(seen.beside) < looks {
		tb.Fatalf("only %d looks beside the replays: it proves little", len(seen.beside))
	}
	before, beside := slices.Max(seen.alone), median(seen.beside)
	if beside > disturbance*max(fewRows, before) {
		tb.Errorf("the stream was %d rows behind at the median beside the replays, and %d at the most before: more than %d times as far", beside, before, disturbance)
	}
	tb.Logf("rows behind: %d at the median and %d at the most alone, %d and %d beside replays; %d and %d looks",
		median(seen.alone), before, beside, slices.Max(seen.beside), len(seen.alone), len(seen.beside))
}

func median(all []int64) int64 { return slices.Sorted(slices.Values(all))[len(all)/2] }
