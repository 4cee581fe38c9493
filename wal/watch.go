package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// DefaultWatchInterval is how often Watch looks unless told otherwise.
const DefaultWatchInterval = 2 * time.Second

// lookTimeout bounds one look, so that a link that is dead is not waited for.
const lookTimeout = 15 * time.Second

// WatchState is what Watch saw.
type WatchState struct {
	Slot   Slot
	End    LSN    // of the log
	Sample Sample // without a snapshot where something is wrong or the server gives none
}

// Watch looks at publication, tables and slot every interval, from an ordinary
// connection beside the stream, and hands report what it sees. It returns when
// something would let rows pass unsent that the stream cannot notice itself (an
// operator error), when the connection breaks (transient), or with ctx's error.
// report is called by one goroutine and must not block.
//
// A table that is dropped and made again under its name is no longer published, and
// the stream stays healthy and silent; so does one that leaves the publication and
// comes back, and a server of version 18 skips a publication that is missing. Watch
// remembers the identity of all three from its first look, in memory: handed to the
// next Watch after a lost connection, it finds what was changed in between.
//
// Between two looks it listens. A server that shuts down sends ordinary sessions
// away at once while it waits for walsenders until they have confirmed everything,
// so this is how a stream whose broker is away learns that it should let go.
func Watch(ctx context.Context, config Config, interval time.Duration, memory *Memory, report func(WatchState)) error {
	pg, version, err := connectPlain(ctx, config)
	if err != nil {
		return fmt.Errorf("watch slot %s: %w", config.Slot, err)
	}
	defer hangUp(context.WithoutCancel(ctx), pg) //nolint:errcheck // nothing is owed to it
	if interval <= 0 {
		interval = DefaultWatchInterval
	}
	w := watcher{pg: pg, config: config, version: version, memory: memory, report: report}
	for err == nil {
		if err = w.look(ctx); err == nil {
			err = w.listen(ctx, interval)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("watch slot %s: %w", config.Slot, err)
}

type watcher struct {
	pg      *pgconn.PgConn
	config  Config
	version int
	memory  *Memory
	report  func(WatchState)
}

// Memory is what Watch has seen of tables that rows come from. Its zero value has
// seen nothing. One Watch uses it at a time.
type Memory struct {
	first []member // what the first look saw; nil before
	well  LSN      // the end of the log when all was well last; 0 before
}

// member is a table's place in the publication. Each part changes when something
// was dropped and made again, and the last when what is published may have been
// something else for a while.
type member struct {
	publication, table, membership int64
	altered                        uint32
}

func (w *watcher) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	// The end of the log comes first: what is well afterwards was well there.
	slot, err := w.slot(ctx)
	if err != nil {
		return err
	}
	// A snapshot before the publication: rows that a table got while it was not
	// published are not visible in one that is found well afterwards.
	sample, err := w.sample(ctx)
	if err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	p, err := readPublished(ctx, w.pg, w.config, w.version)
	if droppedMeanwhile(err) {
		p, err = readPublished(ctx, w.pg, w.config, w.version)
	}
	if err != nil {
		return err
	}
	if err = fault.Failures(p.judge(w.config)); err == nil {
		err = w.same(p)
	}
	if err == nil {
		slot.Sample = sample
	}
	w.report(slot)
	if err != nil {
		return w.since(err)
	}
	w.memory.well = slot.End
	return nil
}

// droppedMeanwhile says that a table was dropped between the catalog's telling of it
// and the opening of it, for which the server has no code of its own (relation.c,
// relation_open: elog).
func droppedMeanwhile(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	return ok && server.Code == "XX000"
}

// since adds to an error from where in the log on rows may be missing.
func (w *watcher) since(err error) error {
	if w.memory.well == 0 {
		return err
	}
	return fmt.Errorf("after %v, where all was well: %w", w.memory.well, err)
}

// slot reads the slot and refuses one that went missing or was invalidated, which
// a stream would otherwise learn only when the server ends it.
func (w *watcher) slot(ctx context.Context) (WatchState, error) {
	type end struct {
		End      position `json:"end"`
		Standby  bool     `json:"standby"`
		Database string   `json:"database"`
	}
	// The slot before the end of the log, which bounds it: both move meanwhile.
	slot, exists, err := readSlot(ctx, w.pg, w.config.Slot)
	if err != nil {
		return WatchState{}, fmt.Errorf("look at the slot: %w", err)
	}
	at, _, err := fetchOne[end](ctx, w.pg, "SELECT row_to_json(t)::text FROM (SELECT "+endOfLog+
		` AS "end", pg_is_in_recovery() AS standby, current_database() AS database) t`)
	if err != nil {
		return WatchState{}, fmt.Errorf("look at the end of the log: %w", err)
	}
	server := serverFacts{End: at.End, Standby: at.Standby, Database: at.Database}
	if err := fault.Failures(judgeSlot(w.config, server, slotFacts{Slot: slot, exists: exists})); err != nil {
		return WatchState{}, err
	}
	return WatchState{Slot: slot, End: LSN(at.End)}, nil
}

// same compares with the first look.
func (w *watcher) same(p published) error {
	now := make([]member, len(p.tables))
	for i := range p.tables {
		now[i] = member{publication: p.publication.OID, table: p.tables[i].OID, membership: p.tables[i].Membership, altered: p.publication.Altered}
	}
	if w.memory.first == nil {
		w.memory.first = now
		return nil
	}
	for i, t := range w.config.Tables {
		if what := now[i].changed(w.memory.first[i]); what != "" {
			advice := fmt.Sprintf("rows inserted in between were not sent: run outboxcdc recover --slot %s --anew, which sends those that the table holds", w.config.Slot)
			if what == alteredPublication {
				advice += "; if just the owner was changed nothing is missing: start the stream again"
			}
			return fault.NewOperator(fmt.Errorf("table %s: %s while it was streamed", t.display(), what), advice)
		}
	}
	return nil
}

// alteredPublication is of options (publish, publish_via_partition_root) or the owner: the
// row in the catalog, a new version of which each makes, is the same again.
const alteredPublication = "its publication was altered, and may have left inserts out,"

func (m member) changed(before member) string {
	switch {
	case m.table != before.table:
		return "it was dropped and made again"
	case m.publication != before.publication:
		return "its publication was dropped and made again"
	case m.membership != before.membership:
		return "it left the publication and came back"
	case m.altered != before.altered:
		return alteredPublication
	default:
		return ""
	}
}

// listen waits for the next look, or for the server to end the session.
func (w *watcher) listen(ctx context.Context, interval time.Duration) error {
	until, cancel := context.WithTimeout(ctx, interval)
	defer cancel()
	for {
		err := w.pg.WaitForNotification(until)
		switch {
		case err == nil: // somebody notifies a channel that we do not listen to
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded) && !w.pg.IsClosed():
			return nil
		default:
			return Fault(err)
		}
	}
}
