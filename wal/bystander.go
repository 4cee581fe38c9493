package wal

import (
	"context"
	"fmt"
	"time"
)

// Attend keeps an ordinary connection open beside a stream that is not confirmed as
// it goes, and returns when the server ends it or ctx does, with ctx's error then. A
// server that shuts down sends ordinary sessions away at once, while it waits for
// walsenders until they have confirmed everything: this is how such a stream learns
// that it should let go.
func Attend(ctx context.Context, config Config) error {
	pg, _, err := connectPlain(ctx, config)
	if err != nil {
		return fmt.Errorf("connect beside the stream: %w", err)
	}
	defer hangUp(context.WithoutCancel(ctx), pg) //nolint:errcheck // nothing is owed to it
	w := watcher{pg: pg}
	for err == nil {
		err = w.listen(ctx, time.Hour)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("attend the stream: %w", err)
}
