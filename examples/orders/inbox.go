package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// event is what the consumers get of an order.
type event struct {
	id    string // the same on each delivery
	kind  string // OrderPlaced or OrderPaid
	Order int64  `json:"order"`
	Cents int64  `json:"cents"`
}

func readEvent(id, kind string, payload []byte) (event, error) {
	e := event{id: id, kind: kind}
	if err := json.Unmarshal(payload, &e); err != nil {
		return e, fmt.Errorf("read event %s: %w", id, err)
	}
	return e, nil
}

// once handles an event that is delivered at least once: in one transaction it enters
// the event into the inbox and does the work, or finds it there and does nothing. So it
// does not matter how often the event comes, nor where a crash strikes.
func once(ctx context.Context, conn *pgx.Conn, schema string, e event, work func(pgx.Tx) error) (news bool, err error) {
	inbox := pgx.Identifier{schema, "inbox"}.Sanitize()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO "+inbox+" (event_id) VALUES ($1) ON CONFLICT DO NOTHING", e.id)
		if err != nil {
			return err
		}
		if news = tag.RowsAffected() == 1; !news {
			return nil
		}
		return work(tx)
	})
	return news, err
}

// one wants a statement to change one row. Another number means that an event came
// before the one that it builds on.
func one(ctx context.Context, tx pgx.Tx, e event, sql string, args ...any) error {
	tag, err := tx.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() != 1 {
		err = fmt.Errorf("%s of order %d came out of order", e.kind, e.Order)
	}
	return err
}
