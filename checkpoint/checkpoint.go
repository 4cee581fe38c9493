// Package checkpoint keeps the ledger between the broker's acks and the slot:
// what has been sent, up to where all of it is acked (the mark), and the durable
// copy of that position (the save).
//
// It knows positions only: not rows, not messages, not brokers.
package checkpoint

import (
	"context"
	"errors"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// Position is what is saved for a slot. A bare LSN means nothing in another
// cluster or on another timeline, so it never travels alone.
type Position struct {
	Slot     string
	System   string // system identifier of the cluster, decimal as IDENTIFY_SYSTEM prints it
	Timeline uint32
	Database string
	LSN      wal.LSN   // everything that ends at or before it is with the broker
	Time     time.Time // when it was saved, for people
}

// ErrNone is what Load gives when nothing was saved for the slot.
var ErrNone = errors.New("no position saved")

// ErrBackwards is what Save gives when a later position is already saved. It
// means that another instance works on the same slot, or a bug.
var ErrBackwards = errors.New("a later position is already saved")

// Store holds the Position of one slot. It is used by one goroutine at a time.
type Store interface {
	// Load gives the saved position, or ErrNone. Anything else that it cannot
	// read, a torn file or an unknown format, is an error and never ErrNone.
	Load(ctx context.Context) (Position, error)

	// Save is durable on return: a crash of this process, of the store's server
	// or of the machine right after does not lose it. It never goes backwards
	// within one system and timeline (ErrBackwards).
	Save(ctx context.Context, p Position) error

	// Close lets go of the store.
	Close() error
}

// Quiet is implemented by stores whose Save itself writes to the database's log.
// An idle stream saves no more often than IdleInterval, so that it does not keep
// the database awake with its own progress.
type Quiet interface {
	IdleInterval() time.Duration
}
