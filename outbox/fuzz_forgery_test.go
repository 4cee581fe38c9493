package outbox

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// fuzzPosition is that of a row of fuzzRow.
const fuzzPosition = "00000000016B3748/3"

// fuzzTopics are those that the plans of these tests let a row reach.
const fuzzTopics = `events\..*|_.*|dead\.letters`

// fuzzPlan lets rows name any topic by the aggregate's type, as far as the allow-list
// and what is reserved let them.
func fuzzPlan(tb testing.TB, format Format, mapping Mapping) *Plan {
	tb.Helper()
	mapping.Topic, mapping.Allow = "{aggregate_type}", []string{fuzzTopics}
	mapping.Headers = []HeaderColumn{{Column: "tenant"}}
	plan, err := NewPlan(Config{Format: format, Default: mapping, Reserved: []string{"dead.letters"}}, []wal.Table{{Schema: "public", Name: "outbox"}})
	if err != nil {
		tb.Fatal(err)
	}
	return plan
}

// fuzzRow has the usual columns and the tenant; the bits of nulls make them null.
func fuzzRow(nulls uint8, columns ...[]byte) wal.Row {
	for i := range columns {
		if nulls&(1<<i) != 0 {
			columns[i] = nil
		}
	}
	return wal.Row{Commit: 0x16B3748, Index: 3, XID: 7, Columns: append(columns, []byte("acme"))}
}

// notForged checks what no row may choose: the topic is one that is allowed, the
// position is ours, last and alone, and each header of ours or of the format stands once
// and before those of the headers column.
func notForged(t *testing.T, m *sink.Message, fixed ...string) {
	t.Helper()
	if checkTopic(m.Topic) != nil || m.Topic == "dead.letters" || !strings.HasPrefix(m.Topic, "events.") && !strings.HasPrefix(m.Topic, "_") {
		t.Errorf("topic %q was reached", m.Topic)
	}
	if len(m.Key) == 0 {
		t.Error("there is no key")
	}
	seen := map[string]int{}
	for i, h := range m.Headers {
		switch {
		case i == len(m.Headers)-1:
			if h.Key != PositionHeader || string(h.Value) != fuzzPosition {
				t.Errorf("the last header is %q: %q, want the position", h.Key, h.Value)
			}
		case len(h.Key) >= len(HeaderPrefix) && strings.EqualFold(h.Key[:len(HeaderPrefix)], HeaderPrefix):
			t.Errorf("header %q is forged", h.Key)
		}
		if slices.Contains(fixed, h.Key) {
			seen[h.Key]++
		}
		if seen[h.Key] > 1 {
			t.Errorf("header %q is forged: %q", h.Key, m.Headers)
		}
	}
}

// FuzzCloudEvents writes rows as CloudEvents of both modes. No entry of the headers
// column takes the place of an attribute, and what is structured is JSON whose members
// stand once and are the row's.
func FuzzCloudEvents(f *testing.F) {
	f.Add([]byte("1"), []byte("events.order"), []byte("k1"), []byte("created"), []byte(`{"a":1}`), []byte(`{"ce_id":"forged","CE_type":"forged","Content-Type":"x","outboxcdc-position":"x"}`), uint8(0))
	f.Add([]byte(`","id":"forged`), []byte(`events.o`), []byte("\"\\\u2028"), []byte(`x","type":"y`), []byte(`{"id":"forged"},"id":"forged"`), []byte(`{"tenant":"forged"}`), uint8(0))
	f.Add([]byte(`","id":"forged`), []byte("events.o"), []byte(`k`), []byte(`x","type":"y`), []byte(`{}`), []byte(`{}`), uint8(0))
	f.Add([]byte(""), []byte("__consumer_offsets"), []byte("k"), []byte("\x00"), []byte(" "), []byte(`{"c\u0065_id":"forged"}`), uint8(0))
	f.Add([]byte("\xff"), []byte("dead.letters"), []byte("\xff"), []byte("e"), []byte("1 2"), []byte(`{}`), uint8(1<<atPayload))
	f.Add([]byte("i"), []byte("events.o"), []byte("k"), []byte("e"), []byte("1"), []byte(`{"ce_specversion":"9","ce_subject":"x"}`), uint8(1<<atID))
	binary, structured := fuzzPlan(f, CloudEvents{}, Mapping{}), fuzzPlan(f, CloudEvents{Structured: true}, Mapping{})
	fixed := []string{"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_aggregatetype", "content-type"}
	f.Fuzz(func(t *testing.T, id, kind, key, event, payload, headers []byte, nulls uint8) {
		row := fuzzRow(nulls, id, kind, key, event, payload, headers)
		for _, plan := range []*Plan{binary, structured} {
			got, err := NewMapper(plan).Map([]wal.Row{row}, nil)
			if err != nil {
				checkRefusedRow(t, err, len(got), row.Columns)
				continue
			}
			notForged(t, &got[0], append(fixed, "tenant")...)
			if plan == structured {
				structuredRight(t, &got[0], &row)
				continue
			}
			for _, h := range got[0].Headers {
				if name := strings.ToLower(h.Key); strings.HasPrefix(name, cePrefix) && !slices.Contains(fixed, h.Key) {
					t.Errorf("attribute %q is the row's own", h.Key)
				} else if h.Key == "ce_id" && id != nil && !bytes.Equal(h.Value, row.Columns[atID]) && row.Columns[atID] != nil {
					t.Errorf("ce_id is %q, want %q", h.Value, row.Columns[atID])
				}
			}
		}
	})
}

// structuredRight reads the value as strictly as can be: a member that stands twice is
// read by one consumer as this and by another as that.
func structuredRight(t *testing.T, m *sink.Message, row *wal.Row) {
	t.Helper()
	if !json.Valid(m.Value) {
		t.Fatalf("the value is no JSON: %q", m.Value)
	}
	want := map[string][]byte{"type": row.Columns[atEventType], "id": row.Columns[atID]}
	seen := map[string]bool{}
	o := object{m.Value[1:]}
	for {
		name, value, ok := o.next()
		if !ok {
			break
		}
		text, err := stringValue(name)
		if err != nil || seen[string(text)] {
			t.Errorf("member %q stands twice, or is no text: %q", name, m.Value)
		}
		seen[string(text)] = true
		if is := want[string(text)]; is != nil {
			if got, err := stringValue(value); err != nil || !bytes.Equal(got, is) {
				t.Errorf("member %s is %q, want the row's %q", text, value, is)
			}
		}
	}
	if seen["data"] == (row.Columns[atPayload] == nil) || !seen["id"] || !seen["type"] || !seen["source"] {
		t.Errorf("members are missing, or there is data of nothing: %q", m.Value)
	}
}

// FuzzTombstones maps payloads of every kind. A value is null only where a null was
// asked for: a tombstone that a row did not mean would delete a key for good.
func FuzzTombstones(f *testing.F) {
	for _, payload := range []string{"", " ", "\t\r\n ", "null", `\x`, `\x20`, `\x00ff`, `\xg0`, "\u00a0", "\x00", `""`} {
		f.Add([]byte(payload), false)
		f.Add([]byte(payload), true)
	}
	plans := map[Tombstones]*Plan{}
	for _, kind := range []Tombstones{NullTombstones, EmptyTombstones, NoTombstones} {
		plans[kind] = fuzzPlan(f, Native{}, Mapping{Tombstones: kind})
	}
	places := []int{0, 1, 2, 3, 4, 5, 6}
	text := &wal.Shape{Columns: []wal.ColumnShape{4: {TypeName: "text"}, 6: {}}, Read: places}
	bytea := &wal.Shape{Columns: []wal.ColumnShape{4: {TypeName: "bytea"}, 6: {}}, Read: places}
	f.Fuzz(func(t *testing.T, payload []byte, null bool) {
		for kind, plan := range plans {
			for _, shape := range []*wal.Shape{text, bytea} {
				nulls := uint8(0)
				if null {
					nulls = 1 << atPayload
				}
				row := fuzzRow(nulls, []byte("1"), []byte("events.o"), []byte("k"), []byte("e"), payload, nil)
				row.Shape = shape
				got, err := NewMapper(plan).Map([]wal.Row{row}, nil)
				if err != nil {
					if fault.Classify(err) != fault.Data || shape == text && (kind != NoTombstones || !null) {
						t.Errorf("kind %d, null %v, payload %q: %v", kind, null, payload, err)
					}
					continue
				}
				notForged(t, &got[0], headerID, headerEventType, headerAggregateType, "tenant")
				want := row.Columns[atPayload]
				if shape == bytea && want != nil {
					if want, err = hex.DecodeString(string(want[2:])); err != nil {
						t.Errorf("%q was taken for bytes", payload)
					}
				}
				if kind == EmptyTombstones && !slices.ContainsFunc(want, func(c byte) bool { return c > ' ' }) {
					want = nil
				}
				value := got[0].Value
				if (value == nil) != (want == nil) || !bytes.Equal(value, want) || want == nil && kind == NoTombstones {
					t.Errorf("kind %d, null %v, payload %q: the value is %q, want %q", kind, null, payload, value, want)
				}
			}
		}
	})
}
