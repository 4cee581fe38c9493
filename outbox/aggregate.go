package outbox

import (
	"slices"

	"github.com/outboxcdc/outboxcdc/wal"
)

// Aggregate is whose event a row is, for what must keep the order of one aggregate's
// events. Two rows whose messages have the same topic and key have equal Aggregates.
// The bytes are those of the row.
type Aggregate struct {
	Type []byte // nil where the type does not tell topics apart
	ID   []byte // empty when the row has none; it is then alone
}

// AppendKey appends a text that tells this aggregate from all others: no text of
// Postgres holds a zero byte.
func (a Aggregate) AppendKey(dst []byte) []byte {
	dst = append(dst, a.Type...)
	dst = append(dst, 0)
	return append(dst, a.ID...)
}

// Aggregate is whose event a row is, also when it cannot be mapped. An order 7 and a
// customer 7 are two aggregates where the type alone decides the topic, as it does by
// DefaultTopic; where they may meet in one topic they are one, since there they share a
// key and with it one order.
func (m *Mapper) Aggregate(row *wal.Row) Aggregate {
	a := Aggregate{ID: m.plan.Value(row, RoleAggregateID)}
	if m.plan.typed {
		a.Type = m.plan.Value(row, RoleAggregateType)
	}
	return a
}

// Typed says whether the type tells aggregates apart; see Mapper.Aggregate.
func (p *Plan) Typed() bool { return p.typed }

// typed says whether the topic of a row tells its aggregate's type, in all tables alike:
// every topic is made of the type and nothing else, by one template.
func typed(tables []tablePlan) bool {
	for i := range tables {
		r := &tables[i].router
		kind, _ := tables[i].mapping.column(RoleAggregateType)
		if tables[i].whole || len(r.routes) > 0 || len(r.columns) != 1 || !slices.Equal(r.text, tables[0].router.text) {
			return false
		}
		if name := r.columns[0]; kind == "" || name != string(RoleAggregateType) && name != kind {
			return false
		}
	}
	return len(tables) > 0
}
