package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxOpen bounds how many transactions a Visible lists as not its own, unless the
// snapshots that it was joined from list more: some 40 kB of text, or 16 kB in the
// database, with each save at the very most.
const MaxOpen = 4096

// Visible is a set of transactions, in the form of a snapshot: all below next but for
// those that are open. It only grows. It begins as the transactions that a snapshot
// shows, and single ones are added to it, so that a snapshot that is some seconds old
// can be made to say exactly what was delivered since. Its zero value is empty, and
// takes no single transaction until a snapshot was joined to it.
//
// Numbers of transactions are those of an xid8, with the epoch.
type Visible struct {
	next uint64   // above everything in the set, and above open
	open []uint64 // ascending, each below next, not in the set
}

var errNoSnapshot = errors.New("it is not a pg_snapshot")

// ParseVisible reads a pg_snapshot, xmin:xmax:xip,… as Postgres prints it.
func ParseVisible(text string) (Visible, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return Visible{}, errNoSnapshot
	}
	begin, beginErr := strconv.ParseUint(parts[0], 10, 64)
	end, endErr := strconv.ParseUint(parts[1], 10, 64)
	if beginErr != nil || endErr != nil || begin == 0 || end < begin {
		return Visible{}, errNoSnapshot
	}
	v := Visible{next: end}
	if parts[2] == "" {
		return v, nil
	}
	for number := range strings.SplitSeq(parts[2], ",") {
		xid, err := strconv.ParseUint(number, 10, 64)
		if n := len(v.open); err != nil || xid < begin || xid >= end || n > 0 && xid <= v.open[n-1] {
			return Visible{}, errNoSnapshot
		}
		v.open = append(v.open, xid)
	}
	return v, nil
}

// Known says whether a snapshot was joined yet.
func (v *Visible) Known() bool { return v.next != 0 }

// Text is the set as a pg_snapshot; empty when it is not known.
func (v *Visible) Text() string {
	if !v.Known() {
		return ""
	}
	begin := v.next
	if len(v.open) > 0 {
		begin = v.open[0]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d:", begin, v.next)
	for i, xid := range v.open {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(xid, 10))
	}
	return b.String()
}

// Has says whether a transaction is in the set.
func (v *Visible) Has(xid uint64) bool {
	_, open := slices.BinarySearch(v.open, xid)
	return xid < v.next && !open
}

// Join adds everything that is in other.
func (v *Visible) Join(other Visible) {
	open := slices.DeleteFunc(v.open, other.Has)
	if other.next > v.next {
		from, _ := slices.BinarySearch(other.open, v.next)
		open = append(open, other.open[from:]...)
		v.next = other.next
	}
	v.open = open
}

// Add adds one transaction, by the number that the log has, without the epoch: it lies
// within two thousand millions of what was added before. It is false when the set
// would have to list more than MaxOpen others for that, and then nothing is added.
func (v *Visible) Add(xid uint32) bool {
	if !v.Known() {
		return false
	}
	full := v.next + uint64(int64(int32(xid-uint32(v.next)))) // the difference wraps, as the numbers do
	if full < v.next {
		if at, open := slices.BinarySearch(v.open, full); open {
			v.open = slices.Delete(v.open, at, at+1)
		}
		return true
	}
	if uint64(len(v.open))+full-v.next > MaxOpen {
		return false
	}
	for ; v.next < full; v.next++ {
		v.open = append(v.open, v.next)
	}
	v.next++
	return true
}
