package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

const topic = "orders"

// newTestRun is a run without servers: the test adds rows and records itself.
func newTestRun(tb testing.TB) *run {
	tb.Helper()
	r, err := newRun(Config{Wal: wal.Config{Tables: []wal.Table{{Schema: "public", Name: "outbox"}}}, Outbox: outbox.Config{Default: outbox.Mapping{Topic: topic}}, Directory: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.close)
	r.settled = true
	return r
}

// fact is an event of a test: the nth of an aggregate.
type fact struct {
	id, key, payload string
}

func (r *run) insert(tb testing.TB, seq int, f fact) {
	tb.Helper()
	columns := [][]byte{
		[]byte(f.id), []byte("order"), []byte(f.key), []byte("placed"), []byte(f.payload), nil,
		fmt.Append(nil, seq), []byte("2026-01-02 03:04:05.678901+00"),
	}
	if err := r.addRow(0, nil, columns); err != nil {
		tb.Fatal(err)
	}
}

func deliver(f fact, at position, number int32, offset int64) *sink.Record {
	return &sink.Record{
		Message: sink.Message{
			Topic: topic, Key: []byte(f.key), Value: []byte(f.payload),
			Headers: []sink.Header{
				{Key: "id", Value: []byte(f.id)},
				{Key: "event_type", Value: []byte("placed")},
				{Key: "aggregate_type", Value: []byte("order")},
				{Key: outbox.PositionHeader, Value: []byte(at.String())},
			},
			Time: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC),
		},
		Partition: number, Offset: offset,
	}
}

// take reads records of partition 0, which begins at start and is read from there.
func (r *run) take(tb testing.TB, start int64, records ...*sink.Record) {
	tb.Helper()
	end := start + int64(len(records))
	r.meet(&sink.Span{Topic: topic, Start: start, From: start, End: end})
	for i, record := range records {
		record.Offset = start + int64(i)
		r.report.Records++
		if err := r.addRecord(record); err != nil {
			tb.Fatal(err)
		}
	}
}

func at(commit uint64, index uint32) position { return position{commit, index} }

// facts are n events of one aggregate.
func facts(n int) []fact {
	all := make([]fact, n)
	for i := range all {
		all[i] = fact{id: fmt.Sprintf("id-%d", i), key: "a", payload: fmt.Sprintf(`{"n": %d}`, i)}
	}
	return all
}

func TestEachDefectIsCountedAsWhatItIs(t *testing.T) {
	f := facts(3)
	first, second, third := deliver(f[0], at(10, 0), 0, 0), deliver(f[1], at(10, 1), 0, 0), deliver(f[2], at(20, 0), 0, 0)
	altered := deliver(fact{id: f[1].id, key: "a", payload: `{"n": 7}`}, at(10, 1), 0, 0)
	foreign := deliver(f[1], at(10, 1), 0, 0)
	foreign.Headers = foreign.Headers[:3]
	stranger := deliver(fact{id: "gone", key: "a", payload: "{}"}, at(15, 0), 0, 0)
	again := deliver(f[1], at(30, 0), 0, 0)
	for name, c := range map[string]struct {
		records []*sink.Record
		start   int64
		doubt   bool // the slot is not past the snapshot
		aside   map[string]Kind
		want    Report
		exit    int
	}{
		"all is well":        {records: []*sink.Record{first, second, third}, want: Report{Present: 3}},
		"missing":            {records: []*sink.Record{first, third}, want: Report{Present: 2, Missing: 1}, exit: 3},
		"perhaps on its way": {records: []*sink.Record{first, third}, doubt: true, want: Report{Present: 2, Unsettled: 1}, exit: 1},
		"parked":             {records: []*sink.Record{first}, aside: map[string]Kind{f[1].id: Parked, f[2].id: Parked}, want: Report{Present: 1, Parked: 2}, exit: 1},
		"parked, and in doubt": {
			records: []*sink.Record{first, third}, aside: map[string]Kind{f[1].id: Parked}, doubt: true,
			want: Report{Present: 2, Parked: 1}, exit: 1,
		},
		"parked and sent since": {records: []*sink.Record{first, second, third}, aside: map[string]Kind{f[1].id: Parked}, want: Report{Present: 3}},
		"dropped":               {records: []*sink.Record{first, third}, aside: map[string]Kind{f[1].id: Dropped}, want: Report{Present: 2, Dropped: 1}},
		"swapped":               {records: []*sink.Record{first, third, second}, want: Report{Present: 3, Disordered: 1}, exit: 3},
		"altered":               {records: []*sink.Record{first, altered, third}, want: Report{Present: 2, Altered: 1}, exit: 3},
		"redelivered":           {records: []*sink.Record{first, second, third, second, third}, want: Report{Present: 3, Redelivered: 2}},
		"a redelivery first":    {records: []*sink.Record{first, second, first, second, third}, want: Report{Present: 3, Redelivered: 2}},
		"at another position":   {records: []*sink.Record{first, second, third, again}, want: Report{Present: 3, Duplicates: 1}},
		"foreign":               {records: []*sink.Record{first, second, foreign, third}, want: Report{Present: 3, Foreign: 1}},
		"foreign is no event":   {records: []*sink.Record{first, foreign, third}, want: Report{Present: 2, Missing: 1, Foreign: 1}, exit: 3},
		"row deleted":           {records: []*sink.Record{first, second, stranger, third}, want: Report{Present: 3, Rowless: 1}},
		"removed":               {records: []*sink.Record{second, third}, start: 1, want: Report{Present: 2, Expired: 1}},
		"delivered before the cut": {
			records: []*sink.Record{third, first, second, third}, start: 3,
			want: Report{Present: 3, Redelivered: 1},
		},
		"out of order behind the cut": {
			records: []*sink.Record{first, third, second}, start: 3,
			want: Report{Present: 3, Disordered: 1}, exit: 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRun(t)
			r.settled, r.aside = !c.doubt, map[digest]Kind{}
			for id, kind := range c.aside {
				r.aside[r.identity([]byte(id))] = kind
			}
			for i := range f {
				r.insert(t, i+1, f[i])
			}
			r.take(t, c.start, c.records...)
			if err := r.compare(); err != nil {
				t.Fatal(err)
			}
			c.want.Rows, c.want.Records = 3, int64(len(c.records))
			if diff := cmp.Diff(c.want, r.report, cmpopts.IgnoreFields(Report{}, "Notes", "Examples")); diff != "" {
				t.Errorf("the report (-want +got):\n%s", diff)
			}
			if got := fault.ExitCode(r.report.Err()); got != c.exit {
				t.Errorf("exit %d, want %d", got, c.exit)
			}
		})
	}
}

func TestARowThatStopsAStreamIsNamed(t *testing.T) {
	r := newTestRun(t)
	r.insert(t, 42, fact{id: "nobody", key: "", payload: "{}"})
	if err := r.compare(); err != nil {
		t.Fatal(err)
	}
	if len(r.report.Examples) != 1 || r.report.Examples[0].Seq != 42 || r.report.Unmappable != 1 {
		t.Errorf("report %+v, want row 42 as one that cannot be published", r.report)
	}
	if got := fault.ExitCode(r.report.Err()); got != fault.ExitOperator {
		t.Errorf("exit %d, want %d", got, fault.ExitOperator)
	}
}

func TestARowThatCannotBeMappedMayBeParked(t *testing.T) {
	r := newTestRun(t)
	r.insert(t, 42, fact{id: "bad", key: "", payload: "{}"})
	r.aside = map[digest]Kind{r.identity([]byte("bad")): Parked}
	for range 2 { // a second comparison counts anew
		if err := r.compare(); err != nil {
			t.Fatal(err)
		}
		if r.report.Parked != 1 || r.report.Unmappable != 0 || len(r.report.Examples) != 1 || r.report.Examples[0].Kind != Parked {
			t.Errorf("report %+v, want one row that is parked, and no other fault", r.report)
		}
	}
}

func TestARowWithoutAnIDIsCountedOnceInEachComparison(t *testing.T) {
	r := newTestRun(t)
	if err := r.addRow(0, nil, [][]byte{nil, []byte("order"), []byte("a"), []byte("placed"), []byte("{}"), nil, []byte("7"), nil}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.compare(); err != nil {
			t.Fatal(err)
		}
		if r.report.Unmappable != 1 || len(r.report.Examples) != 1 || r.report.Examples[0].Seq != 7 {
			t.Errorf("report %+v, want row 7 as one that cannot be published", r.report)
		}
	}
}

func TestAnInterruptedComparisonGoesOnWhereItWas(t *testing.T) {
	f := facts(3)
	r := newTestRun(t)
	for i := range f {
		r.insert(t, i, f[i])
	}
	r.settled = false
	r.take(t, 0, deliver(f[0], at(10, 0), 0, 0))
	if err := r.compare(); err != nil {
		t.Fatal(err)
	}
	if r.report.Unsettled != 2 {
		t.Fatalf("%d rows are unsettled, want 2", r.report.Unsettled)
	}
	span := sink.Span{Topic: topic, From: 0, End: 3}
	r.meet(&span)
	if span.From != 1 {
		t.Errorf("the second read begins at %d, want 1", span.From)
	}
	for i, record := range []*sink.Record{deliver(f[1], at(20, 0), 0, 1), deliver(f[2], at(30, 0), 0, 2)} {
		r.report.Records = int64(i) + 2
		if err := r.addRecord(record); err != nil {
			t.Fatal(err)
		}
	}
	r.settled = true
	if err := r.compare(); err != nil {
		t.Fatal(err)
	}
	if r.report.Present != 3 || r.report.Err() != nil || len(r.report.Examples) != 0 {
		t.Errorf("report %+v, want three rows that are there and no example", r.report)
	}
}

// TestAComparisonOfManyAgreesWithASimpleOne plants defects at random places among
// more entries than a chunk holds, and counts them as they are planted.
func TestAComparisonOfManyAgreesWithASimpleOne(t *testing.T) {
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 1))
		r := newTestRun(t)
		var want Report
		var records []*sink.Record
		for i := range 40_000 {
			f := fact{id: fmt.Sprintf("id-%d", i), key: fmt.Sprintf("a-%d", random.IntN(500)), payload: fmt.Sprint(i)}
			r.insert(t, i, f)
			record := deliver(f, at(uint64(i+1), 0), 0, 0)
			switch random.IntN(200) {
			case 0:
				want.Missing++
				continue
			case 1:
				record.Value = []byte("other")
				want.Altered++
			case 2:
				want.Redelivered++
				records = append(records, record)
				want.Present++
			default:
				want.Present++
			}
			records = append(records, deliver(fact{f.id, f.key, string(record.Value)}, at(uint64(i+1), 0), 0, 0))
		}
		r.take(t, 0, records...)
		if err := r.compare(); err != nil {
			t.Fatal(err)
		}
		want.Rows, want.Records = 40_000, int64(len(records))
		if diff := cmp.Diff(want, r.report, cmpopts.IgnoreFields(Report{}, "Notes", "Examples")); diff != "" {
			t.Errorf("seed %d (-want +got):\n%s", seed, diff)
		}
		if n := len(r.report.Examples); n > 3*maxExamples {
			t.Errorf("%d examples, want at most %d of a kind", n, maxExamples)
		}
	}
}

func TestSpoolGivesBackWhatItWasGivenInOrder(t *testing.T) {
	s, err := newSpool(t.TempDir(), 12)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	want := map[byte][]uint64{}
	for i := range uint64(20_000) {
		entry := binary.BigEndian.AppendUint64([]byte{byte(i % 7 * 40), 0, 0, 0}, i)
		if err := s.put(entry); err != nil {
			t.Fatal(err)
		}
		want[entry[0]] = append(want[entry[0]], i)
	}
	for number := range buckets {
		var got []uint64
		if err := s.each(number, func(entry []byte) { got = append(got, binary.BigEndian.Uint64(entry[4:])) }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[byte(number)], got); diff != "" {
			t.Fatalf("bucket %d (-want +got):\n%s", number, diff)
		}
	}
}

func TestEntriesComeBackAsTheyWent(t *testing.T) {
	where := place{at: at(0xFFEEDDCCBBAA0011, 4_000_000_000), topic: 65535, partition: 1<<31 - 1, offset: 1<<62 + 1}
	e := event{identity: digest{1, 2}, content: digest{3, 4}, kind: kindRecord, number: 1 << 63, place: where}
	o := order{key: digest{9}, number: 77, place: where}
	if b := e.append(nil); len(b) != eventBytes || readEvent(b) != e {
		t.Errorf("event %+v came back as %+v from %d bytes", e, readEvent(b), len(b))
	}
	if b := o.append(nil); len(b) != orderBytes || readOrder(b) != o {
		t.Errorf("order %+v came back as %+v from %d bytes", o, readOrder(b), len(b))
	}
}

func TestPositionsAreReadAsTheStreamWritesThem(t *testing.T) {
	mapper := outbox.NewMapper(mustPlan(t))
	row := wal.Row{Commit: 0x1A_0000BEEF, Index: 12345, Columns: [][]byte{[]byte("i"), []byte("o"), []byte("a"), []byte("e"), []byte("p"), nil}}
	messages, err := mapper.Map([]wal.Row{row}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := header(messages[0].Headers, outbox.PositionHeader)
	got, err := parsePosition(text)
	if err != nil || got != at(0x1A_0000BEEF, 12345) || got.String() != string(text) {
		t.Errorf("%s was read as %v, %v", text, got, err)
	}
	for _, bad := range []string{"", "0/0", "000000000000000G/0", "0000000000000001/", "0000000000000001-1", "0000000000000001/-1"} {
		if _, err := parsePosition([]byte(bad)); !errors.Is(err, errPosition) {
			t.Errorf("%q was read as a position", bad)
		}
	}
}

func mustPlan(tb testing.TB) *outbox.Plan {
	tb.Helper()
	plan, err := outbox.NewPlan(outbox.Config{Default: outbox.Mapping{Topic: topic}}, []wal.Table{{Name: "outbox"}})
	if err != nil {
		tb.Fatal(err)
	}
	return plan
}

func TestDigestsKeepFieldsApart(t *testing.T) {
	h := newHasher()
	seen := map[digest]string{}
	for name, m := range map[string]sink.Message{
		"nil value":   {Topic: "t", Key: []byte("k")},
		"empty value": {Topic: "t", Key: []byte("k"), Value: []byte{}},
		"moved byte":  {Topic: "tk", Key: []byte("k")},
		"moved back":  {Topic: "t", Key: []byte("kk")},
		"header":      {Topic: "t", Key: []byte("k"), Headers: []sink.Header{{Key: "h"}}},
	} {
		d := h.message(&m)
		if other, taken := seen[d]; taken {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[d] = name
	}
	long := sink.Message{Value: bytes.Repeat([]byte("x"), 1<<20)}
	if h.message(&long) != newHasher().message(&long) {
		t.Error("the digest depends on what came before")
	}
}

func TestExamplesHoldNoPayload(t *testing.T) {
	r := newTestRun(t)
	r.insert(t, 1, fact{id: "id-1", key: "secret-key", payload: "secret-payload"})
	r.take(t, 0, deliver(fact{id: "id-1", key: "secret-key", payload: "secret-other"}, at(1, 0), 0, 0))
	if err := r.compare(); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v %v", r.report, r.report.Err()); strings.Contains(text, "secret") {
		t.Errorf("the report shows what an event holds: %s", text)
	}
}
