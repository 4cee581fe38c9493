package outbox

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// FuzzTopic lets a row name its topic, through routes that pass on whatever they are
// given. No row leaves the allow-list or reaches a topic that is internal or ours, and
// what is remembered of a row is no other row's.
func FuzzTopic(f *testing.F) {
	for _, seed := range [][2]string{
		{"order", "eu"},
		{"__consumer_offsets", ""},
		{"", "__x"},
		{"_", "_transaction_state"},
		{"dead", "letters"},
		{".", "."},
		{"a\x00", "b"},
		{"a", "\x00b"},
		{"order\n", "__x"},
		{"order.$1", "eu"},
		{"../x", "eu"},
		{strings.Repeat("o", 250), "e"},
		{"x-__", "y"},
		{"ö", "\xff"},
	} {
		f.Add(seed[0], seed[1], seed[1], seed[0])
	}
	legal := regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	allowed := regexp.MustCompile(`^(orders[^\n]*|_[^\n]*|dead\.letters|x-[^\n]*)$`)
	plan, err := NewPlan(Config{
		Default: Mapping{
			Topic:  "{a}.{b}",
			Routes: []Route{{`x-(.*)\.(.*)`, "$1$2"}, {`(?s)(.)(.*)\.y`, "${1}_$2"}, {`(?s)(.*)`, "$1"}},
			Allow:  []string{"orders.*", "_.*", `dead\.letters`, "x-.*"},
		},
		Reserved: []string{"dead.letters"},
	}, []wal.Table{{Name: "outbox"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a1, b1, a2, b2 string) {
		m := NewMapper(plan)
		for _, c := range [][2]string{{a1, b1}, {a2, b2}, {a1, b1}} {
			row := wal.Row{Columns: [][]byte{nil, []byte("t"), []byte("k"), []byte("e"), nil, nil, []byte(c[0]), []byte(c[1])}}
			got, err := m.Map([]wal.Row{row}, nil)
			fresh, freshErr := NewMapper(plan).Map([]wal.Row{row}, nil)
			if (err == nil) != (freshErr == nil) || err == nil && got[0].Topic != fresh[0].Topic {
				t.Fatalf("%q went to %+v, %v, and with nothing remembered to %+v, %v", c, got, err, fresh, freshErr)
			}
			if err != nil {
				continue
			}
			topic := got[0].Topic
			if !legal.MatchString(topic) || !allowed.MatchString(topic) || strings.HasPrefix(topic, "__") || topic == "dead.letters" || topic == "." || topic == ".." {
				t.Fatalf("%q reached topic %q", c, topic)
			}
		}
	})
}

// FuzzMessage maps the content of a logical message, which any role may write that was
// not kept from it. Whatever it is, there is no panic, what is no event is a data
// error, and our headers are ours.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		`{"aggregate_type":"o","aggregate_id":"1","event_type":"e","payload":1,"headers":{"OUTBOXCDC-Position":"y","a":"b"}}`,
		`{"aggregate_type":"o","aggregate_id":"1","event_type":"e","payload":{"a":1},"headers":{"outboxcdc-position":"x","OUTBOXCDC-position":"y","id":"z"}}`,
		`{"aggregate_type":"__x","aggregate_id":1,"event_type":true,"payload":null,"id":"\ud800"}`,
		`{"aggregate_id":"a","aggregate_id":"b","aggregate_type":"o\u0000","event_type":"e","headers":{"a":"\ud800"}}`,
		`[]`, ``, "\xff", `{`, `{}{}`, `{"aggregate_id":{}}`, `{"payload":1e999}`, `{"headers":[]}`, `"x"`,
	} {
		f.Add([]byte(seed))
	}
	plan, err := NewPlan(Config{Messages: &Mapping{Topic: "events.{aggregate_type}", Headers: []HeaderColumn{{Column: "tenant"}}}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		row := wal.Row{Commit: 0xFF, Alone: true, Columns: [][]byte{content}}
		got, err := NewMapper(plan).Map([]wal.Row{row}, nil)
		if err != nil {
			if fault.Classify(err) != fault.Data || len(got) != 0 {
				t.Errorf("%d messages and an error of class %v: %v", len(got), fault.Classify(err), err)
			}
			return
		}
		m := got[0]
		if !utf8.Valid(content) || len(m.Key) == 0 || !utf8.Valid(m.Key) || m.Value != nil && !json.Valid(m.Value) || !strings.HasPrefix(m.Topic, "events.") || checkTopic(m.Topic) != nil {
			t.Errorf("topic %q, key %q, value %q", m.Topic, m.Key, m.Value)
		}
		for i, h := range m.Headers {
			last := i == len(m.Headers)-1
			if strings.HasPrefix(strings.ToLower(h.Key), HeaderPrefix) != last || last && string(h.Value) != "00000000000000FF/0" || h.Key == "tenant" && i != 2 && i != 3 {
				t.Errorf("header %d is %q: %q", i, h.Key, h.Value)
			}
		}
	})
}
