package wal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

const (
	connectTimeout = 10 * time.Second // for one host, name resolution and TLS included
	closeTimeout   = 2 * time.Second
	minimumVersion = 14 // the oldest major whose catalogs and options we know
)

// Conn is a replication connection to the database that holds the slot. It takes
// replication commands and plain SQL, but no extended protocol: a walsender
// refuses it with 08P01. One goroutine uses it at a time. Start turns it into a
// Stream and takes it away.
type Conn struct {
	pg      *pgconn.PgConn
	config  Config
	user    string       // the role that logged in
	frames  *frameReader // what pg reads through
	version int          // major version of the server
	oids    []uint32     // of the tables, as Preflight saw them; 0 where there is none
}

// Connect opens a replication connection to the primary.
//
// Everything that a role's or a database's settings could change in the text of a
// row is fixed in the start-up packet, which outranks them. Of several hosts the
// first that takes writes is used, so that a standby or a former primary is never
// read by mistake; a database URL that says target_session_attrs itself, other
// than "any", has its way. A URL that cannot be used is a usage error, a refused
// connection an operator error, an unreachable server a transient one. The
// password is in none of them.
func Connect(ctx context.Context, config Config) (*Conn, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	settings, err := config.settings(forStream)
	if err != nil {
		return nil, err
	}
	c := &Conn{config: config, user: settings.User}
	settings.RuntimeParams["replication"] = "database"
	// Called for every host and again for the fall-back to plain text; the last
	// one is the connection that stands.
	settings.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c.frames = newFrameReader(r)
		return pgproto3.NewFrontend(c.frames, w)
	}
	if c.pg, c.version, err = dial(ctx, settings); err != nil {
		return nil, err
	}
	return c, nil
}

// Close says goodbye to the server. It is harmless after Start and when called
// again.
func (c *Conn) Close(ctx context.Context) error { return hangUp(ctx, c.pg) }

// ServerEncoding is the encoding of the database. SQL_ASCII means that nobody
// knows: such text is passed on byte for byte and need not be UTF-8.
func (c *Conn) ServerEncoding() string { return c.pg.ParameterStatus("server_encoding") }

// connectPlain opens an ordinary connection beside the replication connection,
// with the same settings.
func connectPlain(ctx context.Context, config Config) (*pgconn.PgConn, int, error) {
	settings, err := config.settings(limitUnacked)
	if err != nil {
		return nil, 0, err
	}
	return dial(ctx, settings)
}

func hangUp(ctx context.Context, pg *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return pg.Close(ctx)
}

// dial connects and gives the major version of the server.
func dial(ctx context.Context, settings *pgconn.Config) (*pgconn.PgConn, int, error) {
	pg, err := pgconn.ConnectConfig(ctx, settings)
	if err != nil {
		return nil, 0, Fault(err)
	}
	settling, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	version, err := settle(settling, pg)
	if err != nil {
		hangUp(context.WithoutCancel(ctx), pg) //nolint:errcheck // the first error says more
		return nil, 0, err
	}
	return pg, version, nil
}

// settle fixes what cannot stand in the start-up packet: settings that older
// majors do not know, which would refuse the connection, and what depends on the
// encoding of the database.
func settle(ctx context.Context, pg *pgconn.PgConn) (version int, err error) {
	version = majorVersion(pg.ParameterStatus("server_version"))
	if version < minimumVersion {
		return 0, fault.NewOperator(
			fmt.Errorf("the server runs PostgreSQL %d, the oldest supported is %d", version, minimumVersion),
			"upgrade the server")
	}
	sql := "SET idle_session_timeout = 0;"
	if version >= 17 {
		// The walsender decodes each transaction inside one of its own, so a
		// role's transaction_timeout would end a stream whose broker is slow.
		sql += "SET transaction_timeout = 0;"
	}
	if pg.ParameterStatus("server_encoding") == "SQL_ASCII" {
		// Such a server converts nothing, but for any other client encoding it
		// checks the bytes, and one bad byte would end the stream for ever with
		// 22021 (mbutils.c, pg_server_to_any).
		sql += "SET client_encoding = 'SQL_ASCII';"
	}
	if _, err := pg.Exec(ctx, sql).ReadAll(); err != nil {
		return 0, Fault(fmt.Errorf("prepare the connection: %w", err))
	}
	return version, nil
}

// majorVersion reads the number before the first dot or letter: "17.5 (Debian
// 17.5-1)", "19devel". It gives 0 when there is none.
func majorVersion(text string) int {
	version := 0
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			break
		}
		version = version*10 + int(c-'0')
	}
	return version
}

// sessionSettings go into the start-up packet, where they outrank those of the
// role, the database and the server (guc.h, GucSource).
func sessionSettings(slot string) map[string]string {
	return map[string]string{
		"application_name": "outboxcdc " + slot,

		// What decides how a value is rendered. Each is the server's own default,
		// so that a payload reads as psql would show it on a fresh cluster. Any
		// extra_float_digits above 0 gives the shortest text that reads back as
		// the same number. search_path decides whether regclass and its like
		// carry their schema: outside pg_catalog they always do.
		"client_encoding":       "UTF8",
		"DateStyle":             "ISO, MDY",
		"TimeZone":              "UTC",
		"IntervalStyle":         "postgres",
		"extra_float_digits":    "1",
		"bytea_output":          "hex",
		"lc_monetary":           "C",
		"quote_all_identifiers": "off",
		"search_path":           "pg_catalog",

		// A role that is told of errors only would not hear the warning with which
		// Postgres 18 skips the rows of a publication.
		"client_min_messages": "notice",

		// Our SQL quotes by doubling alone.
		"standard_conforming_strings": "on",

		// The server's own value may be 0, which keeps a slot busy for a quarter
		// of an hour after a network cut, or too short for a slow link.
		"wal_sender_timeout": "60s",

		// We set our own deadlines. lock_timeout would end the wait for running
		// transactions while a slot is made.
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",

		// A cluster whose disk is full is made read-only by this setting; the
		// stream that lets it forget log must go on. A standby stays read-only.
		"default_transaction_read_only": "off",
	}
}

// control sets up a socket before it connects, as net.Dialer has it.
type control func(network, address string, raw syscall.RawConn) error

// settings turns the configuration into pgconn's.
func (c Config) settings(prepare control) (*pgconn.Config, error) {
	settings, err := ParseDatabase(c.Database)
	if err != nil {
		return nil, err
	}
	fixed := sessionSettings(c.Slot)
	// Names of settings know no case: a timezone beside our TimeZone would win
	// or lose by the order of a map.
	maps.DeleteFunc(settings.RuntimeParams, func(name, _ string) bool {
		for ours := range fixed {
			if strings.EqualFold(ours, name) {
				return true
			}
		}
		return false
	})
	maps.Copy(settings.RuntimeParams, fixed)

	if settings.ValidateConnect == nil {
		settings.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if settings.ConnectTimeout == 0 {
		settings.ConnectTimeout = connectTimeout
	}
	c.setDial(settings, prepare)
	settings.OnNotice = c.logNotice
	return settings, nil
}

func (c Config) setDial(settings *pgconn.Config, prepare control) {
	if c.Dial != nil {
		settings.DialFunc = c.Dial
		settings.LookupFunc = func(_ context.Context, host string) ([]string, error) {
			return []string{host}, nil
		}
		return
	}
	dialer := &net.Dialer{
		Timeout: settings.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable:   true,
			Idle:     keepAliveIdle,
			Interval: keepAliveInterval,
			Count:    keepAliveCount,
		},
		Control: prepare,
	}
	attended(settings, dialer.DialContext)
}

// A dead link is noticed after half a minute by the kernel too, for the times
// when nobody reads.
const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
)

// logNotice reports what the server says outside of a stream. Its text comes from
// the server and describes our commands, never a row.
func (c Config) logNotice(_ *pgconn.PgConn, notice *pgconn.Notice) {
	level := slog.LevelDebug
	if notice.SeverityUnlocalized == "WARNING" {
		level = slog.LevelWarn
	}
	c.logger().LogAttrs(context.Background(), level, "notice from the server",
		slog.String("message", notice.Message), slog.String("sqlstate", notice.Code))
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}
