package pipeline

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/wal"
)

// delivered says in terms of transactions what is delivered up to the mark.
//
// A snapshot of the database does, once the mark has passed the place where it was
// taken; but one is taken every two seconds, and what was delivered since would be sent
// again by a recovery. The transactions that the log named since then are added one by
// one. So what is saved shows every transaction of the stream up to the saved position,
// and none behind it. Where transactions of others are so many in between that the
// text would not stay small (checkpoint.MaxOpen), what is shown ends before.
//
// The snapshots alone are settled: the watch found tables and publication sound after
// each was taken, and so no row of it was written past the stream. Of a transaction
// that was added it is known that the broker holds the rows that the log gave; that it
// gave all of them is known with the next look of the watch. So what deletes or marks
// rows, and the history, go by what is settled; and a session that ends since the watch
// found something wrong saves nothing else.
type delivered struct {
	samples samples // snapshots that the mark has not passed
	sent    transactions

	// The saver's alone.
	settled checkpoint.Snapshot // the newest snapshot that the mark has passed, or what was saved when the session began
	visible checkpoint.Visible  // that, and the transactions behind it
	missed  []uint32            // transactions that could not be added yet
	lacks   wal.LSN             // there are some, or were too many, and all commit before it; 0 when none

	distrusted atomic.Bool // the watch found something wrong
}

// begin takes up what is saved. The first snapshot of the session is to show what was
// delivered before it, whatever became of that.
func (d *delivered) begin(saved checkpoint.Position) {
	d.settled, d.lacks = saved.Delivered, saved.LSN
	if v, err := checkpoint.ParseVisible(saved.Delivered.Text); err == nil {
		d.visible = v
	}
}

// pass takes up what the mark has passed.
func (d *delivered) pass(mark wal.LSN) {
	if newest, ok := d.samples.passed(mark); ok && newest.At >= d.settled.At && newest != d.settled {
		d.settle(newest)
	}
	for _, t := range d.sent.passed(mark) {
		if d.visible.Add(t.xid) {
			continue
		}
		d.lacks = mark
		if len(d.missed) < mostMissed {
			d.missed = append(d.missed, t.xid)
		}
	}
}

// mostMissed bounds the memory of transactions that wait for a snapshot that comes
// near enough. Those beyond it are shown by a snapshot, or not at all.
const mostMissed = 4 * checkpoint.MaxOpen

func (d *delivered) settle(newest checkpoint.Snapshot) {
	v, err := checkpoint.ParseVisible(newest.Text)
	if err != nil {
		return
	}
	d.visible.Join(v)
	d.settled = newest
	d.missed = slices.DeleteFunc(d.missed, d.visible.Add)
	if newest.At >= d.lacks && len(d.missed) == 0 {
		d.lacks = 0
	}
}

// upTo is what is delivered up to mark, which pass was told.
func (d *delivered) upTo(mark wal.LSN, now time.Time) checkpoint.Snapshot {
	text := d.visible.Text()
	if text == "" || len(text) > checkpoint.MaxSnapshotBytes || d.distrusted.Load() {
		return d.settled
	}
	return checkpoint.Snapshot{Text: text, At: mark, Time: now}
}

// transactions are those that were sent and that the mark has not passed. The
// publisher adds, the saver takes. They are as many as the budget lets be in flight.
type transactions struct {
	mu      sync.Mutex
	waiting []transaction // in the order of their commits
	taken   []transaction // what the saver was given last; its memory is used again
}

type transaction struct {
	commit wal.LSN
	xid    uint32
}

// add takes the transactions of a batch.
func (t *transactions) add(rows []wal.Row) {
	if len(rows) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range rows {
		row := &rows[i]
		if n := len(t.waiting); row.XID != 0 && (n == 0 || t.waiting[n-1].commit != row.Commit) {
			t.waiting = append(t.waiting, transaction{row.Commit, row.XID})
		}
	}
}

// passed gives those whose commit record begins before the mark, and forgets them. They
// are valid until it is called again.
func (t *transactions) passed(mark wal.LSN) []transaction {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(t.waiting) && t.waiting[n].commit < mark {
		n++
	}
	t.waiting, t.taken = append(t.taken[:0], t.waiting[n:]...), t.waiting[:n]
	return t.taken
}
