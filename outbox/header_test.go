package outbox_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// decoded is what Go's decoder makes of a headers column that can be mapped.
func decoded(tb testing.TB, column string) (headers []sink.Header) {
	tb.Helper()
	j := json.NewDecoder(bytes.NewReader([]byte(column)))
	must := func(err error) {
		if err != nil {
			tb.Fatalf("column %q was mapped, and is no JSON object: %v", column, err)
		}
	}
	_, err := j.Token()
	must(err)
	for j.More() {
		key, err := j.Token()
		must(err)
		var raw json.RawMessage
		must(j.Decode(&raw))
		value := []byte(raw)
		switch raw[0] {
		case '"':
			var text string
			must(json.Unmarshal(raw, &text))
			value = []byte(text)
		case 'n':
			value = nil
		}
		name, _ := key.(string)
		headers = append(headers, sink.Header{Key: name, Value: value})
	}
	return headers
}

// FuzzJSONHeaders: our walk through a headers column finds what Go's decoder
// finds.
func FuzzJSONHeaders(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { } `, `{"a":"b","c":1.50 ,"d":true}`, "{\n\t\"a\" : [ 1, {\"b\": \"]}\\\"\"} ] , \"e\\u0041\" : \"\\n\" }",
		`{"a":{"b":{}},"c":[],"d":"","e":null,"f":-1e9}`, `{"a":1,"a":2}`, `{"":""}`, `{"a\"b":"\\"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, column string) {
		got, err := mapper(t, "all").Map([]wal.Row{row(nil, "order", "o-1", "placed", "{}", column)}, nil)
		if err != nil {
			return
		}
		var want []sink.Header
		for _, h := range decoded(t, column) {
			switch {
			case outbox.Native{}.Reserved(h.Key), len(h.Key) >= len(outbox.HeaderPrefix) && bytes.EqualFold([]byte(h.Key[:len(outbox.HeaderPrefix)]), []byte(outbox.HeaderPrefix)):
			default:
				want = append(want, h)
			}
		}
		entries := got[0].Headers[2 : len(got[0].Headers)-1]
		if len(want) == 0 && len(entries) == 0 {
			return
		}
		if diff := cmp.Diff(want, entries); diff != "" {
			t.Errorf("headers of %q (-decoded +mapped):\n%s", column, diff)
		}
	})
}

func TestHeadersOfARowAllocateNothing(t *testing.T) {
	m := mapper(t, "all")
	rows := make([]wal.Row, 500)
	for i := range rows {
		rows[i] = row("f3", "order", "o-1", "placed", "{}", `{"trace": "00-ab", "n": 1.50, "deep": {"a": [1, 2]}}`)
	}
	messages := make([]sink.Message, 0, len(rows))
	if n := testing.AllocsPerRun(20, func() {
		if _, err := m.Map(rows, messages); err != nil {
			t.Fatal(err)
		}
	}); n > float64(8+detectorAllocations*len(rows)) {
		t.Errorf("%v allocations for %d rows with headers, want 8 at the most, and %d a row for the race detector", n, len(rows), detectorAllocations)
	}
}
