package outbox_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// mapOne maps a row with the columns of the roles and then others.
func mapOne(t *testing.T, mapping outbox.Mapping, columns ...any) (sink.Message, error) {
	t.Helper()
	got, err := mapperOf(t, mapping).Map([]wal.Row{row(columns...)}, nil)
	if err != nil {
		return sink.Message{}, err
	}
	return got[0], nil
}

func TestColumnsMayHaveAnyNames(t *testing.T) {
	mapping := outbox.Mapping{
		Topic:     "events.{region}.{aggregate_type}",
		Columns:   map[outbox.Role]string{outbox.RoleAggregateID: "aggregateid", outbox.RoleEventType: "", outbox.RoleHeaders: ""},
		Partition: "part", Timestamp: "at",
		Headers: []outbox.HeaderColumn{{Column: "region"}, {Column: "tenant", Header: "x-tenant"}},
	}
	plan, err := outbox.NewPlan(outbox.Config{Default: mapping}, tables)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range plan.Tables()[0].Columns {
		names = append(names, c.Name)
		if !c.Required && c.Name != "id" {
			t.Errorf("column %s was chosen and may be missing", c.Name)
		}
	}
	if want := "id aggregate_type aggregateid payload part at region tenant"; strings.Join(names, " ") != want {
		t.Fatalf("columns %q, want %q", names, want)
	}
	got, err := mapOne(t, mapping, "f3", "order", "o-1", "{}", "5", "2024-05-06 07:08:09.5+00", "eu", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := sink.Message{
		Topic: "events.eu.order", Key: []byte("o-1"), Value: []byte("{}"),
		Time: time.Date(2024, 5, 6, 7, 8, 9, 500_000_000, time.UTC), Partition: 5, Placed: true,
		Headers: []sink.Header{header("id", "f3"), header("aggregate_type", "order"), header("region", "eu"), {Key: "x-tenant"}, header("outboxcdc-position", "00000000016B3748/3")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestWithoutPartitionOrTimeTheKeyAndTheCommitDecide(t *testing.T) {
	got, err := mapOne(t, outbox.Mapping{Topic: "all", Partition: "part", Timestamp: "at"}, "f3", "order", "o-1", "e", "{}", nil, nil, nil)
	if err != nil || got.Placed || !got.Time.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("placed %v at %v: %v", got.Placed, got.Time, err)
	}
}

func TestTimesOfEveryTypeAreRead(t *testing.T) {
	want := time.Date(2024, 5, 6, 7, 8, 9, 123_456_000, time.UTC)
	for text, want := range map[string]time.Time{
		"2024-05-06 07:08:09.123456+00": want, "2024-05-06 07:08:09.123456": want, "2024-05-06": time.Date(2024, 5, 6, 0, 0, 0, 0, time.UTC),
		"1714979289123": want.Truncate(time.Millisecond), "1970-01-01 00:00:00+00": time.Unix(0, 0).UTC(),
	} {
		got, err := mapOne(t, outbox.Mapping{Topic: "all", Timestamp: "at"}, "f3", "order", "o-1", "e", "{}", nil, text)
		if err != nil || !got.Time.Equal(want) {
			t.Errorf("%s is %v, want %v: %v", text, got.Time, want, err)
		}
	}
}

func TestTombstonesAreByChoice(t *testing.T) {
	null := []byte(nil)
	for _, c := range []struct {
		kind    outbox.Tombstones
		payload any
		want    []byte
		refused bool
	}{
		{outbox.NullTombstones, nil, null, false},
		{outbox.NullTombstones, "", []byte{}, false},
		{outbox.NullTombstones, " \t", []byte(" \t"), false},
		{outbox.EmptyTombstones, nil, null, false},
		{outbox.EmptyTombstones, "", null, false},
		{outbox.EmptyTombstones, " \t\n", null, false},
		{outbox.EmptyTombstones, "\u00a0", []byte("\u00a0"), false},
		{outbox.NoTombstones, nil, null, true},
		{outbox.NoTombstones, "", []byte{}, false},
	} {
		got, err := mapOne(t, outbox.Mapping{Topic: "all", Tombstones: c.kind}, "f3", "order", "o-1", "e", c.payload, nil)
		if refused := fault.Classify(err) == fault.Data; refused != c.refused || err == nil && (!bytes.Equal(got.Value, c.want) || (got.Value == nil) != (c.want == nil)) {
			t.Errorf("kind %v, payload %q: value %q, error %v", c.kind, c.payload, got.Value, err)
		}
	}
}

func TestBytesArriveAsBytes(t *testing.T) {
	m := mapperOf(t, outbox.Mapping{Topic: "all"})
	r := row("f3", "order", `\x00ff`, "e", `\x`, nil)
	r.Shape = &wal.Shape{Columns: []wal.ColumnShape{{TypeName: "bytea"}, {TypeName: "text"}}, Read: []int{-1, 1, 0, 1, 0, -1}}
	got, err := m.Map([]wal.Row{r}, nil)
	if err != nil || string(got[0].Key) != "\x00\xff" || got[0].Value == nil || len(got[0].Value) != 0 {
		t.Errorf("got %+v, error %v; want the bytes 00 ff and none", got, err)
	}
	if string(r.Columns[2]) != `\x00ff` {
		t.Errorf("the row was changed to %q", r.Columns[2])
	}
	torn := row("f3", "order", `\x0`, "e", `\x`, nil)
	torn.Shape = r.Shape
	if _, err := m.Map([]wal.Row{torn}, nil); fault.Classify(err) != fault.Data || err == nil {
		t.Errorf("torn bytes: %v, want a data error", err)
	}
	// Without its type, text that looks like bytes is text.
	text := row("f3", "order", "k", "e", `\x6869`, nil)
	if got, err := m.Map([]wal.Row{text}, nil); err != nil || string(got[0].Value) != `\x6869` {
		t.Errorf("text became %+v: %v", got, err)
	}
}

func TestRoutesAndAllowListBoundWhatARowCanReach(t *testing.T) {
	mapping := outbox.Mapping{
		Topic:  "{aggregate_type}",
		Routes: []outbox.Route{{Pattern: "legacy-(?<name>[a-z]+)", Replacement: "old.${name}"}, {Pattern: "[a-z_.]+", Replacement: "new.$0"}},
		Allow:  []string{"old\\..*", "new\\.(order|invoice|dead)"},
	}
	plan, err := outbox.NewPlan(outbox.Config{Default: mapping, Reserved: []string{"new.dead"}}, tables)
	if err != nil {
		t.Fatal(err)
	}
	m := outbox.NewMapper(plan)
	for kind, want := range map[string]string{
		"legacy-order": "old.order", "order": "new.order", "invoice": "new.invoice",
		"payment": "", "dead": "", "legacy-order2": "", "xlegacy-order": "", "ORDER": "", "order\nx": "", "": "",
	} {
		for range 2 { // the second time from memory
			got, err := m.Map([]wal.Row{row("f3", kind, "o-1", "e", "{}", nil)}, nil)
			switch {
			case want == "" && (fault.Classify(err) != fault.Data || err == nil):
				t.Errorf("%q reached %+v: %v", kind, got, err)
			case want != "" && (err != nil || got[0].Topic != want):
				t.Errorf("%q went to %+v, want %q: %v", kind, got, want, err)
			}
		}
	}
}

func TestNamesOfSeveralColumnsAreKeptApart(t *testing.T) {
	m := mapperOf(t, outbox.Mapping{Topic: "{a}.{b}", Routes: []outbox.Route{{Pattern: `(.*?)\.(.*)`, Replacement: "t-${1}-$2"}}})
	for _, c := range [][3]string{{"x", "y.z", "t-x-y.z"}, {"x.y", "z", "t-x-y.z"}, {"xy", "z", "t-xy-z"}, {"x", "yz", "t-x-yz"}} {
		got, err := m.Map([]wal.Row{row("f3", "order", "o-1", "e", "{}", nil, c[0], c[1])}, nil)
		if err != nil || got[0].Topic != c[2] {
			t.Errorf("%q and %q gave %+v, want %q: %v", c[0], c[1], got, c[2], err)
		}
	}
}

func TestATablesOwnMappingTakesThePlaceOfTheDefault(t *testing.T) {
	two := []wal.Table{{Schema: "public", Name: "outbox"}, {Schema: "sales", Name: "events"}}
	plan, err := outbox.NewPlan(outbox.Config{
		Default: outbox.Mapping{Topic: "general"},
		Tables: map[outbox.TableName]outbox.Mapping{
			{Schema: "sales", Name: "events"}: {Topic: "sales", Columns: map[outbox.Role]string{outbox.RolePayload: "body", outbox.RoleID: "", outbox.RoleHeaders: ""}},
		},
	}, two)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"general", "sales"}, plan.Topics()); diff != "" {
		t.Errorf("topics (-want +got):\n%s", diff)
	}
	sales := row("order", "o-2", "e", "body")
	sales.Table = 1
	got, err := outbox.NewMapper(plan).Map([]wal.Row{row("f3", "order", "o-1", "e", "{}", nil), sales}, nil)
	if err != nil || got[0].Topic != "general" || got[1].Topic != "sales" || string(got[1].Value) != "body" || string(got[1].Key) != "o-2" {
		t.Errorf("got %+v, error %v", got, err)
	}
}

func TestBadMappingsAreRefusedWithTheWayOut(t *testing.T) {
	for name, config := range map[string]outbox.Config{
		"unknown role":          {Default: outbox.Mapping{Columns: map[outbox.Role]string{"key": "k"}}},
		"no key":                {Default: outbox.Mapping{Columns: map[outbox.Role]string{outbox.RoleAggregateID: ""}}},
		"no payload":            {Default: outbox.Mapping{Columns: map[outbox.Role]string{outbox.RolePayload: ""}}},
		"topic of no column":    {Default: outbox.Mapping{Columns: map[outbox.Role]string{outbox.RoleAggregateType: ""}}},
		"bad route":             {Default: outbox.Mapping{Routes: []outbox.Route{{Pattern: "(", Replacement: "x"}}}},
		"unknown group":         {Default: outbox.Mapping{Routes: []outbox.Route{{Pattern: "(.*)", Replacement: "x.$1y"}}}},
		"unknown named group":   {Default: outbox.Mapping{Routes: []outbox.Route{{Pattern: "(.*)", Replacement: "x.${name}"}}}},
		"bad allow":             {Default: outbox.Mapping{Allow: []string{"["}}},
		"static not allowed":    {Default: outbox.Mapping{Topic: "all", Allow: []string{"al"}}},
		"static reserved":       {Default: outbox.Mapping{Topic: "all"}, Reserved: []string{"all"}},
		"header is ours":        {Default: outbox.Mapping{Headers: []outbox.HeaderColumn{{Column: "c", Header: "OutboxCDC-Position"}}}},
		"header is the formats": {Default: outbox.Mapping{Headers: []outbox.HeaderColumn{{Column: "id"}}}},
		"header twice":          {Default: outbox.Mapping{Headers: []outbox.HeaderColumn{{Column: "a", Header: "h"}, {Column: "b", Header: "h"}}}},
		"header without column": {Default: outbox.Mapping{Headers: []outbox.HeaderColumn{{Header: "h"}}}},
		"foreign table":         {Tables: map[outbox.TableName]outbox.Mapping{{Schema: "x", Name: "y"}: {}}},
	} {
		_, err := outbox.NewPlan(config, tables)
		if fault.Classify(err) != fault.Usage || err == nil || !strings.Contains(err.Error(), ": ") {
			t.Errorf("%s: %v, want a usage error with its way out", name, err)
		}
	}
}

func TestValuesThatAreNoPartitionOrTimeAreDataErrors(t *testing.T) {
	for _, text := range []string{"", "-1", "x", "1.0", "2147483648", "0x1"} {
		if m, err := mapOne(t, outbox.Mapping{Topic: "all", Partition: "p"}, "f3", "order", "o-1", "e", "{}", nil, text); fault.Classify(err) != fault.Data || err == nil {
			t.Errorf("partition %q became %d: %v", text, m.Partition, err)
		}
	}
	for _, text := range []string{"", "-1", "infinity", "-infinity", "1969-12-31 23:59:59+00", "0044-03-15 00:00:00+00 BC", "2024-05-06 07:08", "now"} {
		if m, err := mapOne(t, outbox.Mapping{Topic: "all", Timestamp: "at"}, "f3", "order", "o-1", "e", "{}", nil, text); fault.Classify(err) != fault.Data || err == nil {
			t.Errorf("time %q became %v: %v", text, m.Time, err)
		}
	}
}

func TestAHeaderOfAColumnCannotBeForgedByAnEntry(t *testing.T) {
	got, err := mapOne(t, outbox.Mapping{Topic: "all", Headers: []outbox.HeaderColumn{{Column: "tenant"}}},
		"f3", "order", "o-1", "e", "{}", `{"tenant": "forged", "mine": "y"}`, "real")
	if err != nil {
		t.Fatal(err)
	}
	want := []sink.Header{header("tenant", "real"), header("mine", "y")}
	if diff := cmp.Diff(want, got.Headers[3:5]); diff != "" || len(got.Headers) != 6 {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}
