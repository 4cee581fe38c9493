package wal

import (
	"context"
	"fmt"
	"time"
)

// Overview is what a server says about a slot and about what holds its log back.
type Overview struct {
	KeepBytes int64        // max_slot_wal_keep_size in bytes; -1 when there is no limit
	Holder    string       // who streams from the slot, for people; empty when nobody does
	Oldest    *Transaction // the one that has written and is open for longest; nil when there is none
}

// Transaction is one that is open and pins the log: a slot that restarts reads from
// where it began.
type Transaction struct {
	PID         int32  // 0 for one that is prepared
	Prepared    string // its name; empty for one of a session
	Application string // what the role may not see is empty
	Database    string
	State       string // such as "idle in transaction"
	Age         time.Duration
}

// Overview asks the server.
func (c *Conn) Overview(ctx context.Context) (Overview, error) {
	var o Overview
	megabytes, _, err := fetchOne[int64](ctx, c.pg, "SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")
	if err != nil {
		return o, fmt.Errorf("ask for max_slot_wal_keep_size: %w", err)
	}
	if o.KeepBytes = megabytes << 20; megabytes < 0 {
		o.KeepBytes = -1
	}
	holder, held, err := c.Holder(ctx)
	if err != nil {
		return o, err
	}
	if held {
		o.Holder = holder.String()
	}
	open, err := fetch[transactionFacts](ctx, c.pg, transactionSQL)
	if err != nil {
		return o, fmt.Errorf("look for open transactions: %w", err)
	}
	if len(open) > 0 {
		t := open[0]
		o.Oldest = &Transaction{
			PID: t.PID, Prepared: t.Prepared, Application: t.Application, Database: t.Database, State: t.State,
			Age: time.Duration(t.Seconds) * time.Second,
		}
	}
	return o, nil
}
