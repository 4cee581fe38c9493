package main

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"
)

// insertEvent writes an event of an order. It is the whole of what a service does for
// outboxcdc, and it does it in the transaction that changes the order.
const insertEvent = `INSERT INTO outbox (aggregate_type, aggregate_id, event_type, payload)
	VALUES ('order', ($1::bigint)::text, $2, jsonb_build_object('order', $1::bigint, 'cents', $3::bigint))`

// errOutOfStock rolls an order back, and with it its event.
var errOutOfStock = errors.New("out of stock")

// place takes an order: the row and its event are there together, or neither is.
func place(ctx context.Context, conn *pgx.Conn, id, cents int64, inStock bool) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders (id, cents, status) VALUES ($1, $2, 'placed')", id, cents); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertEvent, id, "OrderPlaced", cents); err != nil {
			return err
		}
		if !inStock {
			return errOutOfStock
		}
		return nil
	})
}

// pay marks an order as paid.
func pay(ctx context.Context, conn *pgx.Conn, id, cents int64) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE orders SET status = 'paid' WHERE id = $1", id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, insertEvent, id, "OrderPaid", cents)
		return err
	})
}

// serve takes orders from first on, and has most of them paid.
func serve(ctx context.Context, conn *pgx.Conn, first, orders int64) error {
	random := rand.New(rand.NewPCG(uint64(first), 1))
	for id := first; id < first+orders; id++ {
		cents := 100 + random.Int64N(10_000)
		err := place(ctx, conn, id, cents, random.IntN(10) > 0)
		if errors.Is(err, errOutOfStock) {
			continue
		}
		if err == nil && random.IntN(5) > 0 {
			err = pay(ctx, conn, id, cents)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
