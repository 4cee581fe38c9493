package pipeline

import (
	"fmt"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// start is where and how a session may begin.
type start struct {
	from    wal.LSN // the saved position; 0 where the slot's own is the right one
	first   bool    // nothing is saved yet
	warning string  // for the operator; empty when all is well
}

// evidence is what is known before a session: what we saved, and what the server
// says of itself and of the slot.
type evidence struct {
	saved    *checkpoint.Position // nil when nothing is saved
	identity wal.Identity
	slot     *wal.Slot // nil when there is none
	// history gives the switch points of the timelines that led to the server's
	// own; it is asked only when the timeline changed.
	history func() ([]wal.TimelineSwitch, error)
}

// judge decides whether a stream may go on without a gap. The server would not
// stop us in any of the cases that it refuses: it starts at whatever the slot says
// and skips in silence.
func judge(e evidence) (start, error) {
	if e.saved == nil {
		return start{first: true}, corrupt(e)
	}
	for _, refuse := range []func(evidence) error{otherLog, slotGone, corrupt, moved} {
		if err := refuse(e); err != nil {
			return start{}, err
		}
	}
	if e.identity.Timeline != e.saved.Timeline {
		return judgeTimeline(e)
	}
	if e.saved.LSN > e.identity.Flush {
		return start{}, fault.NewOperator(
			fmt.Errorf("the saved position %v lies beyond the end of the server's log at %v", e.saved.LSN, e.identity.Flush),
			"the server was restored to an earlier state: events up to the saved position were sent that it no longer has; "+forget(e.saved.Slot))
	}
	return start{from: e.saved.LSN}, nil
}

// forget is the way on for an operator who accepts what the refusal says.
func forget(slot string) string {
	return fmt.Sprintf("to go on all the same, delete the saved position (DELETE FROM outboxcdc.checkpoint WHERE slot = '%s', "+
		"or the file of --checkpoint) and start again; outboxcdc verify then lists the events that are missing, to be sent again from the table by inserting their rows anew", slot)
}

// otherLog refuses a log that is not the continuation of the saved one.
func otherLog(e evidence) error {
	id, saved := e.identity, e.saved
	switch {
	case id.System != saved.System:
		return fault.NewOperator(
			fmt.Errorf("the position of slot %s was saved in cluster %s, this is cluster %s", saved.Slot, saved.System, id.System),
			"check --database-url; a position means nothing in another cluster")
	case id.Database != saved.Database:
		return fault.NewOperator(
			fmt.Errorf("the position of slot %s was saved in database %q, this is database %q", saved.Slot, saved.Database, id.Database),
			"check --database-url and --slot; slot names are unique in a cluster, so each database needs its own")
	case id.Timeline < saved.Timeline:
		return fault.NewOperator(
			fmt.Errorf("the server is on timeline %d, the saved position is on timeline %d", id.Timeline, saved.Timeline),
			"this is a former primary that another server has replaced; connect to the new one")
	default:
		return nil
	}
}

func slotGone(e evidence) error {
	if e.slot != nil {
		return nil
	}
	return fault.NewOperator(
		fmt.Errorf("slot %s does not exist, but everything up to %v was sent from it", e.saved.Slot, e.saved.LSN),
		fmt.Sprintf("events committed between %v and the creation of a new slot are in no stream; "+
			"%s, a new slot is made then", e.saved.LSN, forget(e.saved.Slot)))
}

// moved refuses a slot that is ahead of what we saved. We save before we confirm,
// so only someone else can have moved it, or dropped it and made it anew.
func moved(e evidence) error {
	if e.slot.Confirmed <= e.saved.LSN {
		return nil
	}
	return fault.NewOperator(
		fmt.Errorf("slot %s was moved or made anew by someone else: it stands at %v, but only what is before %v was sent",
			e.slot.Name, e.slot.Confirmed, e.saved.LSN),
		fmt.Sprintf("events committed between %v and %v will never come from this slot; %s",
			e.saved.LSN, e.slot.Confirmed, forget(e.slot.Name)))
}

// corrupt refuses a slot that someone confirmed beyond the end of the log. The
// server believes such a position and skips every transaction up to it.
func corrupt(e evidence) error {
	if e.slot == nil || e.slot.Confirmed <= e.identity.Flush {
		return nil
	}
	return fault.NewOperator(
		fmt.Errorf("slot %s is confirmed up to %v, beyond the end of the log at %v", e.slot.Name, e.slot.Confirmed, e.identity.Flush),
		"another client confirmed a wrong position; drop the slot and make it anew, and send again from the table what was committed meanwhile")
}

// judgeTimeline handles a promoted standby. What was saved before the switch is a
// position on both timelines. What was saved after it is not: the new timeline
// has other transactions below that number, so the slot itself says where to
// start, and what we sent from the lost end of the old timeline remains sent.
func judgeTimeline(e evidence) (start, error) {
	switches, err := e.history()
	if err != nil {
		return start{}, fmt.Errorf("read the history of timeline %d: %w", e.identity.Timeline, err)
	}
	for _, s := range switches {
		if s.Timeline != e.saved.Timeline {
			continue
		}
		if e.saved.LSN <= s.At {
			return start{from: e.saved.LSN}, nil
		}
		return start{warning: fmt.Sprintf(
			"the server changed to timeline %d at %v; events sent from between there and %v were lost by the database",
			e.identity.Timeline, s.At, e.saved.LSN)}, nil
	}
	return start{}, fault.NewOperator(
		fmt.Errorf("the server's timeline %d does not descend from timeline %d of the saved position", e.identity.Timeline, e.saved.Timeline),
		"this server has another past; "+forget(e.saved.Slot))
}
