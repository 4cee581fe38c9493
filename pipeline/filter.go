package pipeline

import (
	"errors"
	"fmt"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Filter chooses rows by the aggregate that they are about. Empty fields choose all.
type Filter struct {
	AggregateType string `json:"aggregate_type,omitempty"`
	AggregateID   string `json:"aggregate_id,omitempty"`
}

// demand is one of a filter's fields.
type demand struct {
	role  outbox.Role
	value string
}

func (f Filter) demands() []demand {
	var all []demand
	for _, d := range []demand{{outbox.RoleAggregateType, f.AggregateType}, {outbox.RoleAggregateID, f.AggregateID}} {
		if d.value != "" {
			all = append(all, d)
		}
	}
	return all
}

// check refuses a filter by what a table has no column for.
func (f Filter) check(plan *outbox.Plan, tables []wal.Table) error {
	var errs []error
	for _, d := range f.demands() {
		for i, t := range tables {
			if plan.Column(i, d.role) < 0 {
				errs = append(errs, fault.NewUsage(fmt.Errorf("table %s.%s has no column for %s to choose rows by", t.Schema, t.Name, d.role), "name it with --column, or leave the filter out"))
			}
		}
	}
	return errors.Join(errs...)
}

// keeper is the filter for rows of a plan's tables.
func (f Filter) keeper(plan *outbox.Plan) func(row *wal.Row) bool {
	demands := f.demands()
	return func(row *wal.Row) bool {
		for _, d := range demands {
			if string(plan.Value(row, d.role)) != d.value {
				return false
			}
		}
		return true
	}
}

// bounds is the filter for one of a plan's tables.
func (f Filter) bounds(plan *outbox.Plan, table int) []wal.Bound {
	var bounds []wal.Bound
	for _, d := range f.demands() {
		name := plan.Tables()[table].Columns[plan.Column(table, d.role)].Name
		bounds = append(bounds, wal.Bound{Column: name, From: d.value, To: d.value})
	}
	return bounds
}
