package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// parking is where rows are put aside, durable on return; wal.Parking is that of a
// database. The publisher alone uses it.
type parking interface {
	keeping
	settling
	Close() error
}

type keeping interface {
	Load(ctx context.Context, from wal.LSN) ([]wal.ParkedHead, error)
	Park(ctx context.Context, rows []wal.ParkedRow) error
	Asked(ctx context.Context) ([]wal.Request, error)
	Rekey(ctx context.Context, rows []wal.ParkedRow) error
}

type settling interface {
	Rows(ctx context.Context, aggregate []byte, after wal.Place, limit, bytes int) ([]wal.ParkedRow, error)
	Settle(ctx context.Context, aggregate []byte, upTo wal.Place) error
	Drop(ctx context.Context, aggregate []byte) ([]wal.ParkedRow, error)
	Refuse(ctx context.Context, row *wal.ParkedRow, cause, reason string) error
}

// ParkLimit bounds what is parked. The stream halts before a row that would exceed it.
// A zero value means that of DefaultParkLimit.
type ParkLimit struct {
	Rows       int
	Aggregates int
	Bytes      int // of the rows' columns
}

// DefaultParkLimit is far above what single bad rows bring about, and below what it
// takes hours to look at.
func DefaultParkLimit() ParkLimit { return ParkLimit{Rows: 10_000, Aggregates: 1000, Bytes: 256 << 20} }

// DefaultDeadLetterTopic is where copies of parked rows go.
const DefaultDeadLetterTopic = "outbox.dead-letter"

// Why a row is parked.
const (
	causeMapping = "mapping" // no message can be made of it
	causeRefused = "refused" // the broker does not take its message
	causeBehind  = "behind"  // another row of its aggregate is parked
)

// parked is what the publisher knows of the rows that wait aside. The truth about them
// is in the lot; this is for the question that is asked of every row, and it costs
// nothing while no row waits. A nil one never parks.
//
// An aggregate is parked from its first row in the lot on: what comes at or behind that
// row goes there as well, so that nothing overtakes it. What comes before it, and is read
// again because it was not saved, is sent as ever.
type parked struct {
	lot    parking
	letter string // topic of dead letters
	limit  ParkLimit
	slot   string

	lines   map[string]*parkedLine        // by aggregate
	known   map[wal.Place]*wal.ParkedHead // rows in the lot that this session may read again
	rows    int
	bytes   int
	key     []byte          // of the aggregate at hand
	pending []wal.ParkedRow // rows of the batch at hand, not in the lot yet
	origins []int           // of each, which row of the batch it is
}

// parkedLine is an aggregate that is parked.
type parkedLine struct {
	since wal.Place
	rows  int
	bytes int
}

func newParked(lot parking, letter string, limit ParkLimit, slot string) *parked {
	return &parked{lot: lot, letter: letter, limit: limit, slot: slot, lines: make(map[string]*parkedLine), known: make(map[wal.Place]*wal.ParkedHead)}
}

// nothingParked refuses a stream that would not park while rows are parked: what comes
// next of their aggregates would overtake them, and a consumer that drops what is not
// above the highest position that it knows would never see them.
func (r *Runner) nothingParked(ctx context.Context, conn *wal.Conn) error {
	if r.config.OnError == OnErrorPark {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	count, err := conn.Parked(ctx)
	if err != nil || count.Rows == 0 {
		return err
	}
	return fault.NewOperator(
		fmt.Errorf("%d rows of %d aggregates are parked, and what follows them would overtake them", count.Rows, count.Aggregates),
		fmt.Sprintf("start with --on-error park, and use outboxcdc dlq retry or outboxcdc dlq drop --slot %s first", r.config.Wal.Slot))
}

// load prepares for a session that starts at from.
func (a *aside) load(ctx context.Context, from wal.LSN) error {
	if a == nil {
		return nil
	}
	a.refusals.forget(from)
	if a.parked == nil {
		return nil
	}
	a.read = from
	heads, err := a.parked.lot.Load(ctx, from)
	if err == nil {
		var rekeyed bool
		if rekeyed, err = a.rekey(ctx, heads); rekeyed {
			heads, err = a.parked.lot.Load(ctx, from)
		}
	}
	if err != nil {
		return errors.Join(err, a.parked.lot.Close())
	}
	a.parked.learn(heads, from)
	a.parked.show(a.seen)
	return nil
}

// close lets go of what an aside keeps open.
func (a *aside) close() error {
	if a == nil || a.parked == nil {
		return nil
	}
	return a.parked.lot.Close()
}

// learn takes up what is in the lot, for a session that starts at from.
func (p *parked) learn(heads []wal.ParkedHead, from wal.LSN) {
	for i := range heads {
		h := &heads[i]
		if h.Commit >= from {
			p.known[h.Place] = h
		}
		if !h.Settled {
			p.add(h.Place, h.Aggregate, h.Bytes)
		}
	}
}

func (p *parked) add(at wal.Place, aggregate []byte, bytes int) {
	line, known := p.lines[string(aggregate)]
	if !known {
		line = &parkedLine{since: at}
		p.lines[string(aggregate)] = line
	}
	if at.Before(line.since) {
		line.since = at
	}
	line.rows++
	line.bytes += bytes
	p.rows++
	p.bytes += bytes
}

// remove takes a row that was sent or dropped out of the count of its aggregate.
func (p *parked) remove(r *wal.ParkedRow) {
	if line, known := p.lines[string(r.Aggregate)]; known {
		line.rows--
		line.bytes -= r.Bytes()
	}
	if head, known := p.known[r.Place]; known {
		head.Settled = true
	}
	p.rows--
	p.bytes -= r.Bytes()
}

func (p *parked) empty() bool { return p == nil || len(p.lines) == 0 && len(p.known) == 0 }

// holds says whether a row is in the lot, or must go there behind others.
func (p *parked) holds(at wal.Place, a outbox.Aggregate) bool {
	if p.empty() {
		return false
	}
	if _, known := p.known[at]; known {
		return true
	}
	return p.behind(at, a)
}

func (p *parked) behind(at wal.Place, a outbox.Aggregate) bool {
	if len(a.ID) == 0 {
		return false
	}
	p.key = a.AppendKey(p.key[:0])
	line, known := p.lines[string(p.key)]
	return known && !at.Before(line.since)
}

// isSettled says whether a row that is read again was sent or dropped already. A row is
// read once a session.
func (p *parked) isSettled(at wal.Place) bool {
	head, known := p.known[at]
	return known && head.Settled
}

// aloneKey is the aggregate of a row that has none. Nothing else shares it, since no id
// begins with a zero byte.
func aloneKey(at wal.Place) []byte { return append([]byte{0, 0}, at.String()...) }

// park puts a row aside and gives its dead letter. Without bad it waits behind another,
// or was parked by an earlier session, which ended before its dead letter was acked.
func (a *aside) park(ctx context.Context, rows []wal.Row, i int, bad error) (letter sink.Message, err error) {
	p, row := a.parked, &rows[i]
	r := a.parkedRow(row)
	head, known := p.known[row.Place()]
	switch {
	case known:
		r.Cause, r.Reason = head.Cause, head.Reason
		return a.letterOf(ctx, row, &r)
	case p.behind(row.Place(), a.mapper.Aggregate(row)):
		r.Cause, r.Reason = causeBehind, "another row of its aggregate is parked"
	default:
		r.Cause, r.Reason = causeOf(bad), oneLine(bad)
	}
	if err := p.room(&r); err != nil {
		return letter, err
	}
	p.add(r.Place, r.Aggregate, r.Bytes())
	p.pending, p.origins = append(p.pending, r), append(p.origins, i)
	return a.letterOf(ctx, row, &r)
}

// messageContent is what a logical message has in the place of columns, and no table has.
const messageContent = "content of a logical message"

// causeOf is the word for why a row cannot be sent.
func causeOf(bad error) string {
	if _, refused := errors.AsType[*sink.RefusalError](bad); refused {
		return causeRefused
	}
	return causeMapping
}

// parkedRow copies nothing: the lot has a row's bytes when it returns.
func (a *aside) parkedRow(row *wal.Row) wal.ParkedRow {
	aggregate := a.mapper.Aggregate(row)
	r := wal.ParkedRow{
		Place: row.Place(), XID: row.XID, Time: row.Time, Columns: row.Columns, Shape: row.Shape,
		Type: aggregate.Type, ID: aggregate.ID, Event: a.plan.Value(row, outbox.RoleID),
	}
	if row.Table < len(a.tables) {
		t := a.tables[row.Table]
		r.Schema, r.Table = t.Schema, t.Name
		for _, c := range t.Columns {
			r.Names = append(r.Names, c.Name)
		}
	} else {
		r.Names = []string{messageContent}
	}
	if r.Aggregate = aggregate.AppendKey(nil); len(aggregate.ID) == 0 {
		r.Aggregate = aloneKey(row.Place())
	}
	return r
}

// room refuses a row that the limit has no room for.
func (p *parked) room(r *wal.ParkedRow) error {
	_, known := p.lines[string(r.Aggregate)]
	var full string
	switch {
	case p.rows >= p.limit.Rows:
		full = fmt.Sprintf("%d rows", p.rows)
	case !known && len(p.lines) >= p.limit.Aggregates:
		full = fmt.Sprintf("%d aggregates", len(p.lines))
	case p.bytes+r.Bytes() > p.limit.Bytes && p.bytes > 0:
		full = fmt.Sprintf("rows of %d bytes", p.bytes)
	default:
		return nil
	}
	return fault.NewData(
		fmt.Errorf("the row at %v must be parked, and %s are already, which is the limit", r.Place, full),
		"look at them with `outboxcdc dlq list --slot "+p.slot+"`; ask for a retry or a drop and start again with a higher --park-limit")
}

// keep leaves of the pending rows those of the first rows of a batch.
func (p *parked) keep(rows int) {
	if p == nil {
		return
	}
	n := slices.IndexFunc(p.origins, func(origin int) bool { return origin >= rows })
	if n >= 0 {
		p.pending, p.origins = p.pending[:n], p.origins[:n]
	}
}

// save makes the parked rows of a batch durable, before anything of the batch is sent:
// only then may the ledger count them as done.
func (a *aside) save(ctx context.Context) error {
	p := a.parked
	if p == nil || len(p.pending) == 0 {
		return nil
	}
	if err := p.lot.Park(ctx, p.pending); err != nil {
		return err
	}
	for i := range p.pending {
		a.told("row parked", &p.pending[i])
	}
	clear(p.pending) // which refer to the batch
	p.pending, p.origins = p.pending[:0], p.origins[:0]
	failpoint.Pass(failpoint.ParkKept)
	return nil
}

// show gives the counts to whoever looks.
func (p *parked) show(seen *counters) {
	if p != nil {
		seen.parkedRows.Store(int64(p.rows))
		seen.parkedAggregates.Store(int64(len(p.lines)))
	}
}
