package checkpoint

import (
	"slices"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// SnapshotAt gives the newest delivered snapshot among entries that covers nothing
// behind lsn: each transaction that is visible in it has its commit record before
// lsn. Positions of another timeline cannot be compared and are passed over. ok is
// false when there is none, which means that the history does not reach back so far.
func SnapshotAt(entries []Entry, timeline uint32, lsn wal.LSN) (best Snapshot, ok bool) {
	for i := range entries {
		e := &entries[i]
		if e.Timeline == timeline && e.Delivered.Known() && e.Delivered.At <= lsn && e.Delivered.At >= best.At {
			best, ok = e.Delivered, true
		}
	}
	return best, ok
}

// EntryAtLSN gives the newest entry on timeline whose position is at or before lsn.
func EntryAtLSN(entries []Entry, timeline uint32, lsn wal.LSN) (best Entry, ok bool) {
	for i := range entries {
		e := &entries[i]
		if e.Timeline == timeline && e.LSN <= lsn && (!ok || e.LSN >= best.LSN) {
			best, ok = *e, true
		}
	}
	return best, ok
}

// EntryAtTime gives the newest entry that was saved at or before t.
func EntryAtTime(entries []Entry, t time.Time) (best Entry, ok bool) {
	for i := range entries {
		e := &entries[i]
		if !e.Time.After(t) && (!ok || !e.Time.Before(best.Time)) {
			best, ok = *e, true
		}
	}
	return best, ok
}

// Gaps gives the gaps that were accepted, the oldest first.
func Gaps(entries []Entry) []Gap {
	var gaps []Gap
	for i := range entries {
		e := &entries[i]
		if e.Gap.Reason != "" {
			gaps = append(gaps, e.Gap)
		}
	}
	return gaps
}

// completeEntry is complete for an entry of a history.
func completeEntry(e Entry, slot string) error {
	if err := complete(e.Position, slot); err != nil {
		return err
	}
	switch {
	case e.Time.IsZero():
		return bug("it has no time")
	case e.Gap.Reason == "" && e.Gap != Gap{}:
		return bug("it has a gap without a reason")
	default:
		return nil
	}
}

// add puts e among entries, which are in the order of time, and drops what is older
// than age and holds no gap.
func add(entries []Entry, e Entry, age time.Duration) []Entry {
	entries = slices.DeleteFunc(entries, func(old Entry) bool { return old.Time.Equal(e.Time) })
	at, _ := slices.BinarySearchFunc(entries, e.Time, func(old Entry, t time.Time) int { return old.Time.Compare(t) })
	return trim(slices.Insert(entries, at, e), e.Time.Add(-age))
}

// trim drops the entries from before, unless they hold a gap.
func trim(entries []Entry, before time.Time) []Entry {
	return slices.DeleteFunc(entries, func(old Entry) bool { return old.Time.Before(before) && old.Gap.Reason == "" })
}
