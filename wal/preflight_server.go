package wal

import (
	"fmt"
	"strings"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

const (
	smallKeepBytes = 1 << 30         // less log than this is written within minutes
	oldTransaction = 5 * time.Minute // by then nobody is at the keyboard
)

// serverFacts is what is asked about the server.
type serverFacts struct {
	Version       string   `json:"version"`
	Major         int      `json:"major"`
	WALLevel      string   `json:"wal_level"`
	Standby       bool     `json:"standby"`
	End           position `json:"end"`
	Encoding      string   `json:"encoding"`
	Database      string   `json:"database"`
	Application   string   `json:"application"`
	MaxSlots      int      `json:"max_slots"`
	Slots         int      `json:"slots"`
	MaxSenders    int      `json:"max_senders"`
	Senders       int      `json:"senders"`
	KeepMegabytes int64    `json:"keep_megabytes"` // -1: no limit
	IdleTimeout   string   `json:"idle_timeout"`   // with its unit; empty before 18
	Synchronous   string   `json:"synchronous"`
}

// serverSQL looks at the server. Settings that a major does not have read as null.
const serverSQL = `SELECT row_to_json(t)::text FROM (SELECT
	current_setting('server_version') AS version,
	current_setting('server_version_num')::int / 10000 AS major,
	coalesce(current_setting('effective_wal_level', true), current_setting('wal_level')) AS wal_level,
	pg_is_in_recovery() AS standby,
	` + endOfLog + ` AS "end",
	current_setting('server_encoding') AS encoding,
	current_database() AS database,
	current_setting('application_name') AS application,
	current_setting('max_replication_slots')::int AS max_slots,
	(SELECT count(*) FROM pg_replication_slots) AS slots,
	current_setting('max_wal_senders')::int AS max_senders,
	(SELECT count(*) FROM pg_stat_replication) AS senders,
	(SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep_megabytes,
	current_setting('idle_replication_slot_timeout', true) AS idle_timeout,
	current_setting('synchronous_standby_names') AS synchronous) t`

func judgeServer(s serverFacts, slotExists bool) []fault.Finding {
	f := findings{subject: "server"}
	// From 19 on, replica becomes logical by itself with the first logical slot.
	if s.WALLevel != "logical" && (s.Major < 19 || s.WALLevel != "replica") {
		f.failure(CodeWALLevel, fmt.Sprintf("wal_level is %s, which leaves no rows in the log to read", s.WALLevel),
			"run ALTER SYSTEM SET wal_level = 'logical' and restart the server "+
				"(on Amazon RDS set rds.logical_replication = 1, on Cloud SQL cloudsql.logical_decoding = on)")
	}
	if s.Standby {
		f.failure(CodeStandby, "it is a standby, whose slots do not hold back the primary's log",
			"name the primary, or all servers of the cluster, in the database URL")
	}
	f.capacity(s, slotExists)
	f.retention(s)
	if capturedBy(s.Synchronous, s.Application) {
		f.warning(CodeSynchronous, fmt.Sprintf("synchronous_standby_names is %s, so every commit may wait for this stream", s.Synchronous),
			"name the standbys in it one by one, and not "+s.Application)
	}
	if s.Encoding == "SQL_ASCII" {
		f.warning(CodeEncoding, "the database has the encoding SQL_ASCII, so text is passed on unchecked and need not be UTF-8",
			"write nothing but UTF-8 into the outbox, or move it to a database with the encoding UTF8")
	}
	return f.orOK(CodeServer, fmt.Sprintf("PostgreSQL %s with wal_level %s", s.Version, s.WALLevel))
}

func (f *findings) capacity(s serverFacts, slotExists bool) {
	if !slotExists && s.Slots >= s.MaxSlots {
		f.failure(CodeSlotsFull, fmt.Sprintf("all %d replication slots are taken", s.MaxSlots),
			"drop one that nobody uses, or raise max_replication_slots and restart the server")
	}
	if s.Senders >= s.MaxSenders {
		f.warning(CodeSendersFull, fmt.Sprintf("all %d walsenders are taken, so a stream that breaks may find no room to come back", s.MaxSenders),
			"raise max_wal_senders and restart the server")
	}
}

func (f *findings) retention(s serverFacts) {
	if keep := s.KeepMegabytes << 20; keep >= 0 && keep < smallKeepBytes {
		f.warning(CodeKeepSize, fmt.Sprintf("max_slot_wal_keep_size is %s, so the slot is lost once that much log is written while nobody streams",
			humanBytes(keep)),
			"raise it to what is written during the longest outage to be survived: ALTER SYSTEM SET max_slot_wal_keep_size = '…'; SELECT pg_reload_conf();")
	}
	if s.IdleTimeout != "" && s.IdleTimeout != "0" {
		f.warning(CodeIdleTimeout, fmt.Sprintf("idle_replication_slot_timeout is %s, so the slot is lost when nobody streams for that long", s.IdleTimeout),
			"run ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();")
	}
}

// capturedBy says whether synchronous_standby_names means us: by our name, which
// it compares without case, or by a star. The words of its grammar before the
// parentheses (FIRST 2, ANY 1, a bare number) are no names.
func capturedBy(names, application string) bool {
	if method, list, ok := strings.Cut(names, "("); ok && !strings.Contains(method, `"`) {
		names = strings.TrimRight(strings.TrimSpace(list), ")")
	}
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		if unquoted, ok := strings.CutPrefix(name, `"`); ok {
			name = strings.ReplaceAll(strings.TrimSuffix(unquoted, `"`), `""`, `"`)
		}
		if name == "*" || name != "" && strings.EqualFold(name, application) {
			return true
		}
	}
	return false
}

// transactionFacts is a transaction that has written and still runs. An ordinary
// role learns the age of its own sessions and of prepared transactions only.
type transactionFacts struct {
	PID         int32  `json:"pid"` // 0 when prepared
	Prepared    string `json:"prepared"`
	Application string `json:"application_name"`
	Database    string `json:"database"`
	State       string `json:"state"`
	Seconds     int64  `json:"seconds"`
}

const transactionSQL = `SELECT row_to_json(t)::text FROM (
	SELECT pid, '' AS prepared, coalesce(application_name, '') AS application_name, coalesce(datname, '') AS database,
		coalesce(state, '') AS state, extract(epoch FROM now() - xact_start)::bigint AS seconds
	FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL
	UNION ALL
	SELECT 0, gid, '', database, '', extract(epoch FROM now() - prepared)::bigint FROM pg_prepared_xacts
	ORDER BY seconds DESC LIMIT 3) t`

func judgeTransactions(transactions []transactionFacts) []fault.Finding {
	f := findings{subject: "transactions"}
	for _, t := range transactions {
		age := time.Duration(t.Seconds) * time.Second
		switch {
		case age < oldTransaction:
		case t.Prepared != "":
			f.warning(CodeTransaction, fmt.Sprintf("transaction %q in database %s has been prepared for %v, which keeps log and lets no slot be made",
				t.Prepared, displayName(t.Database), age),
				fmt.Sprintf("in that database run COMMIT PREPARED %s or ROLLBACK PREPARED %[1]s", quoteText(t.Prepared)))
		default:
			f.warning(CodeTransaction, fmt.Sprintf("pid %d (%s, database %s, %s) has had a transaction open for %v, which keeps log and lets no slot be made",
				t.PID, t.Application, displayName(t.Database), t.State, age),
				fmt.Sprintf("end it in the application, or run SELECT pg_terminate_backend(%d)", t.PID))
		}
	}
	return f.all
}
