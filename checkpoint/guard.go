package checkpoint

import (
	"errors"
	"fmt"

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
			"connect to the database that the position is of, or delete the saved position of the slot")
	case next.Timeline < saved.Timeline, next.Timeline == saved.Timeline && next.LSN < saved.LSN:
		return fmt.Errorf("%w: saved is %s, this is %s", ErrBackwards, describe(saved), describe(next))
	default:
		return nil
	}
}

func describe(p Position) string {
	return fmt.Sprintf("%v on timeline %d of cluster %s, database %q", p.LSN, p.Timeline, p.System, p.Database)
}
