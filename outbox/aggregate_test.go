package outbox_test

import (
	"bytes"
	"testing"

	"github.com/outboxcdc/outboxcdc/outbox"
)

func TestRowsThatMayMeetUnderOneKeyAreOneAggregate(t *testing.T) {
	order := row("f1", "order", "7", "placed", "{}", nil)
	customer := row("f2", "customer", "7", "named", "{}", nil)
	for _, c := range []struct {
		name    string
		mapping outbox.Mapping
		one     bool
	}{
		{"a topic for each type", outbox.Mapping{}, false},
		{"one topic", outbox.Mapping{Topic: "all"}, true},
		{"a topic for each event type", outbox.Mapping{Topic: "e.{event_type}"}, true},
		{"types that run into one another", outbox.Mapping{Topic: "e.{aggregate_type}{event_type}"}, true},
		{"types that routes may join", outbox.Mapping{Topic: "e.{aggregate_type}", Routes: []outbox.Route{{Pattern: ".*", Replacement: "all"}}}, true},
	} {
		m := mapperOf(t, c.mapping)
		a, b := m.Aggregate(&order).AppendKey(nil), m.Aggregate(&customer).AppendKey(nil)
		if one := bytes.Equal(a, b); one != c.one {
			t.Errorf("%s: one aggregate: %v, want %v", c.name, one, c.one)
		}
	}
}

func TestAnAggregateIsKnownOfARowThatCannotBeMapped(t *testing.T) {
	m := mapperOf(t, outbox.Mapping{})
	bad := row("f1", "order", "7", nil, "{}", nil)
	good := row("f1", "order", "7", "placed", "{}", nil)
	if a, b := m.Aggregate(&bad).AppendKey(nil), m.Aggregate(&good).AppendKey(nil); !bytes.Equal(a, b) {
		t.Errorf("aggregate %q, want that of its neighbour, %q", a, b)
	}
	none := row("f1", "order", nil, "placed", "{}", nil)
	if a := m.Aggregate(&none); len(a.ID) > 0 {
		t.Errorf("a row without an aggregate_id has the aggregate %q", a.ID)
	}
}

// A message is no row of columns, and one that is no event is nobody's.
func TestAMessageIsOfItsAggregateToo(t *testing.T) {
	plan, err := outbox.NewPlan(outbox.Config{Messages: &outbox.Mapping{}}, tables)
	if err != nil {
		t.Fatal(err)
	}
	m := outbox.NewMapper(plan)
	inTable := row("f1", "order", "7", "placed", "{}", nil)
	for content, want := range map[string]string{
		`{"aggregate_type": "order", "aggregate_id": "7"}`: string(m.Aggregate(&inTable).AppendKey(nil)),
		`no event`: "\x00",
	} {
		r := row(content)
		r.Table = len(tables)
		if got := string(m.Aggregate(&r).AppendKey(nil)); got != want {
			t.Errorf("message %s has the aggregate %q, want %q", content, got, want)
		}
	}
}
