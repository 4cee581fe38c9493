package wal

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// ParkedRow is a row that was put aside with all that is needed to send it later.
type ParkedRow struct {
	Place

	XID  uint32    // for people
	Time time.Time // of the commit

	Schema, Table string // of the outbox table; empty for a logical message
	Names         []string
	Columns       [][]byte // in the order of Names; nil is NULL
	Shape         *Shape   // nil where the log was not read; Read is not kept

	Aggregate []byte // equal for rows that keep an order; not empty
	Type, ID  []byte // of the aggregate, for people; nil where there is none
	Event     []byte // its id; nil where there is none

	Cause  string // a word
	Reason string // a sentence that shows no values

	ParkedAt time.Time
	Asked    string // what is asked for: AskRetry, AskDrop or nothing
}

// What may be asked for, and what becomes of a row.
const (
	AskRetry = "retry"
	AskDrop  = "drop"

	ParkedSent    = "sent"
	ParkedDropped = "dropped"
)

// Bytes is the size of the row's columns.
func (r *ParkedRow) Bytes() int {
	n := 0
	for _, c := range r.Columns {
		n += len(c)
	}
	return n
}

// Source is where the row was written, for people.
func (r *ParkedRow) Source() string {
	if r.Schema == "" && r.Table == "" {
		return "logical messages"
	}
	return Table{Schema: r.Schema, Name: r.Table}.display()
}

// ParkedHead is what a stream must know of a row beforehand.
type ParkedHead struct {
	Place

	Aggregate []byte
	Bytes     int
	Cause     string
	Reason    string
	Settled   bool // sent or dropped; else it is parked
}

// Parking keeps rows that were put aside, in the table outboxcdc.parked of the database
// that they come from (migration 0007). What it has written is durable on return. It
// connects when it is first needed, and again after an error. One goroutine uses it at a
// time.
type Parking struct {
	config Config
	system string // of the log that is read; see bring
	pg     *pgconn.PgConn
}

const (
	parkingTimeout = 30 * time.Second // for one statement, which takes milliseconds

	// settledAge is for how long a row that was sent or dropped is still told of.
	settledAge = "7 days"
)

// NewParking is for the slot of config; system is the cluster's identifier.
func NewParking(config Config, system string) *Parking {
	return &Parking{config: config, system: system}
}

// Close lets go of the connection.
func (p *Parking) Close() error {
	if p.pg == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := hangUp(ctx, p.pg)
	p.pg = nil
	return err
}

// use gives do a connection and bounds its time. A connection with an error behind it
// is not used again.
func (p *Parking) use(ctx context.Context, what string, do func(ctx context.Context) error) error {
	if p.pg == nil {
		pg, _, err := connectPlain(ctx, p.config)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		p.pg = pg
	}
	answer, cancel := context.WithTimeout(ctx, parkingTimeout)
	defer cancel()
	err := do(answer)
	if err == nil {
		return nil
	}
	p.Close() //nolint:errcheck // the first error says more
	if answer.Err() != nil && ctx.Err() == nil {
		return &fault.Error{
			Class: fault.Transient, Err: fmt.Errorf("%s: no answer of the database within %v", what, parkingTimeout),
			Advice: "look at its load, its disk and the locks on outboxcdc.parked",
		}
	}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "42501" { // insufficient_privilege
		return fault.NewOperator(fmt.Errorf("%s: %w", what, err), parkingGrant)
	}
	return fmt.Errorf("%s: %w", what, setUpFault(err))
}

// parkingGrant is what the table of parked rows wants, for streams and for who looks.
const parkingGrant = "GRANT SELECT, INSERT, UPDATE, DELETE ON outboxcdc.parked TO the role of --database-url, and USAGE on its schema"

// change runs SQL that is durable on return, even where the role or the database has
// synchronous_commit off. No standby is waited for, as one may be a stream of ours. It
// gives how many rows the last statement changed.
func (p *Parking) change(ctx context.Context, what, sql string) (rows int64, err error) {
	err = p.use(ctx, what, func(ctx context.Context) error {
		results, err := p.pg.Exec(ctx, "BEGIN; SET LOCAL synchronous_commit = local; "+sql+"; COMMIT").ReadAll()
		if n := len(results); err == nil && n > 1 {
			rows = results[n-2].CommandTag.RowsAffected()
		}
		return err
	})
	return rows, err
}

// ours is SQL for the rows of the slot, also those that wait since it was a slot of
// another cluster.
func (p *Parking) ours() string { return "slot = " + quoteText(p.config.Slot) }

// here is SQL for the rows whose positions are of the log of this cluster.
func (p *Parking) here() string { return p.ours() + " AND system = " + quoteText(p.system) }

// bring makes rows that wait since the database was in another cluster, before an upgrade
// of it for one, rows of this one, ahead of all that a stream that starts at from will
// read. They keep their order; where their positions are not below from, the last ones
// below are theirs.
func (p *Parking) bring(ctx context.Context, from LSN) error {
	_, err := p.change(ctx, "take along the parked rows of another cluster", fmt.Sprintf(`UPDATE outboxcdc.parked q SET system = %s,
		commit_lsn = CASE WHEN o.top < %s THEN q.commit_lsn ELSE %[2]s - o.place END, index = CASE WHEN o.top < %[2]s THEN q.index ELSE 0 END
		FROM (SELECT system, commit_lsn, index, max(commit_lsn) OVER () AS top, row_number() OVER (ORDER BY commit_lsn DESC, index DESC, system) AS place
			FROM outboxcdc.parked WHERE %[3]s AND system <> %[1]s AND state = 'parked') o
		WHERE %[3]s AND (q.system, q.commit_lsn, q.index) = (o.system, o.commit_lsn, o.index)`, quoteText(p.system), quoteLSN(from), p.ours()))
	return err
}

// Load gives what is parked, and of what is settled that which a stream that starts at
// from may read again, in the order of the log. What was settled long ago is forgotten.
func (p *Parking) Load(ctx context.Context, from LSN) (heads []ParkedHead, err error) {
	if _, err := p.change(ctx, "tidy the parked rows", "DELETE FROM outboxcdc.parked WHERE "+p.ours()+
		" AND state <> 'parked' AND settled_at < now() - interval '"+settledAge+"' AND (commit_lsn < "+quoteLSN(from)+" OR system <> "+quoteText(p.system)+")"); err != nil {
		return nil, err
	}
	if err := p.bring(ctx, from); err != nil {
		return nil, err
	}
	type form struct {
		Commit    position `json:"commit_lsn"`
		Index     int      `json:"index"`
		Aggregate hexBytes `json:"aggregate"`
		Bytes     int      `json:"bytes"`
		Cause     string   `json:"cause"`
		Reason    string   `json:"reason"`
		Settled   bool     `json:"settled"`
	}
	err = p.use(ctx, "load the parked rows", func(ctx context.Context) error {
		all, err := fetch[form](ctx, p.pg, "SELECT row_to_json(h)::text FROM (SELECT commit_lsn, index, aggregate, bytes, cause, reason, state <> 'parked' AS settled FROM outboxcdc.parked WHERE "+
			p.here()+" AND (state = 'parked' OR commit_lsn >= "+quoteLSN(from)+") ORDER BY outboxcdc.parked.commit_lsn, outboxcdc.parked.index) h")
		heads = make([]ParkedHead, len(all))
		for i, f := range all {
			heads[i] = ParkedHead{Place{LSN(f.Commit), f.Index}, f.Aggregate, f.Bytes, f.Cause, f.Reason, f.Settled}
		}
		return err
	})
	return heads, err
}

// Park keeps rows, all of them or none. One that is there already stays as it is.
func (p *Parking) Park(ctx context.Context, rows []ParkedRow) error {
	var sql strings.Builder
	sql.WriteString("INSERT INTO outboxcdc.parked (slot, system, commit_lsn, index, xid, committed_at, table_schema, table_name, " +
		"aggregate, aggregate_type, aggregate_id, event_id, column_names, columns, shape, bytes, cause, reason) VALUES ")
	for i := range rows {
		r := &rows[i]
		if i > 0 {
			sql.WriteString(", ")
		}
		shape, err := shapeSQL(r.Shape)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sql, "(%s, %s, %s, %d, %d, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %d, %s, %s)",
			quoteText(p.config.Slot), quoteText(p.system), quoteLSN(r.Commit), r.Index, r.XID, quoteTime(r.Time), quoteText(r.Schema), quoteText(r.Table),
			quoteBytes(r.Aggregate), quoteBytes(r.Type), quoteBytes(r.ID), quoteBytes(r.Event), quoteTexts(r.Names), quoteAllBytes(r.Columns), shape,
			r.Bytes(), quoteText(r.Cause), quoteText(r.Reason))
	}
	sql.WriteString(" ON CONFLICT (slot, system, commit_lsn, index) DO NOTHING")
	_, err := p.change(ctx, "park "+strconv.Itoa(len(rows))+" rows", sql.String())
	return err
}

// Rekey notes of parked rows whose they are, by Aggregate and Type; all of them or none.
func (p *Parking) Rekey(ctx context.Context, rows []ParkedRow) error {
	values := make([]string, len(rows))
	for i := range rows {
		r := &rows[i]
		values[i] = fmt.Sprintf("(%s, %d, %s, %s)", quoteLSN(r.Commit), r.Index, quoteBytes(r.Aggregate), quoteBytes(r.Type))
	}
	_, err := p.change(ctx, "note whose parked rows are", "UPDATE outboxcdc.parked q SET aggregate = v.aggregate, aggregate_type = v.aggregate_type FROM (VALUES "+
		strings.Join(values, ", ")+") v (commit_lsn, index, aggregate, aggregate_type) WHERE "+p.ours()+" AND state = 'parked' AND (q.commit_lsn, q.index) = (v.commit_lsn, v.index)")
	return err
}

// Request is what is asked of an aggregate: some of its rows are to be dropped, and what
// then is parked of it is to be sent when Retry says so.
type Request struct {
	Aggregate []byte
	Retry     bool
}

// Asked gives what is asked for, in no order.
func (p *Parking) Asked(ctx context.Context) (requests []Request, err error) {
	type form struct {
		Aggregate hexBytes `json:"aggregate"`
		Retry     bool     `json:"retry"`
	}
	err = p.use(ctx, "ask what is to become of parked rows", func(ctx context.Context) error {
		all, err := fetch[form](ctx, p.pg, "SELECT row_to_json(a)::text FROM (SELECT aggregate, bool_or(asked = '"+AskRetry+"') AS retry FROM outboxcdc.parked WHERE "+
			p.ours()+" AND state = 'parked' AND asked IS NOT NULL GROUP BY aggregate) a")
		for _, f := range all {
			requests = append(requests, Request{f.Aggregate, f.Retry})
		}
		return err
	})
	return requests, err
}

// Rows gives the parked rows of an aggregate behind a place, in the order of the log, at
// most limit of them and no more than about bytes bytes but for the first.
func (p *Parking) Rows(ctx context.Context, aggregate []byte, after Place, limit, bytes int) (rows []ParkedRow, err error) {
	where := fmt.Sprintf("%s AND state = 'parked' AND aggregate = %s AND (commit_lsn, index) > (%s, %d)", p.ours(), quoteBytes(aggregate), quoteLSN(after.Commit), after.Index)
	sql := fmt.Sprintf("SELECT row_to_json(r)::text FROM (SELECT %s FROM (SELECT *, sum(bytes) OVER (ORDER BY commit_lsn, index) - bytes AS before "+
		"FROM outboxcdc.parked WHERE %s) q WHERE before < %d ORDER BY q.commit_lsn, q.index LIMIT %d) r", parkedSQL, where, bytes, limit)
	err = p.use(ctx, "read parked rows", func(ctx context.Context) error {
		rows, err = p.fetchRows(ctx, sql)
		return err
	})
	return rows, err
}

// Settle notes that rows of an aggregate up to a place were sent on request, also one of
// which meanwhile was asked that it be dropped; and that the others are to be, too: rows
// that were parked after the request belong to it.
func (p *Parking) Settle(ctx context.Context, aggregate []byte, upTo Place) error {
	line := p.ours() + " AND state = 'parked' AND aggregate = " + quoteBytes(aggregate)
	_, err := p.change(ctx, "note that parked rows were sent", fmt.Sprintf("UPDATE outboxcdc.parked SET state = '%s', asked = NULL, settled_at = clock_timestamp() "+
		"WHERE %s AND (commit_lsn, index) <= (%s, %d); UPDATE outboxcdc.parked SET asked = '%s' WHERE %[2]s AND asked IS NULL",
		ParkedSent, line, quoteLSN(upTo.Commit), upTo.Index, AskRetry))
	return err
}

// Drop notes that the rows of an aggregate that are to be dropped are, and says which.
func (p *Parking) Drop(ctx context.Context, aggregate []byte) (rows []ParkedRow, err error) {
	err = p.use(ctx, "drop parked rows", func(ctx context.Context) error {
		rows, err = p.fetchRows(ctx, fmt.Sprintf("BEGIN; SET LOCAL synchronous_commit = local; UPDATE outboxcdc.parked SET state = '%s', asked = NULL, settled_at = clock_timestamp() "+
			"WHERE %s AND state = 'parked' AND asked = '%s' AND aggregate = %s RETURNING row_to_json((SELECT r FROM (SELECT %s) r))::text",
			ParkedDropped, p.ours(), AskDrop, quoteBytes(aggregate), parkedSQL))
		if err == nil {
			err = execute(ctx, p.pg, "COMMIT")
		}
		return err
	})
	return rows, err
}

// Refuse notes that a row cannot be sent still, and why, and that no retry is asked of its
// aggregate any more. A drop that was asked for meanwhile is.
func (p *Parking) Refuse(ctx context.Context, row *ParkedRow, cause, reason string) error {
	_, err := p.change(ctx, "note that a parked row cannot be sent", fmt.Sprintf("UPDATE outboxcdc.parked SET asked = nullif(asked, '"+AskRetry+"'), "+
		"(cause, reason) = (SELECT CASE WHEN (commit_lsn, index) = (%s, %d) THEN %s ELSE cause END, CASE WHEN (commit_lsn, index) = (%[1]s, %[2]d) THEN %[4]s ELSE reason END) "+
		"WHERE %[5]s AND state = 'parked' AND aggregate = %[6]s",
		quoteLSN(row.Commit), row.Index, quoteText(cause), quoteText(reason), p.ours(), quoteBytes(row.Aggregate)))
	return err
}

// parkedSQL are the columns of a ParkedRow. Texts that JSON or DateStyle would change go
// as bytes or numbers.
const parkedSQL = `commit_lsn, index, xid, (extract(epoch FROM committed_at) * 1000000)::bigint AS committed, table_schema, table_name, aggregate, aggregate_type,
	aggregate_id, event_id, column_names, columns, shape, cause, reason, (extract(epoch FROM parked_at) * 1000000)::bigint AS parked, coalesce(asked, '') AS asked`

type parkedForm struct {
	Commit    position   `json:"commit_lsn"`
	Index     int        `json:"index"`
	XID       uint32     `json:"xid"`
	Committed int64      `json:"committed"`
	Schema    string     `json:"table_schema"`
	Table     string     `json:"table_name"`
	Aggregate hexBytes   `json:"aggregate"`
	Type      hexBytes   `json:"aggregate_type"`
	ID        hexBytes   `json:"aggregate_id"`
	Event     hexBytes   `json:"event_id"`
	Names     []string   `json:"column_names"`
	Columns   []hexBytes `json:"columns"`
	Shape     *Shape     `json:"shape"`
	Cause     string     `json:"cause"`
	Reason    string     `json:"reason"`
	Parked    int64      `json:"parked"`
	Asked     string     `json:"asked"`
}

func (p *Parking) fetchRows(ctx context.Context, sql string) ([]ParkedRow, error) {
	all, err := fetch[parkedForm](ctx, p.pg, sql)
	if err != nil {
		return nil, err
	}
	rows := make([]ParkedRow, len(all))
	for i := range all {
		f := &all[i]
		rows[i] = ParkedRow{
			Place: Place{LSN(f.Commit), f.Index}, XID: f.XID, Time: time.UnixMicro(f.Committed).UTC(), Schema: f.Schema, Table: f.Table, Names: f.Names,
			Shape: f.Shape, Aggregate: f.Aggregate, Type: f.Type, ID: f.ID, Event: f.Event,
			Cause: f.Cause, Reason: f.Reason, ParkedAt: time.UnixMicro(f.Parked).UTC(), Asked: f.Asked,
		}
		for _, c := range f.Columns {
			rows[i].Columns = append(rows[i].Columns, c)
		}
		if len(rows[i].Columns) != len(rows[i].Names) {
			return nil, fault.NewOperator(fmt.Errorf("the parked row at %v has %d columns and %d names", rows[i].Place, len(f.Columns), len(f.Names)),
				"restore the row in outboxcdc.parked from a backup, or drop it")
		}
	}
	return rows, nil
}

// hexBytes are bytea in JSON: the text that Postgres gives with bytea_output = hex, or
// null.
type hexBytes []byte

var errNoHex = errors.New("it is no bytea in hexadecimal form")

// UnmarshalJSON reads the text form strictly.
func (b *hexBytes) UnmarshalJSON(text []byte) error {
	var s *string
	if err := json.Unmarshal(text, &s); err != nil || s == nil {
		*b = nil
		return err
	}
	digits, ok := strings.CutPrefix(*s, `\x`)
	if !ok {
		return errNoHex
	}
	bytes, err := hex.DecodeString(digits)
	if err != nil {
		return errNoHex
	}
	*b = bytes
	return nil
}

func quoteLSN(l LSN) string { return "'" + l.String() + "'::pg_lsn" }

func quoteTime(t time.Time) string {
	return fmt.Sprintf("to_timestamp(%d / 1000000.0)", t.UnixMicro())
}

// quoteBytes is a bytea; nil is NULL.
func quoteBytes(b []byte) string {
	if b == nil {
		return "NULL::bytea"
	}
	return `'\x` + hex.EncodeToString(b) + "'::bytea"
}

func quoteAllBytes(all [][]byte) string {
	texts := make([]string, len(all))
	for i, b := range all {
		texts[i] = quoteBytes(b)
	}
	return "ARRAY[" + strings.Join(texts, ", ") + "]::bytea[]"
}

func quoteTexts(all []string) string {
	texts := make([]string, len(all))
	for i, t := range all {
		texts[i] = quoteText(t)
	}
	return "ARRAY[" + strings.Join(texts, ", ") + "]::text[]"
}

// shapeSQL keeps what does not depend on the columns that a stream reads.
func shapeSQL(s *Shape) (string, error) {
	if s == nil {
		return "NULL", nil
	}
	kept := *s
	kept.Read = nil
	text, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("keep the shape of table %s.%s: %w", s.Schema, s.Name, err)
	}
	return quoteText(string(text)) + "::jsonb", nil
}

// Reading is the shape for rows of which the columns of names are read.
func (s *Shape) Reading(columns []Column) *Shape {
	if s == nil {
		return nil
	}
	reading := *s
	reading.Read = make([]int, len(columns))
	for i, c := range columns {
		reading.Read[i] = indexOf(s.Columns, c.Name)
	}
	return &reading
}
