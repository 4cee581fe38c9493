package outbox_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

var tables = []wal.Table{{Schema: "public", Name: "outbox"}}

func row(columns ...any) wal.Row {
	r := wal.Row{Commit: 0x16B3748, Index: 3, XID: 42, Time: time.Unix(1700000000, 0).UTC()}
	for _, c := range columns {
		if c == nil {
			r.Columns = append(r.Columns, nil)
		} else {
			r.Columns = append(r.Columns, []byte(c.(string)))
		}
	}
	return r
}

func mapper(tb testing.TB, template string) *outbox.Mapper {
	tb.Helper()
	mapping := outbox.Mapping{Topic: template}
	if strings.HasPrefix(template, "{") {
		mapping.Allow = []string{".*"}
	}
	return mapperOf(tb, mapping)
}

// mapperOf maps rows whose columns are those of the roles, in their order, and then
// those that the mapping names besides.
func mapperOf(tb testing.TB, mapping outbox.Mapping) *outbox.Mapper {
	tb.Helper()
	plan, err := outbox.NewPlan(outbox.Config{Default: mapping}, tables)
	if err != nil {
		tb.Fatal(err)
	}
	return outbox.NewMapper(plan)
}

func header(key, value string) sink.Header { return sink.Header{Key: key, Value: []byte(value)} }

func TestRowBecomesAMessage(t *testing.T) {
	m := mapper(t, "outbox.event.{aggregate_type}")
	got, err := m.Map([]wal.Row{row("f3", "order", "o-1", "placed", `{"n": 1}`, `{"trace": "ü", "n": 1.50, "none": null, "deep": {"a": [1, 2]}}`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []sink.Message{{
		Topic: "outbox.event.order",
		Key:   []byte("o-1"),
		Value: []byte(`{"n": 1}`),
		Time:  time.Unix(1700000000, 0).UTC(),
		Headers: []sink.Header{
			header("id", "f3"), header("event_type", "placed"), header("aggregate_type", "order"),
			header("trace", "ü"), header("n", "1.50"),
			{Key: "none"},
			header("deep", `{"a": [1, 2]}`),
			header("outboxcdc-position", "00000000016B3748/3"),
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestOptionalColumnsMayBeNull(t *testing.T) {
	got, err := mapper(t, "all").Map([]wal.Row{row(nil, "order", "o-1", "placed", nil, nil)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []sink.Message{{
		Topic: "all", Key: []byte("o-1"), Time: time.Unix(1700000000, 0).UTC(),
		Headers: []sink.Header{header("event_type", "placed"), header("aggregate_type", "order"), header("outboxcdc-position", "00000000016B3748/3")},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestWhateverIsTextIsAHeader(t *testing.T) {
	column := `{"\u00fc \ud83d\ude00": "\\ud83d \ufffd � \ud83d\ude00 ü", "deep": ["\ud83d"]}`
	got, err := mapper(t, "all").Map([]wal.Row{row(nil, "order", "o-1", "placed", "{}", column)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []sink.Header{header("ü 😀", `\ud83d � � 😀 ü`), header("deep", `["\ud83d"]`)}
	if diff := cmp.Diff(want, got[0].Headers[2:4]); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestRowsCannotForgeOurHeaders(t *testing.T) {
	forged := `{"outboxcdc-position": "FFFFFFFFFFFFFFFF/0", "OutboxCDC-Position": "x", "outboxcdc-replay": "x", "id": "x", "event_type": "x", "aggregate_type": "x", "mine": "y"}`
	got, err := mapper(t, "all").Map([]wal.Row{row("f3", "order", "o-1", "placed", "{}", forged)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []sink.Header{
		header("id", "f3"), header("event_type", "placed"), header("aggregate_type", "order"),
		header("mine", "y"), header("outboxcdc-position", "00000000016B3748/3"),
	}
	if diff := cmp.Diff(want, got[0].Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestHeadersOfOneBatchDoNotShareMemory(t *testing.T) {
	var rows []wal.Row
	for i := range 100 {
		r := row("f3", "order", "o-1", "placed", "{}", fmt.Sprintf(`{"k": "%d"}`, i))
		r.Index = i
		rows = append(rows, r)
	}
	got, err := mapper(t, "all").Map(rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got {
		if want := fmt.Sprintf("00000000016B3748/%d", i); len(m.Headers) != 5 || string(m.Headers[4].Value) != want || string(m.Headers[3].Value) != fmt.Sprint(i) {
			t.Fatalf("headers of row %d: %q, want its own", i, m.Headers)
		}
	}
}

func TestRowThatCannotBeMappedIsADataErrorThatNamesIt(t *testing.T) {
	const secret = "s3cret"
	for name, r := range map[string]wal.Row{
		"null aggregate_id":        row("f3", "order", nil, "placed", secret, nil),
		"empty aggregate_id":       row("f3", "order", "", "placed", secret, nil),
		"null aggregate_type":      row("f3", nil, "o-1", "placed", secret, nil),
		"empty aggregate_type":     row("f3", "", "o-1", "placed", secret, nil),
		"null event_type":          row("f3", "order", "o-1", nil, secret, nil),
		"headers are an array":     row("f3", "order", "o-1", "placed", secret, `["s3cret"]`),
		"headers are a string":     row("f3", "order", "o-1", "placed", secret, `"s3cret"`),
		"header of half a letter":  row("f3", "order", "o-1", "placed", secret, `{"a": "s3cret \ud83d"}`),
		"header of a second half":  row("f3", "order", "o-1", "placed", secret, `{"a": "\ude00 s3cret"}`),
		"header of a first half":   row("f3", "order", "o-1", "placed", secret, `{"a": "\ud83d\n s3cret"}`),
		"header of wrong halves":   row("f3", "order", "o-1", "placed", secret, `{"a": "\ude00\ud83d s3cret"}`),
		"header that is no UTF-8":  row("f3", "order", "o-1", "placed", secret, "{\"a\": \"s3cret \xe9\"}"),
		"name of a header is none": row("f3", "order", "o-1", "placed", secret, `{"s3cret \ud83d": 1}`),
		"headers are torn":         row("f3", "order", "o-1", "placed", secret, `{"a": "s3cret`),
		"headers are two":          row("f3", "order", "o-1", "placed", secret, `{} {"a": "s3cret"}`),
		"headers are empty":        row("f3", "order", "o-1", "placed", secret, ""),
		"headers are many":         row("f3", "order", "o-1", "placed", secret, manyHeaders(1001)),
		"topic leaves the name":    row("f3", "../etc", "o-1", "placed", secret, nil),
		"topic with a space":       row("f3", "a b", "o-1", "placed", secret, nil),
		"topic too long":           row("f3", strings.Repeat("x", 250), "o-1", "placed", secret, nil),
	} {
		t.Run(name, func(t *testing.T) {
			good := row("f3", "order", "o-1", "placed", "{}", nil)
			got, err := mapper(t, "e.{aggregate_type}").Map([]wal.Row{good, r, good}, nil)
			if err == nil || fault.Classify(err) != fault.Data {
				t.Fatalf("error %v, want a data error", err)
			}
			if len(got) != 1 {
				t.Errorf("%d messages, want the one before the bad row", len(got))
			}
			if text := err.Error(); !strings.Contains(text, "0/16B3748") || !strings.Contains(text, "public.outbox") || strings.Contains(text, secret) {
				t.Errorf("error %q, want position and table and no value", text)
			}
		})
	}
}

func manyHeaders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":1`, i)
	}
	return "{" + b.String()[1:] + "}"
}

func TestRowsCannotReachInternalTopics(t *testing.T) {
	for _, value := range []string{"__consumer_offsets", "__", ".", "..", "a/b", "a\x00b", "ä"} {
		if got, err := mapper(t, "{aggregate_type}").Map([]wal.Row{row("f3", value, "o-1", "placed", "{}", nil)}, nil); err == nil {
			t.Errorf("aggregate type %q reached topic %q", value, got[0].Topic)
		}
	}
}

func TestTemplateIsCheckedBeforeAnyRow(t *testing.T) {
	plan := func(text string) error {
		_, err := outbox.NewPlan(outbox.Config{Default: outbox.Mapping{Topic: text}}, tables)
		return err
	}
	for _, text := range []string{"{", "a{aggregate_type", "a{}", "a b", "__x{event_type}", "a}b", "..", "{aggregate_type}", "{aggregate_type}.x"} {
		if err := plan(text); fault.Classify(err) != fault.Usage || err == nil {
			t.Errorf("template %q: error %v, want a usage error", text, err)
		}
	}
	for _, text := range []string{"", "all", "x{aggregate_type}", "a.{event_type}-b", "A_1", "a.{region}.{event_type}"} {
		if err := plan(text); err != nil {
			t.Errorf("template %q: %v", text, err)
		}
	}
}

func TestMapAllocatesForTheCallNotForTheRow(t *testing.T) {
	if n := allocations(t, mapper(t, "outbox.event.{aggregate_type}")); n > 4 {
		t.Errorf("%v allocations for 500 rows, want 4 at the most", n)
	}
}

// allocations is how many a call of Map makes for 500 rows.
func allocations(t *testing.T, m *outbox.Mapper) float64 {
	t.Helper()
	rows := make([]wal.Row, 500)
	for i := range rows {
		rows[i] = row("f3", "order", "o-1", "placed", "{}", nil)
	}
	messages := make([]sink.Message, 0, len(rows))
	return testing.AllocsPerRun(20, func() {
		if _, err := m.Map(rows, messages); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzHeaders: whatever a row's headers hold, the last header is our position, the
// reserved names appear once, and there is no panic.
func FuzzHeaders(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a": "b"}`, `{"id": 1, "outboxcdc-position": "x"}`, `[1]`, `{"a": {"b": null}}`, `{"a":"\ud800"}`, `{"a":1,"a":2}`} {
		f.Add(seed, "order", "o-1")
	}
	f.Fuzz(func(t *testing.T, headers, kind, id string) {
		got, err := mapper(t, "{aggregate_type}").Map([]wal.Row{row("f3", kind, id, "placed", "{}", headers)}, nil)
		if err != nil {
			return
		}
		if id == "" || strings.HasPrefix(got[0].Topic, "__") {
			t.Fatalf("key %q in topic %q", id, got[0].Topic)
		}
		seen := map[string]int{}
		for _, h := range got[0].Headers {
			seen[strings.ToLower(h.Key)]++
		}
		last := got[0].Headers[len(got[0].Headers)-1]
		if last.Key != outbox.PositionHeader || string(last.Value) != "00000000016B3748/3" || seen[outbox.PositionHeader] != 1 {
			t.Fatalf("headers %q, want one position, the last", got[0].Headers)
		}
	})
}
