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
	LSN      wal.LSN // everything that ends at or before it is with the broker

	// Index is how many rows of the transaction that ends first behind LSN are with
	// the broker too. Today only whole transactions are saved, and it is 0.
	Index uint64

	Time time.Time // when it was saved, for people

	// Delivered says in terms of transactions what LSN says in terms of the log. It
	// shows less than that, or the same, and is zero when none is known.
	Delivered Snapshot
}

// Snapshot is a set of transactions, as a snapshot of the database shows one. Whatever
// is visible in it has its commit record before At. So once everything up to At is with
// the broker, every row of a transaction that is visible in it is, too. The reverse does
// not hold: what it does not show may have been delivered.
//
// The server gives one that was taken before At (xact.c, CommitTransaction: the record
// is written first, and only then does the transaction become visible). A stream adds
// to it the transactions that the log named up to its saved position; see Visible.
//
// It means nothing in another cluster, nor behind the switch to another timeline
// that lies before At: numbers of transactions are given out again there.
type Snapshot struct {
	Text string    // a pg_snapshot as Postgres prints it, xmin:xmax:xip,…
	At   wal.LSN   // a position of the log that is behind every commit in it
	Time time.Time // when it was taken or made, by our clock
}

// Known says whether there is a snapshot.
func (s Snapshot) Known() bool { return s.Text != "" }

// Gap is a stretch of the log that a stream passed without sending its events, since
// an operator accepted that.
type Gap struct {
	// From and To bound it: events committed between them may be missing at the
	// broker. Both are 0 when they cannot be told.
	From, To wal.LSN

	// Before is what was delivered before the gap, After was taken when it was
	// accepted. A row that is visible in After and not in Before may be one that was
	// never sent.
	Before, After Snapshot

	Reason string // one sentence; empty means that there is no gap
}

// Entry is a moment in the history of a slot. Its Time tells it from the others.
type Entry struct {
	Position
	Gap Gap // what was accepted when the stream went on from there; zero for most
}

// ErrNone is what Load gives when nothing was saved for the slot.
var ErrNone = errors.New("no position saved")

// ErrBackwards is what Save gives when a later position is already saved. It
// means that another instance works on the same slot, or a bug.
var ErrBackwards = errors.New("a later position is already saved")

// DefaultHistoryAge is how long entries of the history are kept unless told otherwise,
// and DefaultHistoryInterval how often a stream adds one.
const (
	DefaultHistoryAge      = 7 * 24 * time.Hour
	DefaultHistoryInterval = time.Minute
)

// Forever is a HistoryAge with which nothing is forgotten.
const Forever = 100 * 365 * 24 * time.Hour

// Historian is implemented by stores that remember more than the last position: what
// was delivered at which time, for replay, recovery and the state of rows. All stores
// of this package do.
type Historian interface {
	// Keep adds an entry and forgets those that are older than the store's
	// HistoryAge, counted from the new one; an entry with a Gap stays for good. It is
	// durable on return. An entry of the same time is replaced.
	Keep(ctx context.Context, e Entry) error

	// History gives all entries, the oldest first. None is no error.
	History(ctx context.Context) ([]Entry, error)

	// Replace makes e's position the saved one, whatever stands there, even if that
	// is later, or of another log; and adds e to the history. Both happen or neither.
	Replace(ctx context.Context, e Entry) error

	// Delete forgets the position and the history of the slot. It is no error when
	// there is nothing.
	Delete(ctx context.Context) error
}

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
