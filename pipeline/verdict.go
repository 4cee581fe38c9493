package pipeline

import (
	"errors"
	"fmt"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Kind is what a Verdict comes to. The words are stable: scripts may go by them.
type Kind string

// The kinds. A stream begins in the first three and refuses to in the others.
const (
	FirstStart   Kind = "first start"      // nothing is saved yet
	Resumable    Kind = "resumable"        // goes on where it was
	Redelivery   Kind = "redelivery"       // some events are sent again; what the server lost is told
	GapFound     Kind = "gap"              // events were committed that will not come from the slot
	OtherLog     Kind = "another log"      // another cluster, database or past
	SlotAhead    Kind = "slot ahead"       // the slot confirmed what was never written
	RestoredBack Kind = "restored earlier" // the server's log ends before what was sent
	PositionGone Kind = "position gone"    // the slot was streamed from, and nothing is saved
)

// Verdict says whether a stream may begin, and what it would miss.
type Verdict struct {
	Kind Kind

	// From and To bound what is missing, or what the server lost: events committed
	// between them. To is 0 where the gap ends with the making of a slot that is not
	// there yet.
	From, To wal.LSN

	Sentence string // what is so
	Advice   string // the command that resolves it; empty when the stream begins

	start wal.LSN // where a stream begins; 0 for the slot's own position
}

// Begins says whether a stream may begin.
func (v Verdict) Begins() bool {
	return v.Kind == FirstStart || v.Kind == Resumable || v.Kind == Redelivery
}

func (v Verdict) err() error {
	if v.Begins() {
		return nil
	}
	return fault.NewOperator(errors.New(v.Sentence), v.Advice)
}

// evidence is what is known before a session: what we saved, and what the server
// says of itself and of the slot.
type evidence struct {
	saved    *checkpoint.Position // nil when nothing is saved
	identity wal.Identity
	slot     *wal.Slot // nil when there is none
	// streamed is where the slot stood when a stream first began from it, as noted in
	// the database and not in the store; 0 when none did. It is asked only when nothing
	// is saved.
	streamed wal.LSN
	// messages says that logical messages are streamed, which no table holds, and
	// messagesOnly that nothing else is.
	messages, messagesOnly bool
	// history gives the switch points of the timelines that led to the server's
	// own; it is asked only when the timeline changed.
	history func() ([]wal.TimelineSwitch, error)
}

// judge decides whether a stream may go on without a gap. The server would not
// stop us in any of the cases that it refuses: it starts at whatever the slot says
// and skips in silence. An error means that it could not be found out.
func judge(e evidence) (Verdict, error) {
	if e.saved == nil {
		if v, ahead := slotAhead(e); ahead {
			return v, nil
		}
		return judgeFirst(e), nil
	}
	if v, other := otherLog(e); other {
		return v, nil
	}
	common, descends, err := common(e)
	switch {
	case err != nil:
		return Verdict{}, err
	case !descends:
		return e.refuse(Verdict{
			Kind: OtherLog, From: e.saved.LSN,
			Sentence: fmt.Sprintf("the server's timeline %d does not descend from timeline %d of the saved position", e.identity.Timeline, e.saved.Timeline),
			Advice:   "this server has another past: check --database-url",
		}), nil
	case common > e.identity.Flush:
		return e.refuse(Verdict{
			Kind: RestoredBack, From: e.identity.Flush, To: e.saved.LSN,
			Sentence: fmt.Sprintf("the saved position %v lies beyond the end of the server's log at %v: it was restored to an earlier state, "+
				"and events were sent that it no longer has", e.saved.LSN, e.identity.Flush),
			Advice: "check that this is the server that you mean",
		}), nil
	}
	return judgeSlot(e, common), nil
}

// judgeFirst tells a first start from one whose saved position has gone: a file or a
// topic that was lost or made anew, or another --checkpoint than before. The slot alone
// would then be believed, whoever moved it or made it anew meanwhile.
func judgeFirst(e evidence) Verdict {
	switch {
	case e.streamed == 0 || e.slot != nil && e.slot.Confirmed == e.streamed:
		return Verdict{Kind: FirstStart, Sentence: "no position is saved yet, as before a first start"}
	case e.slot == nil:
		return Verdict{
			Kind: PositionGone, From: e.streamed,
			Sentence: fmt.Sprintf("no position is saved, and the slot that was streamed from %v on is gone too: events committed since the last one sent are in no stream", e.streamed),
			Advice: "if --checkpoint names another place than before, correct it, and run outboxcdc recover; " +
				"else outboxcdc drop forgets the slot, the next start is a first one, and outboxcdc verify tells what is missing",
		}
	default:
		return Verdict{
			Kind: PositionGone, From: e.streamed, To: e.slot.Confirmed,
			Sentence: fmt.Sprintf("no position is saved, but slot %s was streamed from %v on and stands at %v: what was saved is gone, "+
				"or somebody moved it or made it anew", e.slot.Name, e.streamed, e.slot.Confirmed),
			Advice: fmt.Sprintf("if --checkpoint names another place than before, correct it; if nobody touched the slot, nothing is missing: "+
				"go on with outboxcdc stream --slot %s … --accept-gap %v; outboxcdc verify tells what is missing", e.slot.Name, e.slot.Confirmed),
		}
	}
}

// judgeSlot compares with the slot what was sent of the log that the server has, up to
// common.
func judgeSlot(e evidence, common wal.LSN) Verdict {
	name := e.saved.Slot
	mend := e.mend("sends from the table what is missing and makes the slot anew")
	if e.slot == nil {
		return e.refuse(Verdict{
			Kind: GapFound, From: common, Advice: mend,
			Sentence: fmt.Sprintf("slot %s does not exist, but everything up to %v was sent from it: "+
				"events committed between %[2]v and the making of a new slot are in no stream", name, common),
		})
	}
	if e.slot.Lost() {
		return e.refuse(Verdict{
			Kind: GapFound, From: common,
			Sentence: fmt.Sprintf("slot %s was invalidated (%s): events committed after %v cannot be read from the log any more", name, e.slot.LostReason(), common),
			Advice:   mend + "; see that it does not happen again (max_slot_wal_keep_size, idle_replication_slot_timeout)",
		})
	}
	if v, ahead := slotAhead(e); ahead {
		return v
	}
	if e.slot.Confirmed > common {
		return e.refuse(Verdict{
			Kind: GapFound, From: common, To: e.slot.Confirmed, Advice: mend,
			Sentence: fmt.Sprintf("slot %s was moved or made anew by someone else: it stands at %v, but only what is before %v was sent: "+
				"events committed between %[3]v and %[2]v will never come from this slot", name, e.slot.Confirmed, common),
		})
	}
	if common < e.saved.LSN {
		return Verdict{
			Kind: Redelivery, From: common, To: e.saved.LSN,
			Sentence: fmt.Sprintf("the server changed to timeline %d at %v; events sent from between there and %v were lost by the database, "+
				"and the stream goes on from the slot's own position %v", e.identity.Timeline, common, e.saved.LSN, e.slot.Confirmed),
		}
	}
	return Verdict{Kind: Resumable, Sentence: fmt.Sprintf("the stream goes on from %v", common), start: common}
}

// mend is how to send what is missing, as far as a table has it. A position is saved.
func (e evidence) mend(recovery string) string {
	const lost = "logical messages are in no table, so those that are missing are gone, and only who sent them can send them again"
	run := fmt.Sprintf("run outboxcdc recover --slot %s, which %s", e.saved.Slot, recovery)
	switch {
	case e.messagesOnly:
		return lost
	case e.messages:
		return run + "; " + lost
	default:
		return run
	}
}

// refuse adds to the advice the way on for an operator who accepts what is so. It
// names the position, so that a flag which is left in place accepts no later gap.
func (e evidence) refuse(v Verdict) Verdict {
	v.Advice += fmt.Sprintf("; to go on without, accept it: outboxcdc stream --slot %s … --accept-gap %v", e.saved.Slot, e.saved.LSN)
	return v
}

// otherLog finds a log that is not the continuation of the saved one.
func otherLog(e evidence) (Verdict, bool) {
	id, saved := e.identity, e.saved
	switch {
	case id.System != saved.System:
		advice := "check --database-url: a position means nothing in another cluster"
		if !e.messagesOnly {
			advice += "; if pg_upgrade made this one of that, run outboxcdc recover --slot " + saved.Slot + " --upgraded"
		}
		return e.refuse(Verdict{
			Kind: OtherLog, From: saved.LSN,
			Sentence: fmt.Sprintf("the position of slot %s was saved in cluster %s, this is cluster %s", saved.Slot, saved.System, id.System),
			Advice:   advice,
		}), true
	case id.Database != saved.Database:
		return Verdict{
			Kind:     OtherLog,
			Sentence: fmt.Sprintf("the position of slot %s was saved in database %q, this is database %q", saved.Slot, saved.Database, id.Database),
			Advice:   "check --database-url and --slot; slot names are unique in a cluster, so each database needs its own",
		}, true
	case id.Timeline < saved.Timeline:
		return Verdict{
			Kind:     OtherLog,
			Sentence: fmt.Sprintf("the server is on timeline %d, the saved position is on timeline %d", id.Timeline, saved.Timeline),
			Advice:   "this is a former primary that another server has replaced; connect to the new one",
		}, true
	default:
		return Verdict{}, false
	}
}

// common is the end of what was sent of the log that the server has: the saved
// position, or where the server left its timeline when that is before. descends is
// false when it never was on it.
func common(e evidence) (at wal.LSN, descends bool, err error) {
	if e.identity.Timeline == e.saved.Timeline {
		return e.saved.LSN, true, nil
	}
	switches, err := e.history()
	if err != nil {
		return 0, false, fmt.Errorf("read the history of timeline %d: %w", e.identity.Timeline, err)
	}
	for _, s := range switches {
		if s.Timeline == e.saved.Timeline {
			return min(e.saved.LSN, s.At), true, nil
		}
	}
	return 0, false, nil
}

// slotAhead finds a slot that someone confirmed beyond the end of the log. The server
// believes such a position and skips every transaction up to it.
func slotAhead(e evidence) (Verdict, bool) {
	if e.slot == nil || e.slot.Confirmed <= e.identity.Flush {
		return Verdict{}, false
	}
	sentence := fmt.Sprintf("slot %s is confirmed up to %v, beyond the end of the log at %v: another client confirmed a wrong position, "+
		"and what is committed up to there would be skipped", e.slot.Name, e.slot.Confirmed, e.identity.Flush)
	if e.saved == nil {
		return Verdict{
			Kind: SlotAhead, From: e.identity.Flush, To: e.slot.Confirmed, Sentence: sentence,
			Advice: fmt.Sprintf("run outboxcdc drop --slot %s, then outboxcdc init", e.slot.Name),
		}, true
	}
	return e.refuse(Verdict{
		Kind: SlotAhead, From: min(e.saved.LSN, e.identity.Flush), To: e.slot.Confirmed, Sentence: sentence,
		Advice: e.mend("makes it anew and sends from the table what is missing"),
	}), true
}
