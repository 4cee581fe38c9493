package wal

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Codes of the findings of Preflight. They are stable: a first start mends the two
// missing ones by itself, and scripts may go by any.
const (
	CodeServer              = "server"               // version and settings are fine
	CodeWALLevel            = "server.wal_level"     // no logical decoding
	CodeStandby             = "server.standby"       // in recovery
	CodeSlotsFull           = "server.slots_full"    // no room for another slot
	CodeSendersFull         = "server.senders_full"  // no room for another walsender
	CodeKeepSize            = "server.keep_size"     // log is kept for too short an outage
	CodeIdleTimeout         = "server.idle_timeout"  // a stopped stream loses its slot
	CodeSynchronous         = "server.synchronous"   // commits wait for us
	CodeEncoding            = "server.encoding"      // text need not be UTF-8
	CodeTable               = "table"                // the table is fine
	CodeTableMissing        = "table.missing"        // no table of that name
	CodeTableKind           = "table.kind"           // a view, a foreign table, an unlogged one …
	CodeColumnMissing       = "column.missing"       // a required column
	CodeColumnGenerated     = "column.generated"     // the server does not send it
	CodeColumnType          = "column.type"          // cannot be what it was named for
	CodePublication         = "publication"          // the publication is fine
	CodeMessages            = "messages"             // who may write messages is said
	CodeMessagesGrant       = "messages.grant"       // everybody may
	CodePublicationMissing  = "publication.missing"  // no publication of that name
	CodePublicationInsert   = "publication.insert"   // inserts are not published
	CodePublicationTable    = "publication.table"    // a table is not in it
	CodePublicationFilter   = "publication.filter"   // rows are held back
	CodePublicationColumns  = "publication.columns"  // columns are held back
	CodePublicationRoot     = "publication.root"     // rows carry the names of partitions
	CodePublicationIdentity = "publication.identity" // the application's updates and deletes fail
	CodePublicationOthers   = "publication.others"   // other tables are sent for nothing
	CodeSlot                = "slot"                 // the slot is fine
	CodeSlotMissing         = "slot.missing"         // no slot of that name
	CodeSlotForeign         = "slot.foreign"         // of another kind, plugin or database
	CodeSlotLost            = "slot.lost"            // invalidated
	CodeSlotSynced          = "slot.synced"          // a standby's copy
	CodeSlotTwoPhase        = "slot.two_phase"       // would lose prepared transactions
	CodeSlotAhead           = "slot.ahead"           // confirmed what was never written
	CodeSlotActive          = "slot.active"          // another process streams from it
	CodeSlotRetained        = "slot.retained"        // soon to be lost
	CodeTransaction         = "transaction.old"      // a long transaction pins the log
)

// Preflight looks at everything that would stop the stream or hurt somebody, and
// gives one finding for each, with what to do about it. What is fine is said in one
// finding for the server, each table, the publication and the slot. It changes
// nothing and makes sense before publication and slot exist. An error means that it
// could not look.
func Preflight(ctx context.Context, c *Conn) ([]fault.Finding, error) {
	// The slot before the end of the log, which bounds it: both move meanwhile.
	slot, err := c.slotFacts(ctx)
	if err != nil {
		return nil, err
	}
	server, _, err := fetchOne[serverFacts](ctx, c.pg, serverSQL)
	if err != nil {
		return nil, fmt.Errorf("look at the server: %w", err)
	}
	published, err := readPublished(ctx, c.pg, c.config, c.version)
	if err != nil {
		return nil, err
	}
	if published.others, _, err = fetchOne[int](ctx, c.pg, othersSQL(c.config)); err != nil {
		return nil, fmt.Errorf("look for other published tables: %w", err)
	}
	c.oids = published.oids()
	transactions, err := fetch[transactionFacts](ctx, c.pg, transactionSQL)
	if err != nil {
		return nil, fmt.Errorf("look for old transactions: %w", err)
	}
	messages, err := c.judgeMessages(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Concat(
		judgeServer(server, slot.exists),
		messages,
		published.judge(c.config),
		judgeSlot(c.config, server, slot),
		judgeTransactions(transactions),
	), nil
}

// slotFacts is what is asked about the slot.
type slotFacts struct {
	Slot
	exists bool
	holder string // who streams from it, when somebody does
}

func (c *Conn) slotFacts(ctx context.Context) (slotFacts, error) {
	var facts slotFacts
	var err error
	if facts.Slot, facts.exists, err = c.Slot(ctx); err != nil {
		return facts, err
	}
	holder, held, err := c.Holder(ctx)
	if !held { // it has just gone, or come
		holder = Holder{PID: facts.ActivePID}
	}
	facts.holder = holder.String()
	return facts, err
}

// published is what is asked about the tables and the publication, both at the start
// and while streaming.
type published struct {
	tables      []tableFacts
	publication publicationFacts
	exists      bool // the publication
	others      int  // tables in it that are not ours; asked by Preflight only, since it may take long
}

// readPublished reads the publication first: when another instance makes it between the
// two statements, it is missing, which a first start mends, and never there without its
// tables, which only a person could.
func readPublished(ctx context.Context, pg *pgconn.PgConn, config Config, version int) (published, error) {
	var p published
	var err error
	p.publication, p.exists, err = fetchOne[publicationFacts](ctx, pg, publicationSQL(config))
	if err != nil {
		return p, fmt.Errorf("look at publication %s: %w", displayName(config.Publication), err)
	}
	if len(config.Tables) == 0 {
		return p, nil
	}
	if p.tables, err = fetch[tableFacts](ctx, pg, tablesSQL(config, version)); err != nil {
		return p, fmt.Errorf("look at the tables: %w", err)
	}
	return p, nil
}

// oids are the tables' identities in their order, which a change of name leaves as
// they are; 0 where there is no table.
func (p published) oids() []uint32 {
	all := make([]uint32, len(p.tables))
	for i := range p.tables {
		all[i] = uint32(p.tables[i].OID)
	}
	return all
}

func (p published) judge(config Config) []fault.Finding {
	var all []fault.Finding
	for i, t := range config.Tables {
		all = append(all, judgeTable(t, p.tables[i])...)
	}
	if !p.exists {
		return append(all, missingPublication(config))
	}
	return append(all, judgePublication(config, p)...)
}

// findings collects what is found about one subject.
type findings struct {
	subject string
	all     []fault.Finding
}

func (f *findings) failure(code, problem, fix string) {
	f.all = append(f.all, fault.Finding{
		Code: code, Severity: fault.Failure, Subject: f.subject, Problem: problem, Fix: fix,
	})
}

func (f *findings) warning(code, problem, fix string) {
	f.all = append(f.all, fault.Finding{
		Code: code, Severity: fault.Warning, Subject: f.subject, Problem: problem, Fix: fix,
	})
}

// orOK gives what was found, or one finding that all is fine.
func (f *findings) orOK(code, fine string) []fault.Finding {
	if len(f.all) == 0 {
		return []fault.Finding{{Code: code, Severity: fault.OK, Subject: f.subject, Problem: fine}}
	}
	return f.all
}

// humanBytes is a size for people.
func humanBytes(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	size, unit := float64(n), 0
	for size >= 1024 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	if size == float64(int64(size)) {
		return fmt.Sprintf("%.0f %s", size, units[unit])
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}
