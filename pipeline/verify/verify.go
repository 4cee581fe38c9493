// Package verify compares outbox tables with the topics that their events went to.
//
// It answers, for a range of rows: is the event of every row there, as the row says,
// once, and behind the earlier events of its aggregate. It only reads: SELECT on the
// tables, Read and Describe on the topics. It knows both ends, as pipeline does,
// and nothing of streaming: it works while a stream runs and when there is none.
//
// # How
//
// The tables are read in one snapshot, and each row is mapped as the stream maps it.
// Then the topics are read up to where they end after that. From either side an
// entry of 67 bytes goes to a temporary file, in one of 256 buckets by the digest of
// the event's id; from a record another of 50 bytes by its key. In the end the
// buckets are compared one by one. So memory does not grow with the topics but for
// one bit a record: eight megabytes for buffers, and for a hundred million events
// some eighty for the bucket at hand. The disk takes 184 bytes an event.
//
// # What it cannot know
//
// A row that was deleted is not looked for; its record counts as rowless, as that of
// a row outside of the range does. A row whose event is not there may be on its way:
// it counts as missing only when the slot was past the whole snapshot before the ends
// of the topics were asked for, or when there is no slot that could bring it. Where
// retention or compaction remove records, a row that may be old enough counts as
// expired. Rows that were written before the slot was made were never in its stream:
// leave them out with the range.
package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Config says what is compared. Wal.Slot, the names in Wal.Tables, and Sink are
// required.
type Config struct {
	Wal         wal.Config // the columns of its tables are set by Run
	Sink        string     // URL of the sink
	SinkOptions sink.Options
	Outbox      outbox.Config // how rows become messages, as the stream has it

	FromSeq, ToSeq int64     // rows by their column seq, both included; 0 is no limit
	Since          time.Time // rows by their column created_at, and records by their time; zero is no limit

	Wait      time.Duration // for a slot that has not confirmed the snapshot, when rows are not there
	Directory string        // for temporary files; empty is the system's
	Progress  func(Progress)
	Logger    *slog.Logger // nil discards
}

// Progress is how far a run is.
type Progress struct {
	Rows, Records int64 // read so far
	Goal          int64 // records to read; 0 while rows are read
}

// progressEvery is how many rows or records lie between two calls of Progress.
const progressEvery = 10_000

// slotLook is how often the slot is looked at while it is waited for.
const slotLook = 500 * time.Millisecond

// The columns that Run reads beside the outbox columns.
const (
	columnSeq       = "seq"
	columnCreatedAt = "created_at"
)

// places are where the columns that Run looks at stand in a table's rows.
type places struct{ id, seq, created int }

// run is one comparison.
type run struct {
	config Config
	tables *wal.Tables
	reader sink.Reader
	mapper *outbox.Mapper
	hasher *hasher
	at     []places

	events *spool
	orders *spool
	topics map[string]bool
	known  string          // the last topic that was put into topics
	aside  map[digest]Kind // rows that the stream has put aside: Parked or Dropped
	denied bool            // nobody may say which those are
	names  []string        // topics in the order in which records came from them
	parts  map[part]*partition

	report   Report
	horizon  int64 // microseconds: retention may have removed what is not younger
	anything bool  // compaction may have removed anything
	snapshot wal.LSN
	settled  bool
	nameless int64 // rows without an id, which no event can be made of
	scratch  []byte
	messages []sink.Message
}

// Run compares. An error means that it could not; what it found is in the report,
// and Report.Err judges that.
func Run(ctx context.Context, config Config) (*Report, error) {
	r, err := newRun(config)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if r.tables, err = wal.OpenTables(ctx, r.config.Wal); err != nil {
		return nil, err
	}
	if r.reader, err = sink.OpenReader(ctx, config.Sink, config.SinkOptions); err != nil {
		return nil, err
	}
	if err := r.readTables(ctx); err != nil {
		return nil, err
	}
	if err := r.compareSettled(ctx); err != nil {
		return nil, err
	}
	return &r.report, nil
}

func newRun(config Config) (*run, error) {
	if config.Outbox.WithoutPosition {
		return nil, fault.NewUsage(errors.New("records of this format carry no position, by which rows and records are compared"),
			"verify streams of the native format")
	}
	if _, cloud := config.Outbox.Format.(outbox.CloudEvents); cloud {
		return nil, fault.NewUsage(errors.New("a CloudEvent holds the time of its commit, which a row of a table does not know, so the two never compare equal"),
			"verify streams of the native format")
	}
	plan, err := outbox.NewPlan(config.Outbox, config.Wal.Tables)
	if err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Progress == nil {
		config.Progress = func(Progress) {}
	}
	r := &run{hasher: newHasher(), topics: map[string]bool{}, parts: map[part]*partition{}}
	config.Wal.Tables = plan.Tables()
	for i := range config.Wal.Tables {
		at, err := placesOf(plan, i, &config.Wal.Tables[i])
		if err != nil {
			return nil, err
		}
		r.at = append(r.at, at)
	}
	r.config = config
	r.mapper = outbox.NewMapper(plan)
	for _, name := range plan.Topics() {
		r.topics[name] = true
	}
	if r.events, err = newSpool(config.Directory, eventBytes); err != nil {
		return nil, err
	}
	if r.orders, err = newSpool(config.Directory, orderBytes); err != nil {
		r.events.close()
		return nil, err
	}
	return r, nil
}

// placesOf asks for the columns that Run looks at, beside those of the mapper.
func placesOf(plan *outbox.Plan, number int, t *wal.Table) (places, error) {
	at := places{id: plan.Column(number, outbox.RoleID)}
	if at.id < 0 {
		return at, fault.NewUsage(fmt.Errorf("table %s.%s has no column for the event's id", t.Schema, t.Name), "what has no name cannot be looked for: name one with --column id=…")
	}
	t.Columns[at.id].Required = true
	for _, each := range []struct {
		name  string
		place *int
	}{{columnSeq, &at.seq}, {columnCreatedAt, &at.created}} {
		*each.place = slices.IndexFunc(t.Columns, func(c wal.Column) bool { return c.Name == each.name })
		if *each.place < 0 {
			*each.place = len(t.Columns)
			t.Columns = append(t.Columns, wal.Column{Name: each.name})
		}
	}
	return at, nil
}

func (r *run) close() {
	if r.tables != nil {
		r.tables.Close(context.Background()) //nolint:errcheck // nothing is owed to it
	}
	if r.reader != nil {
		r.reader.Close()
	}
	r.events.close()
	r.orders.close()
}

// readTables takes the snapshot and an entry of each row in it.
func (r *run) readTables(ctx context.Context) error {
	var err error
	if r.snapshot, err = r.tables.Freeze(ctx); err != nil {
		return err
	}
	r.report.Snapshot = r.snapshot.String()
	for table := range r.config.Wal.Tables {
		shape, err := r.tables.Shape(ctx, table)
		if err != nil {
			return err
		}
		err = r.tables.Scan(ctx, table, r.bounds(), func(columns [][]byte) error { return r.addRow(table, shape, columns) })
		if err != nil {
			return err
		}
	}
	return r.tables.Thaw(ctx)
}

func (r *run) bounds() []wal.Bound {
	seq := wal.Bound{Column: columnSeq}
	if r.config.FromSeq != 0 {
		seq.From = strconv.FormatInt(r.config.FromSeq, 10)
	}
	if r.config.ToSeq != 0 {
		seq.To = strconv.FormatInt(r.config.ToSeq, 10)
	}
	created := wal.Bound{Column: columnCreatedAt}
	if !r.config.Since.IsZero() {
		created.From = r.config.Since.UTC().Format(time.RFC3339Nano)
	}
	return []wal.Bound{seq, created}
}

func (r *run) addRow(table int, shape *wal.Shape, columns [][]byte) error {
	r.report.Rows++
	if r.report.Rows%progressEvery == 0 {
		r.config.Progress(Progress{Rows: r.report.Rows})
	}
	at := r.at[table]
	e := event{kind: kindRow, identity: r.identity(columns[at.id])}
	e.topic, e.offset = uint16(table), created(columns[at.created])
	if columns[at.seq] != nil {
		seq, err := strconv.ParseInt(string(columns[at.seq]), 10, 64)
		if err == nil { // else it is no number, and only missed in examples
			e.number = uint64(seq)
		}
	}
	var err error
	r.messages, err = r.mapper.Map([]wal.Row{{Table: table, Shape: shape, Columns: columns}}, r.messages[:0])
	switch {
	case columns[at.id] == nil:
		r.nameless++
		r.report.example(r.rowExample(Unmappable, &e))
		return nil
	case fault.Classify(err) == fault.Data:
		e.kind = kindUnmappable
	case err != nil:
		return err
	default:
		m := &r.messages[0]
		e.content = r.hasher.message(m)
		if m.Topic != r.known {
			r.known = m.Topic
			r.topics[m.Topic] = true
		}
	}
	r.scratch = e.append(r.scratch[:0])
	return r.events.put(r.scratch)
}

// identity is what a row and a record have in common.
func (r *run) identity(id []byte) digest { return r.hasher.of([]byte("id"), id) }

// created reads the text of a timestamptz in UTC, in microseconds; 0 when it is
// none.
func created(text []byte) int64 {
	at, err := time.Parse("2006-01-02 15:04:05.999999-07", string(text))
	if err != nil {
		return 0
	}
	return at.UnixMicro()
}

// compareSettled compares, and does so again with what came meanwhile when rows are
// not there and the slot had not confirmed them.
func (r *run) compareSettled(ctx context.Context) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	if err := r.compareOnce(ctx); err != nil {
		return err
	}
	if r.report.Unsettled > 0 && r.config.Wait > 0 {
		r.config.Logger.Info("rows are not on the topics and not confirmed: waiting for the slot",
			slog.Int64("rows", r.report.Unsettled), slog.String("confirmed", r.report.Confirmed), slog.String("snapshot", r.report.Snapshot))
		if err := r.await(ctx); err != nil {
			return err
		}
		if err := r.compareOnce(ctx); err != nil {
			return err
		}
	}
	return r.nameRows(ctx)
}

// look says whether everything in the snapshot is settled: the slot is past it, or
// no slot will bring it any more. It comes before the ends of the topics are asked
// for.
func (r *run) look(ctx context.Context) error {
	slot, ok, err := r.tables.Slot(ctx)
	if err != nil {
		return err
	}
	r.settled = !ok || slot.WALStatus == "lost" || slot.Confirmed >= r.snapshot
	r.report.Confirmed = ""
	if ok {
		r.report.Confirmed = slot.Confirmed.String()
	}
	return r.lookAside(ctx)
}

// lookAside learns which rows the stream has put aside. A row is put aside before the
// slot is past it, and sent from there before it is noted as sent: what is asked between
// the slot and the ends of the topics is neither on its way nor there unseen.
func (r *run) lookAside(ctx context.Context) error {
	rows, told, err := r.tables.Aside(ctx)
	if err != nil {
		return err
	}
	r.denied, r.aside = !told, make(map[digest]Kind, len(rows))
	for i := range rows {
		kind := Parked
		if rows[i].Dropped {
			kind = Dropped
		}
		r.aside[r.identity(rows[i].Event)] = kind
	}
	return nil
}

// await waits until everything is settled, at most as long as was asked for.
func (r *run) await(ctx context.Context) error {
	if err := r.tables.Push(ctx); err != nil {
		r.config.Logger.Warn("a stream that is idle cannot be moved on", slog.String("error", err.Error()))
	}
	deadline := time.Now().Add(r.config.Wait)
	clock := time.NewTicker(slotLook)
	defer clock.Stop()
	for !r.settled && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
		if err := r.look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// nameRows gives the rows among the examples their ids, which entries do not hold.
func (r *run) nameRows(ctx context.Context) error {
	wanted := map[digest][]*Example{}
	for i := range r.report.Examples {
		if e := &r.report.Examples[i]; e.identity != (digest{}) {
			wanted[e.identity] = append(wanted[e.identity], e)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	for table := range r.config.Wal.Tables {
		err := r.tables.Scan(ctx, table, r.bounds(), func(columns [][]byte) error {
			for _, e := range wanted[r.identity(columns[r.at[table].id])] {
				e.Row = string(columns[r.at[table].id])
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("look up the rows of the examples: %w", err)
		}
	}
	return nil
}
