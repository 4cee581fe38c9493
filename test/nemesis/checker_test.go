package nemesis

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/wal"
)

// moment is what the slot had confirmed, and where the topic ended after that.
type moment struct {
	confirmed wal.LSN
	ends      [partitions]int64
}

// sampler looks at slot and topic during the run, in this order: whatever is
// confirmed must be in front of the ends. Moments at which one of them was away are
// left out.
type sampler struct {
	cancel  context.CancelFunc
	done    sync.WaitGroup
	moments []moment // the goroutine's until done
}

const sampleInterval = 300 * time.Millisecond

func sample(tb testing.TB, w *world) *sampler {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &sampler{cancel: cancel}
	s.done.Go(func() {
		clock := time.NewTicker(sampleInterval)
		defer clock.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-clock.C:
			}
			if m, ok := look(ctx, w); ok {
				s.moments = append(s.moments, m)
			}
		}
	})
	tb.Cleanup(s.end)
	return s
}

func (s *sampler) end() {
	s.cancel()
	s.done.Wait()
}

func look(ctx context.Context, w *world) (m moment, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := w.pg.Connect(ctx, w.db.Name)
	if err != nil {
		return m, false
	}
	defer conn.Close(context.Background()) //nolint:errcheck // nothing is owed to it
	var text string
	err = conn.QueryRow(ctx, "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1", w.slot).Scan(&text)
	if err != nil {
		return m, false
	}
	if m.confirmed, err = wal.ParseLSN(text); err != nil {
		return m, false
	}
	m.ends, ok = w.broker.ends(ctx)
	return m, ok
}

func headerOf(tb testing.TB, r *kgo.Record, key string) string {
	tb.Helper()
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	tb.Fatalf("record %d/%d has no header %s", r.Partition, r.Offset, key)
	return ""
}

// findings is what the checker counted.
type findings struct {
	ok, failed, unknown, committed int // transactions
	events, duplicates, samples    int
}

// event is the first delivery of an event.
type event struct {
	at        position
	partition int32
	offset    int64
}

type position struct {
	commit wal.LSN
	index  int
}

func positionOf(tb testing.TB, r *kgo.Record) position {
	tb.Helper()
	text := headerOf(tb, r, "outboxcdc-position")
	commit, index, _ := strings.Cut(text, "/")
	lsn, err := strconv.ParseUint(commit, 16, 64)
	n, err2 := strconv.Atoi(index)
	if err != nil || err2 != nil {
		tb.Fatalf("position %q is none", text)
	}
	return position{wal.LSN(lsn), n}
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.commit, q.commit), cmp.Compare(p.index, q.index))
}

// check reads what is left of the run and judges it.
func (w *world) check() findings {
	w.t.Helper()
	var f findings
	events, transactions := w.checkOrder(&f)
	w.checkTable(events)
	w.checkHistory(transactions, &f)
	w.checkConfirmed(events, &f)
	if w.broker.verifies() {
		w.checkVerify(&f)
	}
	return f
}

// payload is what the load writes.
type payload struct {
	N  int64  `json:"n"`
	TX string `json:"tx"`
}

// checkOrder: first deliveries of each aggregate are 1, 2, 3; their positions rise in
// each line of the broker; what comes again comes at the same position.
func (w *world) checkOrder(f *findings) (first map[string]event, transactions map[string]int) {
	w.t.Helper()
	first, transactions = map[string]event{}, map[string]int{}
	last, highest := map[string]int64{}, map[string]position{}
	for _, r := range w.broker.records(w) {
		var p payload
		if err := json.Unmarshal(r.Value, &p); err != nil {
			w.t.Fatalf("seed %d: record %d/%d is not the load's: %v", *seed, r.Partition, r.Offset, err)
		}
		id, at := fmt.Sprintf("%s#%d", r.Key, p.N), positionOf(w.t, r)
		if known, again := first[id]; again {
			f.duplicates++
			if known.at != at {
				w.t.Errorf("seed %d: event %s was delivered at %v and again at %v", *seed, id, known.at, at)
			}
			continue
		}
		if p.N != last[string(r.Key)]+1 {
			w.t.Errorf("seed %d: event %s came after event %d of its aggregate", *seed, id, last[string(r.Key)])
		}
		line := w.broker.line(r)
		if at.compare(highest[line]) <= 0 {
			w.t.Errorf("seed %d: event %s at %v came after %v in partition %d", *seed, id, at, highest[line], r.Partition)
		}
		last[string(r.Key)], highest[line] = p.N, at
		first[id] = event{at: at, partition: r.Partition, offset: r.Offset}
		transactions[p.TX]++
	}
	f.events = len(first)
	return first, transactions
}

// checkTable: the topic holds as many events of each aggregate as were committed.
func (w *world) checkTable(events map[string]event) {
	w.t.Helper()
	w.sql(func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "select id, n from aggregate where n > 0")
		if err != nil {
			return err
		}
		var id string
		var n, total int64
		_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error {
			total += n
			for i := range n {
				if _, ok := events[fmt.Sprintf("%s#%d", id, i+1)]; !ok {
					w.t.Errorf("seed %d: event %s#%d was committed and is not on the topic", *seed, id, i+1)
				}
			}
			return nil
		})
		if int64(len(events)) != total {
			w.t.Errorf("seed %d: the topic holds %d events, %d were committed", *seed, len(events), total)
		}
		return err
	})
}

// checkHistory: what a writer was told holds on the topic.
func (w *world) checkHistory(transactions map[string]int, f *findings) {
	w.t.Helper()
	for name, a := range w.load.history {
		got := transactions[name]
		switch a.outcome {
		case ok:
			f.ok++
			if got != a.events {
				w.t.Errorf("seed %d: transaction %s committed %d events, the topic holds %d", *seed, name, a.events, got)
			}
		case failed:
			f.failed++
			if got != 0 {
				w.t.Errorf("seed %d: transaction %s was rolled back, the topic holds %d events of it", *seed, name, got)
			}
		case unknown:
			f.unknown++
			if got == a.events {
				f.committed++
			} else if got != 0 {
				w.t.Errorf("seed %d: the topic holds %d of the %d events of transaction %s, want all or none", *seed, got, a.events, name)
			}
		}
	}
}

// checkConfirmed: at each moment, what the slot had confirmed was on the topic.
func (w *world) checkConfirmed(events map[string]event, f *findings) {
	w.t.Helper()
	ordered := make([]event, 0, len(events))
	for _, e := range events {
		ordered = append(ordered, e)
	}
	slices.SortFunc(ordered, func(a, b event) int { return a.at.compare(b.at) })
	moments := slices.Clone(w.sampler.moments)
	slices.SortFunc(moments, func(a, b moment) int { return cmp.Compare(a.confirmed, b.confirmed) })
	var needed [partitions]int64 // where each partition must have ended at least
	next := 0
	for _, m := range moments {
		for ; next < len(ordered) && ordered[next].at.commit < m.confirmed; next++ {
			e := ordered[next]
			needed[e.partition] = max(needed[e.partition], e.offset+1)
		}
		for p, end := range m.ends {
			if end < needed[p] {
				w.t.Errorf("seed %d: the slot had confirmed %v while partition %d ended at %d, before an event at %d", *seed, m.confirmed, p, end, needed[p]-1)
			}
		}
	}
	f.samples = len(moments)
}

// checkVerify: the command that users have comes to the same result.
func (w *world) checkVerify(f *findings) {
	w.t.Helper()
	out := w.outboxcdc("verify", "--sink", w.broker.sink(), "--topic", w.broker.topic(), "--wait", "10s", "--json")
	var report struct {
		Rows, Present, Redelivered, Duplicates, Foreign, Rowless int64
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		w.t.Fatalf("outboxcdc verify printed no report: %v\n%s", err, out)
	}
	if report.Rows != int64(f.events) || report.Present != report.Rows || report.Redelivered != int64(f.duplicates) ||
		report.Duplicates+report.Foreign+report.Rowless != 0 {
		w.t.Errorf("seed %d: outboxcdc verify says %+v, the checker %+v", *seed, report, *f)
	}
}
