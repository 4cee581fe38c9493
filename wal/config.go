package wal

import (
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Config says what is read, and from where. The zero value of every field but
// Slot, Publication and Tables is usable.
type Config struct {
	// Database is a libpq URI or key=value string. Empty means the PG*
	// environment variables alone.
	Database string

	Slot        string
	Publication string
	Tables      []Table

	// MessagePrefix asks for logical messages (pg_logical_emit_message) with this
	// prefix, as Rows whose one column is the content: its bytes as they were written,
	// which nobody converts to UTF-8. Empty reads none, and then Tables may not be
	// empty.
	//
	// A transactional message is a row of its transaction, in its place. One that is not
	// is Alone: it comes at once, whatever becomes of the transaction that wrote it. Its
	// Commit is the position of the last byte of its record, where no commit record can
	// begin, so that no row of a transaction has the same; its Time is when the server
	// sent it.
	MessagePrefix string

	// StatusInterval is how often the slot is told at least where we are; 0 means
	// DefaultStatusInterval. What has been newly confirmed is told within half of it,
	// half a second at the most.
	StatusInterval time.Duration

	// Silence of the server after which the link counts as dead; 0 means
	// DefaultSilence. A walsender that decodes a large transaction of tables that
	// are not published neither sends nor listens, and a session that does not wait
	// long enough starts it from the beginning again: raise it after an ErrLinkDead.
	Silence time.Duration

	// BatchRows and BatchBytes cut a batch, the latter measured as Batch.Bytes; 0
	// means 1024 rows and 256 KiB. One row is always taken whole.
	BatchRows  int
	BatchBytes int

	// Dial replaces the network, for simulation; nil means the real one.
	Dial pgconn.DialFunc

	// Logger receives notices and states; nil discards them. No payload, key or
	// password is ever logged.
	Logger *slog.Logger
}

// DefaultStatusInterval bounds how long a row waits for a walsender that has slept
// through its commit. From version 16 on a walsender looks for new log, and only then
// queues up to be woken by it (walsender.c, WalSndWaitForWal and WalSndWait): what is
// committed between the two wakes it not, and on an otherwise idle server it sleeps until
// half of wal_sender_timeout has passed. A status wakes it, and then it looks again.
const DefaultStatusInterval = time.Second

// DefaultSilence is more than the half of wal_sender_timeout after which servers of
// version 15 and later send a keepalive from the midst of a transaction that they
// skip (logical.c, update_progress). A link that is cut is noticed earlier, by the
// kernel's own keepalives.
const DefaultSilence = 90 * time.Second

// Slot is the state of a replication slot as pg_replication_slots shows it.
type Slot struct {
	Name      string
	Plugin    string // empty for a physical slot
	Type      string // logical or physical
	Database  string // empty for a physical slot
	Temporary bool

	Active    bool
	ActivePID int32 // 0 when not active

	Restart   LSN    // the log is kept from here; 0 when it is lost
	Confirmed LSN    // transactions that end at or before it are never sent again; 0 while the slot is being made
	WALStatus string // reserved, extended, unreserved or lost
	Reason    string // why it was invalidated, when the server says (17 and later); else empty
	Failover  bool   // standbys keep a copy (17 and later)
	Synced    bool   // it is such a copy; on a primary it only says that it once was
	TwoPhase  bool   // rows of prepared transactions come at PREPARE TRANSACTION, which we do not read

	RetainedBytes int64 // log kept because of this slot
	SafeBytes     int64 // log that may still be written before it is in danger; -1 when not limited

	// Horizon is the slot's catalog_xmin with the epoch; 0 when there is none. Every
	// transaction below it had ended before a place in the log that the slot has
	// confirmed: it is the oldest one that ran at such a place (snapbuild.c,
	// SnapBuildProcessRunningXacts), and a slot is not made at one where an older ran
	// (SnapBuildFindSnapshot, "xmin horizon too low").
	Horizon uint64
}

// Identity says which log this is. Two servers with one System share a past;
// Timeline says where they parted.
type Identity struct {
	System   string // system identifier, decimal
	Timeline uint32
	Database string
	Flush    LSN // the end of the log at that moment
}
