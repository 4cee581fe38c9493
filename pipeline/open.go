package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// open brings a session up: compare what is saved with what the server says, make
// what is missing at the first start only, connect to the broker, start the slot.
// The slot comes last, so that an instance that cannot publish does not hold it.
func (r *Runner) open(ctx context.Context) (*session, error) {
	if err := r.openStore(ctx, r.config.streamsOptions()); err != nil {
		return nil, err
	}
	conn, err := wal.Connect(ctx, r.config.Wal)
	if err != nil {
		return nil, err
	}
	s, err := r.openWith(ctx, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return s, nil
}

// openStore opens the store once a Runner: it outlives sessions and connects
// again by itself.
func (r *Runner) openStore(ctx context.Context, options checkpoint.Options) error {
	if r.store != nil {
		return nil
	}
	store, err := checkpoint.Open(ctx, r.config.Checkpoint, options)
	if err != nil {
		return err
	}
	if preparer, ok := store.(checkpoint.Preparer); ok {
		made, err := preparer.Prepare(ctx)
		if err != nil {
			return errors.Join(err, store.Close())
		}
		for _, what := range made {
			r.logger.Info("made what the checkpoint needs", slog.String("made", what))
		}
	}
	r.store = store
	return nil
}

func (r *Runner) openWith(ctx context.Context, conn *wal.Conn) (*session, error) {
	position, err := r.prepare(ctx, conn)
	if err != nil {
		return nil, err
	}
	broker, err := sink.Open(ctx, r.config.Sink, r.config.SinkOptions)
	if err != nil {
		return nil, err
	}
	stream, err := conn.Start(ctx, position.LSN)
	if err != nil {
		broker.Close() //nolint:errcheck // nothing was sent
		return nil, err
	}
	var s *session
	if err = r.unchanged(ctx, position); err == nil {
		r.describeBy(ctx)
		s = r.newSession(stream, broker, position)
		err = s.aside.load(ctx, position.LSN)
	}
	if err != nil {
		stream.Close()
		broker.Close() //nolint:errcheck // as above
		return nil, err
	}
	return s, nil
}

// unchanged looks once more at what is saved, now that the slot is ours and nobody
// else saves: an instance that has just let go of it may have saved after we loaded.
// The next session starts from there.
func (r *Runner) unchanged(ctx context.Context, position checkpoint.Position) error {
	saved, err := r.load(ctx)
	switch {
	case err != nil:
		return err
	case saved != nil && saved.LSN != position.LSN:
		return fmt.Errorf("another instance saved %v while this one was about to start at %v", saved.LSN, position.LSN)
	default:
		return nil
	}
}

// prepare decides where the session starts, with everything in place for it. The
// position that it gives is saved.
func (r *Runner) prepare(ctx context.Context, conn *wal.Conn) (checkpoint.Position, error) {
	var none checkpoint.Position
	e, err := r.gather(ctx, conn)
	if err != nil {
		return none, err
	}
	verdict, err := judge(e)
	if err != nil {
		return none, err
	}
	accepted := r.accepts(e, verdict)
	if err := verdict.err(); err != nil && !accepted {
		return none, err
	}
	if accepted {
		if err := r.makeRoom(ctx, conn, e); err != nil {
			return none, err
		}
	}
	if verdict.Kind == Redelivery {
		r.logger.Warn("the stream goes on after a failover", slog.String("window", verdict.Sentence))
	}
	if err := r.preflight(ctx, conn, verdict.Kind == FirstStart || accepted); err != nil {
		return none, err
	}
	if e.slot, err = r.free(ctx, conn); err != nil {
		return none, err
	}
	if err := r.nothingParked(ctx, conn); err != nil {
		return none, err
	}
	if err := r.register(ctx, conn, verdict.Kind == FirstStart); err != nil {
		return none, err
	}
	if accepted {
		return r.accept(ctx, conn, e, verdict)
	}
	return r.anchor(ctx, e, verdict)
}

// register notes what is streamed, before anything of it is: which rows are sent can
// then be told of their transactions. A store that forgets at each start would note
// all of them anew each time, and one outside of the database may do without.
func (r *Runner) register(ctx context.Context, conn *wal.Conn, first bool) error {
	if r.forgetful() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	reasons, err := conn.Register(ctx, first)
	if err == nil {
		err = conn.Begin(ctx)
	}
	if errors.Is(err, wal.ErrNotSetUp) && !checkpoint.InDatabase(r.config.Checkpoint) {
		r.logger.Debug("the database does not know what is streamed", slog.String("error", err.Error()))
		err = nil
	}
	for _, reason := range reasons {
		r.logger.Info("the state of some rows is unknown", slog.String("rows", reason))
	}
	return err
}

// free gives the slot when nobody streams from it.
func (r *Runner) free(ctx context.Context, conn *wal.Conn) (*wal.Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	slot, err := r.slot(ctx, conn)
	switch {
	case err != nil:
		return nil, err
	case slot == nil:
		return nil, fmt.Errorf("slot %s has just gone", r.config.Wal.Slot)
	case slot.Active:
		return nil, conn.Busy(ctx, *slot)
	default:
		return slot, nil
	}
}

// gather asks for each position before the one that bounds it: confirmed, saved, end
// of the log. Another instance may stream meanwhile, and asked in the other order a
// healthy slot would seem to be ahead. A slot that is missing while something is
// saved is asked for again: the other instance may just have made it.
func (r *Runner) gather(ctx context.Context, conn *wal.Conn) (evidence, error) {
	bounded, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	e, err := r.gatherOnce(bounded, conn)
	if err == nil && e.slot == nil && e.saved != nil {
		e, err = r.gatherOnce(bounded, conn)
	}
	e.history = func() ([]wal.TimelineSwitch, error) { // asked later, when that bound is gone
		bounded, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		return conn.History(bounded, e.identity.Timeline)
	}
	return e, err
}

func (r *Runner) gatherOnce(ctx context.Context, conn *wal.Conn) (evidence, error) {
	e := evidence{messages: r.config.Wal.MessagePrefix != "", messagesOnly: len(r.config.Wal.Tables) == 0}
	var err error
	if e.slot, err = r.slot(ctx, conn); err != nil {
		return e, err
	}
	if e.saved, err = r.load(ctx); err != nil {
		return e, err
	}
	if e.identity, err = conn.Identify(ctx); err != nil || e.saved != nil || r.forgetful() {
		return e, err
	}
	e.streamed, _, err = conn.Streamed(ctx)
	return e, err
}

// forgetful says whether the store forgets at each start.
func (r *Runner) forgetful() bool {
	_, forgetful := r.store.(*checkpoint.Memory)
	return forgetful
}

// load gives nil when nothing is saved.
func (r *Runner) load(ctx context.Context) (*checkpoint.Position, error) {
	saved, err := r.store.Load(ctx)
	switch {
	case errors.Is(err, checkpoint.ErrNone):
		return nil, nil //nolint:nilnil // nothing saved is an answer
	case err != nil:
		return nil, fmt.Errorf("load the saved position of slot %s: %w", r.config.Wal.Slot, err)
	default:
		return &saved, nil
	}
}

// slot gives nil when there is none.
func (r *Runner) slot(ctx context.Context, conn *wal.Conn) (*wal.Slot, error) {
	slot, exists, err := conn.Slot(ctx)
	if err != nil || !exists {
		return nil, err
	}
	return &slot, nil
}

// preflight refuses what must be fixed and warns of the rest. At the first start
// it makes what is missing, publication before slot: a slot decodes its log with
// the publication of that time.
func (r *Runner) preflight(ctx context.Context, conn *wal.Conn, first bool) error {
	findings, err := r.findings(ctx, conn)
	if err != nil {
		return err
	}
	if first {
		made, err := r.makeMissing(ctx, conn, findings)
		if err != nil {
			return err
		}
		if made {
			if findings, err = r.findings(ctx, conn); err != nil {
				return err
			}
		}
	}
	r.warn(findings)
	if first {
		findings = slices.DeleteFunc(findings, makesItself)
	}
	return fault.Failures(findings)
}

// openTimeout bounds what a server may take to answer while a session is opened. The
// creation of a slot has no bound: it waits for the transactions that run.
const openTimeout = time.Minute

func (r *Runner) findings(ctx context.Context, conn *wal.Conn) ([]fault.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	findings, err := wal.Preflight(ctx, conn)
	if err != nil {
		return nil, err
	}
	judged, err := judgeFormat(ctx, r.config.Outbox.Format, r.config.Wal.Tables, conn)
	if err != nil || r.config.OnError != OnErrorPark {
		return append(findings, judged...), err
	}
	parking, err := conn.CheckParking(ctx)
	return append(append(findings, judged...), parking), err
}

// makesItself says whether a first start mends the finding once the others are
// mended: it would only hide them.
func makesItself(f fault.Finding) bool {
	return f.Code == wal.CodePublicationMissing || f.Code == wal.CodeSlotMissing
}

// makeMissing makes publication and slot where findings miss them, and nothing
// when something else must be fixed first.
func (r *Runner) makeMissing(ctx context.Context, conn *wal.Conn, findings []fault.Finding) (made bool, err error) {
	missing := map[string]bool{}
	for _, f := range findings {
		switch {
		case makesItself(f):
			missing[f.Code] = true
		case f.Severity == fault.Failure:
			return false, nil
		}
	}
	if missing[wal.CodePublicationMissing] {
		bounded, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		if _, err := conn.CreatePublication(bounded); err != nil {
			return false, err
		}
		r.logger.Info("made the publication", slog.String("publication", r.config.Wal.Publication))
	}
	if missing[wal.CodeSlotMissing] {
		at, err := conn.CreateSlot(ctx)
		if err != nil {
			return false, err
		}
		r.logger.Info("made the slot: events committed from now on are streamed",
			slog.String("slot", r.config.Wal.Slot), slog.String("at", at.String()))
	}
	return len(missing) > 0, nil
}

// warn logs what works today but may hurt later, once a process.
func (r *Runner) warn(findings []fault.Finding) {
	if r.warned {
		return
	}
	r.warned = true
	for _, f := range findings {
		if f.Severity == fault.Warning {
			r.logger.Warn("preflight", slog.String("subject", f.Subject), slog.String("problem", f.Problem), slog.String("fix", f.Fix))
		}
	}
}

// anchor saves where the session starts when that is news: at the first start, so
// that a slot that goes missing from now on is noticed, and on a new timeline.
func (r *Runner) anchor(ctx context.Context, e evidence, verdict Verdict) (checkpoint.Position, error) {
	if verdict.Kind != FirstStart && e.saved.Timeline == e.identity.Timeline {
		return *e.saved, nil
	}
	position := r.positionAt(e, max(verdict.start, e.slot.Confirmed))
	var err error
	if position.Delivered, err = r.carry(ctx, e, position.LSN); err != nil {
		return position, err
	}
	if !position.Delivered.Known() {
		position.Delivered = e.confirmed(position)
	}
	if err := r.store.Save(ctx, position); err != nil {
		return position, fmt.Errorf("save the start of slot %s: %w", position.Slot, err)
	}
	return position, nil
}

// describeBy gives a Whole format the means to ask the catalog during the session. A
// stop does not take them away: what was read is still to be sent.
func (r *Runner) describeBy(ctx context.Context) {
	if format, ok := r.plan.Whole(); ok {
		format.DescribeBy(func(schema, table string) ([]wal.ColumnFacts, error) {
			return r.describe(context.WithoutCancel(ctx), schema, table)
		})
	}
}

// describe asks the catalog for the columns of a table, over a connection of its own:
// that of the stream can ask nothing. It is called at the first row of each shape.
func (r *Runner) describe(ctx context.Context, schema, table string) ([]wal.ColumnFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := wal.Connect(ctx, r.config.Wal)
	if err != nil {
		return nil, err
	}
	columns, err := conn.Describe(ctx, schema, table)
	return columns, errors.Join(err, conn.Close(ctx))
}

// newSession wires a session's parts together.
func (r *Runner) newSession(stream *wal.Stream, broker sink.Sink, position checkpoint.Position) *session {
	tracker := checkpoint.NewTracker(position.LSN)
	keeper := newSaver(r.store, position, r.config.SaveInterval)
	keeper.tracker, keeper.confirm, keeper.seen, keeper.kept = tracker, stream.Confirm, &r.seen, &r.kept
	keeper.historic = cmp.Or(r.config.HistoryInterval, checkpoint.DefaultHistoryInterval)
	s := &session{
		source:   stream,
		mapper:   outbox.NewMapper(r.plan),
		sink:     broker,
		tracker:  tracker,
		saver:    keeper,
		budget:   newBudget(r.config.BufferBytes),
		drain:    r.config.DrainTimeout,
		queue:    r.config.QueueBatches,
		read:     stream.Read,
		draining: func() { r.board.set(Draining, "a stop was asked for") },
		bugs:     make(chan error, 1),
		watch:    func(ctx context.Context) error { return r.watch(ctx, stream, keeper) },
		seen:     &r.seen,
	}
	r.putAside(s, broker, wal.NewParking(r.config.Wal, position.System))
	if r.config.ReplayWindow != (Window{}) {
		s.trail = r.trail
	}
	if r.config.MarkSent != "" || r.config.DeleteSent {
		s.sweep = func(ctx context.Context) error { return r.keepSwept(ctx, keeper) }
	}
	return s
}

// trail keeps the replay window. It reads the history from a store of its own, since
// the session's is the saver's.
func (r *Runner) trail(ctx context.Context) error {
	t := &trail{config: r.config.Wal, window: r.config.ReplayWindow, logger: r.logger}
	t.history = func(ctx context.Context) ([]checkpoint.Entry, error) {
		store, err := checkpoint.Open(ctx, r.config.Checkpoint, r.config.storeOptions())
		if err != nil {
			return nil, err
		}
		defer store.Close() //nolint:errcheck // nothing was saved
		historian, ok := store.(checkpoint.Historian)
		if !ok {
			return nil, nil
		}
		return historian.History(ctx)
	}
	return t.run(ctx, r.config.TrailInterval)
}

// watch looks at slot and publication from a connection of its own.
//
// A slot that stands behind what we confirm is not ours any more: nobody else can move it
// while we stream from it. As a rule a successor does, while we were frozen; the stream
// learns that its connection has gone after us, where it waits for the broker. The next
// session compares the slot with what is saved, and so tells a successor from a stranger.
func (r *Runner) watch(ctx context.Context, stream *wal.Stream, keeper *saver) error {
	watching, leave := context.WithCancel(ctx)
	defer leave()
	told := map[string]bool{}
	var moved error
	err := wal.Watch(watching, r.config.Wal, r.config.WatchInterval, &r.memory, func(seen wal.WatchState) {
		r.board.look(seen)
		r.tell(told)
		keeper.offer(seen.Sample)
		// Looked at before our own position, which only grows.
		if confirmed := stream.Confirmed(); seen.Slot.Confirmed > confirmed {
			moved = fmt.Errorf("slot %s stands at %v while this instance has confirmed what is before %v: another one has taken over, or somebody moved it",
				seen.Slot.Name, seen.Slot.Confirmed, confirmed)
			leave()
		}
	})
	if moved != nil && ctx.Err() == nil {
		return moved
	}
	if fault.Classify(err) == fault.Operator {
		keeper.delivered.distrusted.Store(true)
	}
	return err
}
