package outbox

import (
	"bytes"
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// FuzzRow maps a row of any columns. Whatever is in them, there is no panic, a row that
// cannot be mapped is a data error that shows none of its values, and a message carries
// the row's own bytes, a topic that Kafka allows, and our position exactly once.
func FuzzRow(f *testing.F) {
	f.Add([]byte("1"), []byte("order"), []byte("k1"), []byte("created"), []byte(`{"a":1}`), []byte(`{"h":"v"}`), uint8(0))
	f.Add([]byte("1"), []byte("order"), []byte("k"), []byte("e"), []byte("{}"), []byte(`{"OutboxCDC-Position":"x","event_type":"forged","id":"forged"}`), uint8(0))
	f.Add([]byte("1"), []byte(".."), []byte("k"), []byte("e"), []byte("{}"), []byte(`[]`), uint8(0))
	f.Add([]byte("1"), []byte("__consumer_offsets"), []byte(""), []byte("e"), []byte(""), []byte(`{"OUTBOXCDC-position":"x"}`), uint8(0))
	f.Add([]byte(""), []byte("a b"), []byte("\x00\xff"), []byte("\xc3\x28"), []byte("\\ud800"), []byte(`{"a":"\ud800","a":1}`), uint8(0))
	f.Add([]byte("1"), []byte("order"), []byte("k1"), []byte("created"), []byte("x"), []byte("x"), uint8(1<<atPayload|1<<atHeaders|1<<atID))
	f.Fuzz(func(t *testing.T, id, kind, key, event, payload, headers []byte, nulls uint8) {
		columns := [][]byte{id, kind, key, event, payload, headers}
		for i := range columns {
			if nulls&(1<<i) != 0 {
				columns[i] = nil
			}
		}
		plan, err := NewPlan(Config{}, []wal.Table{{Schema: "public", Name: "outbox"}})
		if err != nil {
			t.Fatal(err)
		}
		row := wal.Row{Commit: 0x16B3748, Index: 3, XID: 7, Columns: columns}
		messages, err := NewMapper(plan).Map([]wal.Row{row}, nil)
		if err != nil {
			checkRefusedRow(t, err, len(messages), columns)
			return
		}
		m := messages[0]
		if !bytes.Equal(m.Key, columns[atAggregateID]) || !bytes.Equal(m.Value, columns[atPayload]) || (m.Value == nil) != (columns[atPayload] == nil) {
			t.Errorf("key %q and value %q are not the row's", m.Key, m.Value)
		}
		if err := checkTopic(m.Topic); err != nil || len(m.Key) == 0 {
			t.Errorf("topic %q, key %q: %v", m.Topic, m.Key, err)
		}
		m.Topic = "events.o" // which notForged asks for; the real one was checked above
		notForged(t, &m, headerID, headerEventType, headerAggregateType)
	})
}

func checkRefusedRow(t *testing.T, err error, mapped int, columns [][]byte) {
	t.Helper()
	if fault.Classify(err) != fault.Data || mapped != 0 {
		t.Errorf("%d messages and an error of class %v: %v", mapped, fault.Classify(err), err)
	}
	const telling = 24 // a shorter value may stand in our own words by chance
	for _, c := range [][]byte{columns[atAggregateID], columns[atPayload], columns[atHeaders]} {
		if len(c) >= telling && strings.Contains(err.Error(), string(c)) {
			t.Errorf("the error shows a value: %v", err)
		}
	}
}
