package pipeline

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
)

// serverOf is a database that commits at random, and shows what it has committed.
type serverOf struct {
	random *rand.Rand
	end    wal.LSN
	next   uint64
	open   []uint64
	outbox map[uint64]wal.LSN // commits of transactions with rows
}

// snapshot is one that was taken now. A transaction whose record is the last of the
// log is not visible yet at times.
func (s *serverOf) snapshot() wal.Sample {
	at := s.end + 0x10
	hidden := slices.Clone(s.open)
	for xid, commit := range s.outbox {
		if commit+0x20 >= s.end && s.random.IntN(2) == 0 {
			hidden = append(hidden, xid)
		}
	}
	slices.Sort(hidden)
	begin := append(slices.Clone(hidden), s.next)[0]
	var open []string
	for _, xid := range hidden {
		open = append(open, fmt.Sprint(xid))
	}
	text := fmt.Sprintf("%d:%d:%s", begin, s.next, strings.Join(open, ","))
	return wal.Sample{System: "7", Timeline: 1, Snapshot: text, At: at, Time: time.Unix(1, 0)}
}

// work begins transactions, and commits one or none with a row for the stream.
func (s *serverOf) work() (rows []wal.Row, end wal.LSN) {
	for range 1 + s.random.IntN(4) {
		s.open = append(s.open, s.next)
		for s.next++; s.next<<32 < 3<<32; s.next++ { // the first three numbers of an epoch are never given
		}
	}
	s.end += 0x40
	at := s.random.IntN(len(s.open))
	xid := s.open[at]
	s.open = slices.Delete(s.open, at, at+1)
	if s.random.IntN(3) == 0 { // of another table, or rolled back
		return nil, s.end
	}
	s.outbox[xid] = s.end - 0x20
	for i := range 1 + s.random.IntN(3) {
		rows = append(rows, wal.Row{Commit: s.end - 0x20, XID: uint32(xid), Index: i})
	}
	return rows, s.end
}

// TestWhatIsSavedShowsTheTransactionsUpToThePositionAndNoOthers lets a database commit
// out of order and a broker ack late, and saves now and then.
func TestWhatIsSavedShowsTheTransactionsUpToThePositionAndNoOthers(t *testing.T) {
	for seed := range uint64(100) {
		s, store := savingTo(t)
		server := &serverOf{random: rand.New(rand.NewPCG(seed, 1)), end: 0x1000, next: 1<<32 - 40, outbox: map[uint64]wal.LSN{}}
		s.offer(server.snapshot())
		var unacked []*checkpoint.Ticket
		rowsOf := map[*checkpoint.Ticket]int{}
		for step := range 400 {
			rows, end := server.work()
			s.delivered.sent.add(rows)
			ticket := s.tracker.Begin(end, len(rows), nil)
			if rowsOf[ticket] = len(rows); len(rows) > 0 {
				unacked = append(unacked, ticket)
			}
			if server.random.IntN(20) == 0 {
				s.offer(server.snapshot())
			}
			if server.random.IntN(6) > 0 {
				continue
			}
			for n := server.random.IntN(len(unacked) + 1); n > 0; n-- {
				i := server.random.IntN(min(4, len(unacked)))
				for range rowsOf[unacked[i]] {
					unacked[i].Ack(nil)
				}
				unacked = slices.Delete(unacked, i, i+1)
			}
			if err := s.save(t.Context()); err != nil {
				t.Fatal(err)
			}
			saved, err := store.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !saved.Delivered.Known() {
				continue
			}
			visible, err := checkpoint.ParseVisible(saved.Delivered.Text)
			if err != nil {
				t.Fatal(err)
			}
			for xid, commit := range server.outbox {
				if shown, passed := visible.Has(xid), commit < saved.LSN; shown && !passed || passed && !shown && s.delivered.lacks == 0 {
					t.Fatalf("seed %d, step %d: saved %v: transaction %d, which commits at %v, is shown as delivered: %v", seed, step, saved.LSN, xid, commit, shown)
				}
			}
		}
		if s.delivered.lacks != 0 || s.position.Delivered.Text == "" {
			t.Fatalf("seed %d: in the end %q was saved, and it lacks something of before %v", seed, s.position.Delivered.Text, s.delivered.lacks)
		}
	}
}

// The watch finds out later than the stream that rows were written past it, by a
// transaction of which it sent others.
func TestWhatIsNotSettledIsNeitherKeptNorSweptNorSavedOnceTheWatchFindsFault(t *testing.T) {
	s, store := savingTo(t)
	s.offer(sampleAt(0x1100))
	s.delivered.sent.add([]wal.Row{{Commit: 0x1200, XID: 0x1100}})
	s.tracker.Begin(0x1230, 1, nil).Ack(nil)
	const settled, all = "4352:4352:", "4353:4353:"
	saved := func(want string) {
		t.Helper()
		if err := s.save(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := store.Load(t.Context()); err != nil || got.Delivered.Text != want || got.LSN != 0x1230 {
			t.Errorf("saved %v with %q, %v, want %q", got.LSN, got.Delivered.Text, err, want)
		}
	}
	saved(all)
	if got := s.durable(); got.Delivered.Text != settled || got.LSN != 0x1230 {
		t.Errorf("for the sweeper %q is delivered up to %v, want %q", got.Delivered.Text, got.LSN, settled)
	}
	if err := s.keep(t.Context(), time.Unix(100_000, 0)); err != nil {
		t.Fatal(err)
	}
	entries, err := store.History(t.Context())
	if err != nil || len(entries) != 1 || entries[0].Delivered.Text != settled {
		t.Errorf("the history holds %+v, %v, want %q", entries, err, settled)
	}
	s.delivered.distrusted.Store(true)
	saved(settled)
}
