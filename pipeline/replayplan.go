package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// ReplayConfig says what is sent again. Of From, Bookmark and Since one is given, or
// Run, which goes on with a replay that was begun and takes everything from it.
type ReplayConfig struct {
	Config

	From     wal.LSN   // transactions that commit at or behind it
	Bookmark string    // as From where the bookmark stands
	Since    time.Time // transactions that were committed at or after it
	To       wal.LSN   // transactions that commit before it; 0 is what the live slot has confirmed now
	Filter   Filter
	Rate     int // events a second at the most; 0 is no limit
	Run      string

	Progress func(ReplayProgress) // nil is not called
}

// Plan is what a replay will do. It is fixed when the replay is planned and stays the
// same when it goes on.
type Plan struct {
	Run    string    `json:"run"`
	From   wal.LSN   `json:"from"`
	To     wal.LSN   `json:"to"`
	Since  time.Time `json:"since,omitzero"`
	Filter Filter    `json:"filter"`

	// Slot is the slot of which a copy is read: exact, in the order of the commits.
	// Empty means that the tables are read: rows whose transactions are visible in
	// Seen and not in Unseen, in the order of their seq. That is more than was asked
	// for: both are of moments around the positions.
	Slot   string `json:"slot,omitempty"`
	Unseen string `json:"unseen,omitempty"`
	Seen   string `json:"seen,omitempty"`

	Source string   `json:"source"` // one sentence for people
	Notes  []string `json:"notes,omitempty"`
}

// Exact says whether the replay sends what was asked for and nothing else.
func (p *Plan) Exact() bool { return p.Slot != "" }

// planner gathers what a plan is made of.
type planner struct {
	config    ReplayConfig
	conn      *wal.Conn
	store     checkpoint.Store // nil on a standby
	standby   bool
	identity  wal.Identity
	slot      *wal.Slot // the live one; nil when there is none
	saved     *checkpoint.Position
	bookmarks []Bookmark
	history   []checkpoint.Entry
}

func (p *planner) gather(ctx context.Context) (err error) {
	if p.identity, err = p.conn.Identify(ctx); err != nil {
		return err
	}
	slot, exists, err := p.conn.Slot(ctx)
	if err != nil {
		return err
	}
	if exists {
		p.slot = &slot
	}
	if p.bookmarks, err = bookmarks(ctx, p.conn, p.config.Wal.Slot); err != nil {
		return err
	}
	if p.standby {
		return nil
	}
	saved, err := p.store.Load(ctx)
	switch {
	case err == nil:
		p.saved = &saved
	case !errors.Is(err, checkpoint.ErrNone):
		return err
	}
	if historian, ok := p.store.(checkpoint.Historian); ok {
		p.history, err = historian.History(ctx)
	}
	return err
}

// plan decides what is read.
func (p *planner) plan(ctx context.Context) (*Plan, error) {
	plan := &Plan{Run: newRunID(time.Now()), Since: p.config.Since, Filter: p.config.Filter}
	var err error
	if plan.To, err = p.end(); err != nil {
		return nil, err
	}
	if err := p.begin(plan); err != nil {
		return nil, err
	}
	if plan.From >= plan.To {
		return nil, fault.NewUsage(fmt.Errorf("nothing lies between %v and %v, where the replay would end", plan.From, plan.To),
			"what is behind the confirmed position of the slot comes from the stream itself; give an earlier --from-lsn, or --to-lsn")
	}
	if p.fromSlot(plan) {
		return plan, nil
	}
	if !p.standby {
		err = p.fromTable(ctx, plan)
	}
	return plan, err
}

// end is where the replay ends: what the live slot has confirmed comes from nowhere
// else any more.
func (p *planner) end() (wal.LSN, error) {
	switch {
	case p.config.To > p.identity.Flush:
		return 0, fault.NewUsage(fmt.Errorf("the log ends at %v, before %v", p.identity.Flush, p.config.To), "give a smaller --to-lsn")
	case p.config.To != 0:
		return p.config.To, nil
	case p.standby:
		return p.identity.Flush, nil // what it has replayed
	case p.slot != nil && p.slot.Confirmed != 0:
		return min(p.slot.Confirmed, p.identity.Flush), nil
	case p.saved != nil && p.saved.System == p.identity.System && p.saved.Timeline == p.identity.Timeline:
		return p.saved.LSN, nil
	default:
		return 0, fault.NewOperator(fmt.Errorf("slot %s does not exist and nothing is saved for it, so there is no end to replay to", p.config.Wal.Slot),
			"check --slot, or give --to-lsn")
	}
}

// begin is where it begins.
func (p *planner) begin(plan *Plan) error {
	switch {
	case p.config.Bookmark != "":
		for i := range p.bookmarks {
			if b := &p.bookmarks[i]; b.Name == p.config.Bookmark {
				plan.From = b.Slot.Confirmed
				return nil
			}
		}
		return fault.NewUsage(fmt.Errorf("slot %s has no bookmark %s", p.config.Wal.Slot, p.config.Bookmark), "outboxcdc bookmark list shows what there is")
	case !p.config.Since.IsZero():
		e, ok := checkpoint.EntryAtTime(p.history, p.config.Since)
		if !ok || e.Timeline != p.identity.Timeline || e.System != p.identity.System {
			return p.tooOld(fmt.Sprintf("where the log was at %s is not known", p.config.Since.UTC().Format(time.RFC3339)))
		}
		plan.From = e.LSN
		return nil
	default:
		plan.From = p.config.From
		return nil
	}
}

// fromSlot chooses the slot that stands nearest before the beginning.
func (p *planner) fromSlot(plan *Plan) bool {
	var best *Bookmark
	for i := range p.bookmarks {
		b := &p.bookmarks[i]
		if !b.Lost() && b.Slot.Confirmed != 0 && b.Slot.Confirmed <= plan.From && (best == nil || b.Slot.Confirmed > best.Slot.Confirmed) {
			best = b
		}
	}
	if best == nil {
		return false
	}
	what := "bookmark " + best.Name
	if best.Name == "" {
		what = "the replay window"
	}
	plan.Slot = best.Slot.Name
	plan.Source = fmt.Sprintf("%s (a copy of slot %s, which stands at %v): exactly what was committed, in the order of the commits, at the positions of the first delivery",
		what, best.Slot.Name, best.Slot.Confirmed)
	return true
}

// settleFor is how long a plan waits for the live slot to confirm what the table
// shows.
const settleFor = 5 * time.Second

// fromTable reads the tables: everything that was not delivered for sure at the
// beginning, up to now. The table knows no order of commits to end at.
func (p *planner) fromTable(ctx context.Context, plan *Plan) error {
	delivered, ok := checkpoint.SnapshotAt(p.ours(), p.identity.Timeline, plan.From)
	if !ok {
		return p.tooOld(fmt.Sprintf("neither a slot nor the history reaches back to %v", plan.From))
	}
	if len(p.config.Wal.Tables) == 0 {
		return p.tooOld(fmt.Sprintf("no slot reaches back to %v, and logical messages are in no table", plan.From))
	}
	parked, err := p.conn.Parked(ctx)
	switch {
	case err != nil:
		return err
	case parked.Rows > 0:
		return fault.NewOperator(fmt.Errorf("%d rows are parked, and the table does not tell them from those that were sent", parked.Rows),
			"use outboxcdc dlq retry or outboxcdc dlq drop first, or begin at a bookmark")
	}
	tables, err := wal.OpenTables(ctx, p.config.Wal)
	if err != nil {
		return err
	}
	defer tables.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is owed to it
	if err := tables.Traceable(ctx); err != nil {
		return err
	}
	seen, at, err := tables.Snapshot(ctx)
	if err != nil {
		return err
	}
	plan.Unseen, plan.Seen = delivered.Text, seen
	plan.Source = fmt.Sprintf("the outbox table, since no slot was held back at %v: every row that was not delivered for sure at %v (%s), in the order of seq; "+
		"that is more than was asked for, and rows that were deleted are not in it", plan.From, delivered.At, delivered.Time.UTC().Format(time.RFC3339))
	plan.Notes = append(plan.Notes, "events from the table carry no position: consumers drop those that they know by the header id")
	if p.config.Wal.MessagePrefix != "" {
		plan.Notes = append(plan.Notes, "logical messages are in no table: none is sent again")
	}
	if p.config.To != 0 {
		plan.Notes = append(plan.Notes, "--to-lsn does not limit the table, which does not know when a row was committed")
	}
	settled, err := p.settled(ctx, tables, at)
	if err == nil && !settled {
		plan.Notes = append(plan.Notes, "the stream has not confirmed all of these rows yet: some may arrive by the replay first")
	}
	return err
}

// ours are the entries of the history that are of this cluster.
func (p *planner) ours() []checkpoint.Entry {
	var entries []checkpoint.Entry
	for i := range p.history {
		if p.history[i].System == p.identity.System {
			entries = append(entries, p.history[i])
		}
	}
	if p.saved != nil && p.saved.System == p.identity.System {
		entries = append(entries, checkpoint.Entry{Position: *p.saved})
	}
	return entries
}

// settled waits until the live slot has confirmed what is visible, for a while.
func (p *planner) settled(ctx context.Context, tables *wal.Tables, at wal.LSN) (bool, error) {
	deadline := time.Now().Add(settleFor)
	clock := time.NewTicker(settleFor / 50)
	defer clock.Stop()
	for {
		slot, ok, err := tables.Slot(ctx)
		if err != nil || ok && slot.Confirmed >= at {
			return err == nil, err
		}
		if !ok || !slot.Active || time.Now().After(deadline) {
			return false, nil
		}
		select {
		case <-clock.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// tooOld refuses a beginning that nothing reaches back to, and names the oldest one
// that is possible.
func (p *planner) tooOld(why string) error {
	oldest, by := wal.LSN(0), ""
	older := func(at wal.LSN, what string) {
		if at != 0 && (oldest == 0 || at < oldest) {
			oldest, by = at, what
		}
	}
	for i := range p.bookmarks {
		if b := &p.bookmarks[i]; !b.Lost() {
			older(b.Slot.Confirmed, "from slot "+b.Slot.Name)
		}
	}
	entries := p.ours()
	if len(p.config.Wal.Tables) == 0 {
		entries = nil
	}
	for i := range entries {
		if e := &entries[i]; e.Timeline == p.identity.Timeline && e.Delivered.Known() {
			older(e.Delivered.At, "from the table")
		}
	}
	if oldest == 0 {
		return fault.NewOperator(errors.New(why+", and there is neither a bookmark nor a history to replay from"),
			"consumers can read the topic again for as long as it keeps records; for the next time see outboxcdc bookmark and --replay-window")
	}
	return fault.NewOperator(fmt.Errorf("%s: the oldest position possible is %v, %s", why, oldest, by),
		fmt.Sprintf("give --from-lsn %v; what is older than that may be on the topic still, or be decoded from an archive (docs/runbook.md)", oldest))
}

// newRunID is a name that sorts by time and that no other run has.
func newRunID(now time.Time) string {
	return now.UTC().Format("20060102T150405") + "-" + strings.ToLower(rand.Text()[:6])
}

// storedPlan reads the plan of a run that was begun.
func storedPlan(run checkpoint.Run, slot string, identity wal.Identity) (*Plan, error) {
	var plan Plan
	err := json.Unmarshal(run.Plan, &plan)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the plan of replay %s: %w", run.ID, err)
	case run.Slot != slot:
		return nil, fault.NewUsage(fmt.Errorf("replay %s is one of slot %s", run.ID, run.Slot), "give that --slot")
	case run.System != identity.System:
		return nil, fault.NewOperator(fmt.Errorf("replay %s was planned in cluster %s, this is cluster %s", run.ID, run.System, identity.System), "check --database-url")
	case run.Finished:
		return nil, fault.NewUsage(fmt.Errorf("replay %s has come to its end", run.ID), "plan another one")
	default:
		return &plan, nil
	}
}
