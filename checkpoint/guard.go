package checkpoint

import (
	"errors"
	"fmt"
	"math"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// ErrForeign is what Save gives when the saved position is one of another cluster
// or database: the two cannot be compared, and the saved one may be all that is
// left to find a gap with.
var ErrForeign = errors.New("the saved position is one of another log")

// complete refuses a position that says too little to be compared later, or that
// is another slot's. Nobody but us makes them.
func complete(p Position, slot string) error {
	switch {
	case p.Slot != slot:
		return bug("it is of slot %q, the store is for slot %q", p.Slot, slot)
	case p.System == "":
		return bug("it names no system")
	case p.Timeline == 0:
		return bug("it names no timeline")
	case p.Database == "":
		return bug("it names no database")
	case p.LSN == 0:
		return bug("it names no place in the log")
	case p.Index > math.MaxInt64:
		return bug("it has an index of %d", p.Index)
	case p.Delivered.Known() && p.Delivered.At == 0:
		return bug("its snapshot names no place in the log")
	case !p.Delivered.Known() && p.Delivered != Snapshot{}:
		return bug("it has a place for a snapshot and no snapshot")
	case p.Delivered.At > p.LSN:
		return bug("its snapshot of %v is of a later place than %v", p.Delivered.At, p.LSN)
	case len(p.Delivered.Text) > MaxSnapshotBytes:
		return bug("its snapshot is %d bytes long", len(p.Delivered.Text))
	default:
		return nil
	}
}

func bug(format string, args ...any) error {
	err := fmt.Errorf("incomplete position: "+format, args...)
	return &fault.Error{Class: fault.Bug, Err: err, Advice: "please report it"}
}

// follow decides whether next may replace saved. It may repeat it. On a later
// timeline it may stand lower: a new primary can lack the end of the old one's
// log. A lower timeline is a former primary's and never follows.
func follow(saved, next Position) error {
	switch {
	case next.System != saved.System || next.Database != saved.Database:
		return fault.NewOperator(
			fmt.Errorf("%w: saved is %s, this is %s", ErrForeign, describe(saved), describe(next)),
			"connect to the database that the position is of, or start the stream anew with --accept-gap when the database has moved there for good")
	case next.Timeline < saved.Timeline, next.Timeline == saved.Timeline && behind(next, saved):
		return fmt.Errorf("%w: saved is %s, this is %s", ErrBackwards, describe(saved), describe(next))
	default:
		return nil
	}
}

func behind(p, q Position) bool { return p.LSN < q.LSN || p.LSN == q.LSN && p.Index < q.Index }

// MaxSnapshotBytes bounds a delivered snapshot. One names each transaction that was
// open when it was taken, so a thousand of them take some ten thousand bytes.
const MaxSnapshotBytes = 256 << 10

func describe(p Position) string {
	return fmt.Sprintf("%v on timeline %d of cluster %s, database %q", p.LSN, p.Timeline, p.System, p.Database)
}
