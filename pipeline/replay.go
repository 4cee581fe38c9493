package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Replay sends events again that were sent before. It is a session like that of a
// stream, from another source: a copy of a slot that was held back, or the outbox
// tables. It never touches the live slot nor what is saved for it, so it runs beside
// the stream or without it. What it has sent is recorded, and it goes on from there
// when it was interrupted; events in flight at that moment are sent once more.
type Replay struct {
	Plan *Plan

	config  ReplayConfig
	plan    *outbox.Plan // how rows become messages
	logger  *slog.Logger
	runs    *checkpoint.Runs // nil on a standby, which keeps no record
	run     checkpoint.Run
	reached reached
	goal    int64 // rows; 0 when it is not known beforehand
	before  int64 // rows that earlier sessions sent
}

// reached is how far a replay has come.
type reached struct {
	LSN   wal.LSN `json:"lsn,omitempty"` // in the log: transactions that commit before it are sent
	Table place   `json:"table"`         // in the tables
}

// ReplayProgress is how far a replay is.
type ReplayProgress struct {
	Rows int64   // sent and acked
	Goal int64   // rows in all; 0 when that is not known
	Part float64 // from 0 to 1
}

// OpenReplay plans a replay, or takes up one that was begun, and sends nothing.
func OpenReplay(ctx context.Context, config ReplayConfig) (*Replay, error) {
	plan, err := config.validate()
	if err == nil {
		err = config.Filter.check(plan, config.Wal.Tables)
	}
	if err := errors.Join(err, config.check()); err != nil {
		return nil, err
	}
	r := &Replay{config: config, plan: plan, logger: config.Logger}
	if err := r.open(ctx); err != nil {
		r.Close()
		return nil, fmt.Errorf("plan the replay: %w", err)
	}
	return r, nil
}

// check gives the mistakes of what is not a stream's.
func (c *ReplayConfig) check() error {
	given := 0
	for _, is := range []bool{c.From != 0, c.Bookmark != "", !c.Since.IsZero(), c.Run != ""} {
		if is {
			given++
		}
	}
	var errs []error
	if given != 1 {
		errs = append(errs, fault.NewUsage(errors.New("a replay begins at one of --from-lsn, --from-bookmark and --from-time, or goes on with --run"), "give one of them"))
	}
	if c.Run != "" && (c.To != 0 || c.Filter != Filter{}) {
		errs = append(errs, fault.NewUsage(errors.New("a replay that goes on keeps its end and its filters"), "leave them out beside --run"))
	}
	if c.Rate < 0 || c.Rate > maxRate {
		errs = append(errs, fault.NewUsage(fmt.Errorf("--rate %d is no rate", c.Rate), fmt.Sprintf("give 1 to %d events a second", maxRate)))
	}
	return errors.Join(errs...)
}

const maxRate = 1_000_000

func (r *Replay) open(ctx context.Context) error {
	return withConn(ctx, r.config.Wal, func(conn *wal.Conn) error {
		standby, err := conn.Standby(ctx)
		switch {
		case err != nil:
			return err
		case standby:
			return r.openStandby(ctx, conn)
		}
		options := r.config.storeOptions()
		if r.runs, err = checkpoint.OpenRuns(ctx, options); err != nil {
			return err
		}
		if r.config.Run != "" {
			return r.takeUp(ctx, conn)
		}
		store, err := checkpoint.Open(ctx, r.config.Checkpoint, options)
		if err != nil {
			return err
		}
		return errors.Join(r.makePlan(ctx, &planner{config: r.config, conn: conn, store: store}), store.Close())
	})
}

func (r *Replay) makePlan(ctx context.Context, p *planner) error {
	err := p.gather(ctx)
	if err == nil {
		r.Plan, err = p.plan(ctx)
	}
	r.run.System = p.identity.System
	return err
}

// openStandby plans a replay of log that was restored from an archive. There the slot
// is a bookmark that was made on the standby; positions, history and record are the
// primary's, and nothing can be written.
func (r *Replay) openStandby(ctx context.Context, conn *wal.Conn) error {
	if r.config.Run != "" {
		return fault.NewUsage(errors.New("a replay from a standby is not recorded, so none can go on"), "plan it again with --from-lsn")
	}
	if err := r.makePlan(ctx, &planner{config: r.config, conn: conn, standby: true}); err != nil {
		return err
	}
	if !r.Plan.Exact() {
		return fault.NewOperator(fmt.Errorf("no bookmark on this standby stands at or before %v", r.Plan.From), "see docs/runbook.md, about log from an archive")
	}
	r.Plan.Notes = append(r.Plan.Notes, "this is a standby: the replay is not recorded and cannot go on when it is interrupted")
	return nil
}

// takeUp reads what an earlier process has begun.
func (r *Replay) takeUp(ctx context.Context, conn *wal.Conn) error {
	identity, err := conn.Identify(ctx)
	if err != nil {
		return err
	}
	run, err := r.runs.Load(ctx, r.config.Run)
	if errors.Is(err, checkpoint.ErrNoRun) {
		return fault.NewUsage(err, "a replay prints its run when it begins, and so does its header "+outbox.ReplayHeader)
	}
	if err != nil {
		return err
	}
	if r.Plan, err = storedPlan(run, r.config.Wal.Slot, identity); err != nil {
		return err
	}
	if len(run.Reached) > 0 {
		if err := json.Unmarshal(run.Reached, &r.reached); err != nil {
			return fmt.Errorf("read how far replay %s has come: %w", run.ID, err)
		}
	}
	r.run, r.before = run, run.Sent
	return nil
}

// Close lets go of everything.
func (r *Replay) Close() {
	if r.runs == nil {
		return
	}
	if err := r.runs.Close(); err != nil {
		r.logger.Warn("close the record of the replay", slog.String("error", err.Error()))
	}
}

// Count reads what would be sent, sends nothing, and says how many events it is.
func (r *Replay) Count(ctx context.Context) (rows int64, err error) {
	if !r.Plan.Exact() {
		return r.countTables(ctx)
	}
	e, err := r.openLog(ctx)
	if err != nil {
		return 0, err
	}
	err = e.each(ctx, func(batch wal.Batch) error {
		rows += int64(len(batch.Rows))
		r.progress(rows, e.stream.Read())
		return nil
	})
	return rows, err
}

// Run sends. A session that breaks for passing reasons is followed by another, from
// what is recorded. It returns nil when everything is with the broker, and the run's
// own error, which goes on with Plan.Run, when stop was closed before.
func (r *Replay) Run(ctx context.Context, stop <-chan struct{}) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	pause := firstPause
	for {
		sent := r.run.Sent
		err := r.attempt(ctx, stop)
		switch class := fault.Classify(err); {
		case r.run.Finished:
			return err
		case over(stop) || ctx.Err() != nil:
			return errors.Join(r.interrupted(), err)
		case err != nil && class != fault.Transient:
			return err
		case err == nil:
			err = errors.New("the session ended before the replay did")
		}
		if r.run.Sent != sent {
			pause = firstPause
		}
		r.logger.Warn("the replay is interrupted and goes on", slog.String("error", err.Error()), slog.Duration("pause", pause))
		if !wait(ctx, stop, pause) {
			return r.interrupted()
		}
		pause = min(2*pause, longestPause)
	}
}

// interrupted is what a replay ends with that was stopped.
func (r *Replay) interrupted() error {
	advice := "it goes on with --run " + r.Plan.Run
	if r.runs == nil {
		advice = fmt.Sprintf("plan it again with --from-lsn %v", max(r.Plan.From, r.reached.LSN))
	}
	return &fault.Error{
		Class: fault.Transient, Advice: advice,
		Err: fmt.Errorf("replay %s was stopped after %d events", r.Plan.Run, r.run.Sent),
	}
}

// Sent is how many events of the run are with the broker, earlier sessions included.
func (r *Replay) Sent() int64 { return r.run.Sent }

// begin records the run, unless it is one that goes on.
func (r *Replay) begin(ctx context.Context) error {
	if r.run.ID != "" {
		return nil
	}
	plan, err := json.Marshal(r.Plan)
	if err != nil {
		return fmt.Errorf("record the replay: %w", err)
	}
	r.run = checkpoint.Run{ID: r.Plan.Run, Slot: r.config.Wal.Slot, System: r.run.System, Plan: plan}
	if r.runs == nil {
		return nil
	}
	if err := r.runs.Prepare(ctx); err != nil {
		return err
	}
	return r.runs.Begin(ctx, r.run)
}

// attempt is one session.
func (r *Replay) attempt(ctx context.Context, stop <-chan struct{}) error {
	opening, opened := untilStop(ctx, stop)
	defer opened()
	broker, err := sink.Open(opening, r.config.Sink, r.config.SinkOptions)
	if err != nil {
		return err
	}
	s, err := r.session(opening, r.decorated(broker))
	if err != nil {
		broker.Close() //nolint:errcheck // nothing was sent
		return err
	}
	opened()
	defer s.close(r.logger)
	return s.run(ctx, stop)
}

// decorated gives events the header of the run, no faster than asked for.
func (r *Replay) decorated(broker sink.Sink) sink.Sink {
	broker = sink.Tagged(broker, sink.Header{Key: outbox.ReplayHeader, Value: []byte(r.Plan.Run)})
	if r.config.Rate > 0 {
		broker = sink.Limited(broker, r.config.Rate)
	}
	return broker
}

// session opens the source where the run has come to.
func (r *Replay) session(ctx context.Context, broker sink.Sink) (*session, error) {
	r.before = r.run.Sent
	store := &runStore{r: r}
	if r.Plan.Exact() {
		e, err := r.openLog(ctx)
		if err != nil {
			return nil, err
		}
		store.reach = func(mark wal.LSN) (reached, bool) { return reached{LSN: mark}, mark >= e.to }
		s := finiteSession(&r.config.Config, r.plan, e, broker, finiteStart{store: store, from: e.from})
		s.watch = func(ctx context.Context) error { return wal.Attend(ctx, r.config.Wal) }
		return s, nil
	}
	t, err := r.openTables(ctx)
	if err != nil {
		return nil, err
	}
	store.reach = func(mark wal.LSN) (reached, bool) {
		p, whole, ok := t.reached(mark)
		if !ok {
			p = r.reached.Table
		}
		return reached{Table: p}, whole
	}
	return finiteSession(&r.config.Config, r.plan, t, broker, finiteStart{store: store}), nil
}

// openLog opens the copy of the slot.
func (r *Replay) openLog(ctx context.Context) (*excerpt, error) {
	aside, err := r.aside(ctx)
	if err != nil {
		return nil, err
	}
	e, err := openExcerpt(ctx, r.config.Wal, r.Plan.Slot, max(r.Plan.From, r.reached.LSN), r.Plan.To)
	if err != nil {
		return nil, err
	}
	chosen := r.Plan.Filter.keeper(r.plan)
	e.keep = func(row *wal.Row) bool { return chosen(row) && !row.Time.Before(r.Plan.Since) && !aside[row.Place()] }
	return e, nil
}

// aside are rows that were never sent: they wait behind others of their aggregates, or were
// dropped. On a standby nobody knows what has become of them since.
func (r *Replay) aside(ctx context.Context) (places map[wal.Place]bool, err error) {
	if r.runs == nil {
		return places, nil
	}
	err = withConn(ctx, r.config.Wal, func(conn *wal.Conn) (err error) {
		places, err = conn.AsidePlaces(ctx, r.run.System)
		return err
	})
	return places, err
}

func (r *Replay) selection(table int) wal.Selection {
	return wal.Selection{Seen: r.Plan.Seen, Unseen: r.Plan.Unseen, Bounds: r.Plan.Filter.bounds(r.plan, table), Ordered: true}
}

// openTables opens the tables.
func (r *Replay) openTables(ctx context.Context) (*tableSource, error) {
	if r.config.Progress != nil && r.goal == 0 {
		goal, err := r.countTables(ctx)
		if err != nil {
			return nil, err
		}
		r.goal = goal + r.run.Sent
	}
	config, at := columnsOfTables(r.config.Wal)
	tables, err := wal.OpenTables(ctx, config)
	if err != nil {
		return nil, err
	}
	return &tableSource{
		tables: tables, at: at, selection: r.selection, begin: r.reached.Table,
		close: func() { tables.Close(context.WithoutCancel(ctx)) }, //nolint:errcheck // nothing is owed to it
	}, nil
}

// countTables is how many rows are left.
func (r *Replay) countTables(ctx context.Context) (rows int64, err error) {
	tables, err := wal.OpenTables(ctx, r.config.Wal)
	if err != nil {
		return 0, err
	}
	defer tables.Close(context.WithoutCancel(ctx)) //nolint:errcheck // as above
	for table := r.reached.Table.Table; table < len(r.config.Wal.Tables); table++ {
		selection := r.selection(table)
		if table == r.reached.Table.Table {
			selection.After = r.reached.Table.Seq
		}
		n, err := tables.Count(ctx, table, selection)
		if err != nil {
			return 0, err
		}
		rows += n
	}
	return rows, nil
}

// progress tells of rows, and of how far the log is read.
func (r *Replay) progress(rows int64, at wal.LSN) {
	if r.config.Progress == nil {
		return
	}
	p := ReplayProgress{Rows: rows, Goal: r.goal}
	switch {
	case r.Plan.Exact() && at > r.Plan.From:
		p.Part = min(1, float64(at-r.Plan.From)/float64(r.Plan.To-r.Plan.From))
	case r.goal > 0:
		p.Part = min(1, float64(rows)/float64(r.goal))
	}
	r.config.Progress(p)
}

// runStore records how far a run has come where a stream's session saves its
// position.
type runStore struct {
	r     *Replay
	reach func(mark wal.LSN) (at reached, whole bool)
	acked func() uint64 // rows of this session up to the mark
}

// Load is Store's; nobody asks.
func (s *runStore) Load(context.Context) (checkpoint.Position, error) {
	return checkpoint.Position{}, checkpoint.ErrNone
}

// Save is Store's.
func (s *runStore) Save(ctx context.Context, p checkpoint.Position) error {
	at, whole := s.reach(p.LSN)
	text, err := json.Marshal(at)
	if err != nil {
		return fmt.Errorf("record the replay: %w", err)
	}
	run := s.r.run
	run.Reached, run.Sent, run.Finished = text, s.r.before+int64(s.acked()), whole
	if s.r.runs != nil {
		if err := s.r.runs.Reach(ctx, run); err != nil {
			return err
		}
	}
	s.r.run, s.r.reached = run, at
	s.r.progress(run.Sent, at.LSN)
	return nil
}

// Close is Store's; the record outlives sessions.
func (s *runStore) Close() error { return nil }

// finiteStart is where a session of a finite source begins and who keeps how far it
// is.
type finiteStart struct {
	store checkpoint.Store
	from  wal.LSN
}

// finiteSession wires a session that ends with its source.
func finiteSession(config *Config, plan *outbox.Plan, source Source, broker sink.Sink, start finiteStart) *session {
	tracker := checkpoint.NewTracker(start.from)
	seen := &counters{}
	keeper := newSaver(start.store, checkpoint.Position{Slot: config.Wal.Slot, LSN: start.from}, config.SaveInterval)
	keeper.tracker, keeper.confirm, keeper.seen = tracker, source.Confirm, seen
	if s, ok := start.store.(*runStore); ok {
		s.acked = func() uint64 { return tracker.Mark().Rows }
	}
	return &session{
		source: source, mapper: outbox.NewMapper(plan), sink: broker,
		tracker: tracker, saver: keeper, budget: newBudget(config.BufferBytes),
		drain: config.DrainTimeout, queue: config.QueueBatches, finite: true, seen: seen, bugs: make(chan error, 1),
		read: func() wal.LSN { return tracker.Begun().LSN }, draining: func() {},
	}
}

// wait is false when the stop came first.
func wait(ctx context.Context, stop <-chan struct{}, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	case <-ctx.Done():
		return false
	}
}
