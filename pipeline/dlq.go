package pipeline

import (
	"context"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// ParkedRows are the rows parked for a slot, as its stream and outboxcdc dlq share them.
// It is for people: nothing here sends a row. What is asked for is done by the stream,
// which alone knows what of an aggregate is on its way; without one it waits in the
// database until a stream with --on-error park runs.
type ParkedRows struct{ *wal.Parking }

// OpenParkedRows connects; the caller closes. The errors are those of wal.Connect.
func OpenParkedRows(ctx context.Context, config wal.Config) (*ParkedRows, error) {
	var identity wal.Identity
	err := withConn(ctx, config, func(conn *wal.Conn) (err error) {
		identity, err = conn.Identify(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ParkedRows{wal.NewParking(config, identity.System)}, nil
}

// Await waits until all that was asked for is done, at most within, and says whether it
// is and how much is parked then.
func (p *ParkedRows) Await(ctx context.Context, within time.Duration) (done bool, left wal.ParkedCount, err error) {
	const pause = 200 * time.Millisecond
	deadline := time.Now().Add(within)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, left, ctx.Err()
		case <-timer.C:
		}
		var asked int
		if left, asked, err = p.Count(ctx); err != nil || asked == 0 {
			return err == nil, left, err
		}
		if !time.Now().Before(deadline) {
			return false, left, nil
		}
		timer.Reset(pause)
	}
}
