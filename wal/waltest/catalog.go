package waltest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/outboxcdc/outboxcdc/wal"
)

// Who the server says it is.
const (
	System   = "7300000000000000001"
	Database = "d"
	slotName = "orders"
	timeline = 1
)

// Table is what the catalogs show of the one table that there is.
type Table struct {
	OID     int64
	Columns []string
}

func defaultTable() Table {
	return Table{OID: 16400, Columns: []string{"id", "aggregate_type", "aggregate_id", "event_type", "payload", "headers"}}
}

// object is a row as row_to_json gives it.
type object map[string]any

// question is a query that the server knows by what stands in it and nowhere else.
type question struct {
	tells  string
	answer func(s *Server) []any
}

// questions are those of the packages wal and checkpoint, the more telling first.
// s.mu is held for all of them.
var questions = []question{ //nolint:gochecknoglobals // a table
	{"pg_create_logical_replication_slot", (*Server).createSlot},
	{"AS max_senders", (*Server).serverFacts},
	{"AS standby, current_database() AS database", (*Server).endFacts},
	{"AS retained_bytes", (*Server).slotFacts},
	{"min(streamed_lsn)", func(*Server) []any { return []any{"0/0"} }},
	{"INSERT INTO outboxcdc.unsure", func(*Server) []any { return []any{0} }},
	{"pg_current_snapshot()", (*Server).sampleFacts},
	{"outboxcdc.register(", func(*Server) []any { return []any{""} }},
	{"c.relname = 'parked'", func(*Server) []any { return []any{false} }},
	{"active_pid AS pid", (*Server).holderFacts},
	{"backend_xid IS NOT NULL", func(*Server) []any { return nil }},
	{"proname = 'pg_logical_emit_message'", func(*Server) []any { return nil }},
	{"pg_publication_rel m", (*Server).tableFacts},
	{"to_json(count(*))", func(*Server) []any { return []any{0} }},
	{"to_json(EXISTS (SELECT FROM pg_publication", func(s *Server) []any { return []any{s.published} }},
	{"pubinsert, pubviaroot, xmin", (*Server).publicationFacts},
}

// catalog answers what is asked about the server.
func (s *Server) catalog(sql string) (columns []string, rows [][]string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case sql == "show transaction_read_only":
		return []string{"transaction_read_only"}, [][]string{{"off"}}, true
	case sql == "IDENTIFY_SYSTEM":
		return []string{"systemid", "timeline", "xlogpos", "dbname"},
			[][]string{{System, fmt.Sprint(timeline), s.end.String(), Database}}, true
	case strings.HasSuffix(sql, "LIMIT 0"): // whether tables are there, which they are
		return nil, nil, true
	case strings.Contains(sql, "CREATE PUBLICATION"):
		s.published = true
		return nil, nil, true
	}
	for _, q := range questions {
		if strings.Contains(sql, q.tells) {
			return []string{"json"}, asJSON(q.answer(s)), true
		}
	}
	return nil, nil, false
}

func asJSON(objects []any) [][]string {
	rows := make([][]string, len(objects))
	for i, o := range objects {
		text, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		rows[i] = []string{string(text)}
	}
	return rows
}

func (s *Server) createSlot() []any {
	s.slot = slot{confirmed: s.end, durable: s.end}
	return []any{object{"lsn": s.end.String()}}
}

func (s *Server) serverFacts() []any {
	return []any{object{
		"version": "17.0", "major": 17, "wal_level": "logical", "standby": false, "end": s.end.String(),
		"encoding": "UTF8", "database": Database, "application": "outboxcdc", "max_slots": 10, "slots": 1,
		"max_senders": 10, "senders": 1, "keep_megabytes": -1, "idle_timeout": "0", "synchronous": "",
	}}
}

func (s *Server) endFacts() []any {
	return []any{object{"end": s.end.String(), "standby": false, "database": Database}}
}

// sampleFacts is a snapshot in which the transactions are numbered by the log: each
// that ends at or before its end is visible.
func (s *Server) sampleFacts() []any {
	return []any{object{
		"snapshot": fmt.Sprintf("%d:%[1]d:", uint64(s.end)), "at": s.end.String(), "timeline": timeline, "system": System,
	}}
}

func (s *Server) slotFacts() []any {
	if s.slot.missing {
		return nil
	}
	row := object{
		"slot_name": slotName, "plugin": "pgoutput", "slot_type": "logical", "database": Database,
		"active": s.slot.holder != nil, "active_pid": nil, "restart_lsn": s.slot.durable.String(),
		"confirmed_flush_lsn": s.slot.confirmed.String(), "wal_status": "reserved", "safe_wal_size": nil,
		"retained_bytes": max(0, int64(s.end)-int64(s.slot.durable)),
	}
	if s.slot.holder != nil {
		row["active_pid"] = s.slot.holder.pid
	}
	return []any{row}
}

func (s *Server) holderFacts() []any {
	if s.slot.holder == nil {
		return nil
	}
	return []any{object{"pid": s.slot.holder.pid, "role": "u", "application_name": "outboxcdc"}}
}

func (s *Server) tableFacts() []any {
	columns := make([]object, len(s.Table.Columns))
	for i, name := range s.Table.Columns {
		columns[i] = object{"name": name, "type": "text", "base": "text", "generated": ""}
	}
	row := object{
		"oid": s.Table.OID, "kind": "r", "persistence": "p", "identity": true, "columns": columns, "published": s.published,
	}
	if s.published {
		row["membership"], row["attnames"] = s.Table.OID+1, s.Table.Columns
	}
	return []any{row}
}

func (s *Server) publicationFacts() []any {
	if !s.published {
		return nil
	}
	return []any{object{"oid": s.Table.OID + 2, "pubinsert": true, "pubviaroot": true}}
}

// Saved is the position in the checkpoint table for a slot; 0 when there is none.
func (s *Server) Saved(slot string) wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved[slot].lsn
}
