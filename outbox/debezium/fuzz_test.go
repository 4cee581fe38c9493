package debezium

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// fuzzed are formats that let a row name any topic, and what names headers have then.
var fuzzed = []struct {
	options []Option
	headers []string
}{
	{[]Option{{"value.converter", "string"}, {"extended.headers.enabled", "false"}}, []string{"id", "eventType", "c"}},
	{[]Option{{"value.converter", "json"}, {"value.converter.schemas.enable", "false"}, {"table.expand.json.payload", "true"}}, []string{"id", "eventType", "c"}},
	{[]Option{{"value.converter", "json"}, {"key.converter", "json"}}, []string{"id", "eventType", "c"}},
}

// FuzzForgery maps rows of any text in Debezium's form. No row leaves the allow-list,
// reaches an internal topic or one of ours, adds a header that no placement names, or
// gets another's topic.
func FuzzForgery(f *testing.F) {
	f.Add("1", "events.order", "k", "placed", `{"a":1}`, "c")
	f.Add("1", "__consumer_offsets", "k", "e", `{"a":[1,{"b":null}]}`, "outboxcdc-position")
	f.Add("x\",\"id\":\"y", "events.o\n__x", "k\x00", "\xff", `{"a":1,"a":2}`, `","id":"`)
	f.Add("", "events.", "", "", "", "")
	f.Add("1", "positions", "k", "e", `[]`, "")
	f.Add("1", "events.o/../__x", "k", "e", `{"schema":{},"payload":1}`, "\\")
	legal := regexp.MustCompile(`\A(events\.[a-zA-Z0-9._-]*|_([a-zA-Z0-9.-][a-zA-Z0-9._-]*)?)\z`)
	plans := make([]*outbox.Plan, len(fuzzed))
	for i, c := range fuzzed {
		plans[i] = fuzzPlan(f, c.options)
	}
	f.Fuzz(func(t *testing.T, id, kind, key, event, payload, column string) {
		for i, plan := range plans {
			m := outbox.NewMapper(plan)
			values := map[string]string{"id": id, "aggregatetype": kind, "aggregateid": key, "type": event, "payload": payload, "c": column}
			swapped := maps.Clone(values)
			swapped["aggregatetype"], swapped["type"] = event, kind
			rows := []wal.Row{fuzzRow(plan, values), fuzzRow(plan, swapped)}
			for r := range rows {
				got, err := m.Map(rows[r:r+1], nil)
				if err != nil {
					if class := fault.Classify(err); class != fault.Data || len(got) != 0 {
						t.Errorf("%d messages and an error of class %v: %v", len(got), class, err)
					}
					continue
				}
				named := []string{kind, event}[r]
				if topic := got[0].Topic; topic != named || !legal.MatchString(topic) || topic == "_positions" || len(topic) > 249 {
					t.Errorf("%q reached topic %q", named, topic)
				}
				ids := 0
				for _, h := range got[0].Headers {
					if !slices.Contains(fuzzed[i].headers, h.Key) && !strings.HasPrefix(h.Key, "__debezium") {
						t.Errorf("header %q is named by no placement", h.Key)
					}
					if h.Key == "id" {
						ids++
					}
				}
				if ids != 1 {
					t.Errorf("%d headers are the id: %q", ids, got[0].Headers)
				}
			}
		}
	})
}

func fuzzPlan(tb testing.TB, more []Option) *outbox.Plan {
	tb.Helper()
	options, err := ParseOptions(append([]Option{
		{"topic.prefix", "golden"},
		{"route.topic.replacement", "${routedByValue}"},
		{"table.fields.additional.placement", "type:header:eventType,c:header"},
	}, more...))
	if err != nil {
		tb.Fatal(err)
	}
	format, err := New(options, "00000000-0000-0000-0000-000000000000")
	if err != nil {
		tb.Fatal(err)
	}
	config := outbox.Config{Format: format, Default: format.Mapping(), WithoutPosition: true, Reserved: []string{"_positions"}}
	config.Default.Allow = []string{`events\..*`, "_.*"}
	plan, err := outbox.NewPlan(config, []wal.Table{{Schema: "public", Name: "outbox"}})
	if err != nil {
		tb.Fatal(err)
	}
	return plan
}

func fuzzRow(plan *outbox.Plan, values map[string]string) wal.Row {
	shape := &wal.Shape{Schema: "public", Name: "outbox"}
	row := wal.Row{Commit: 0x16B3748, Shape: shape}
	for i, c := range plan.Tables()[0].Columns {
		shape.Columns = append(shape.Columns, wal.ColumnShape{Name: c.Name, Modifier: -1, TypeName: "text"})
		shape.Read = append(shape.Read, i)
		row.Columns = append(row.Columns, []byte(values[c.Name]))
	}
	return row
}
