package pipeline

import (
	"bytes"
	"context"

	"github.com/outboxcdc/outboxcdc/wal"
)

// rekey makes parked rows those of the aggregates that they are of now. A stream may be
// started again with other topics: where the type alone told them apart and does no
// longer, or the other way round, an aggregate has another key, and what comes next of it
// would find nothing that it must wait behind. done says that some were changed.
func (a *aside) rekey(ctx context.Context, heads []wal.ParkedHead) (done bool, err error) {
	looked := map[string]bool{}
	for i := range heads {
		key := heads[i].Aggregate
		if heads[i].Settled || looked[string(key)] || !a.keyedOtherwise(key) {
			continue
		}
		looked[string(key)] = true
		changed, err := a.rekeyAll(ctx, key)
		done = done || changed
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// keyedOtherwise says whether a key tells a type where ours do not, or does not where ours
// do.
func (a *aside) keyedOtherwise(key []byte) bool {
	alone := bytes.HasPrefix(key, []byte{0, 0})
	return !alone && bytes.HasPrefix(key, []byte{0}) == a.plan.Typed()
}

// rekeyAll is rekey for the rows of one aggregate.
func (a *aside) rekeyAll(ctx context.Context, key []byte) (done bool, err error) {
	for after := (wal.Place{Index: -1}); ; {
		rows, err := a.parked.lot.Rows(ctx, key, after, retryRows, retryBytes)
		if err != nil || len(rows) == 0 {
			return done, err
		}
		after = rows[len(rows)-1].Place
		changed := rows[:0]
		for i := range rows {
			if a.newKey(&rows[i]) {
				changed = append(changed, rows[i])
			}
		}
		if len(changed) == 0 {
			continue
		}
		if err := a.parked.lot.Rekey(ctx, changed); err != nil {
			return done, err
		}
		done = true
	}
}

// newKey gives a row the key that it has now, and says whether that is another. One that
// cannot be read as a row of ours keeps what it has: it cannot be sent either.
func (a *aside) newKey(r *wal.ParkedRow) bool {
	row, err := a.rowOf(r)
	if err != nil {
		return false
	}
	now := a.mapper.Aggregate(&row)
	if len(now.ID) == 0 {
		return false
	}
	before := r.Aggregate
	r.Aggregate, r.Type = now.AppendKey(nil), now.Type
	return !bytes.Equal(before, r.Aggregate)
}
