package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/migrations"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func init() { register(defaultScheme, defaultScheme, onlyScheme, openPostgres) }

const (
	connectTimeout = 10 * time.Second // for each host
	answerTimeout  = 30 * time.Second // for one statement; a save takes milliseconds
	closeTimeout   = 2 * time.Second
	idleInterval   = time.Minute
)

// postgresStore keeps the position in the table outboxcdc.checkpoint of the
// database that the events come from, one row for each slot.
//
// It connects when it is first needed. After an error it trusts its connection no
// longer and makes another the next time, and so it does for each Load, because a
// session that begins may find the connection of the last one dead.
type postgresStore struct {
	slot    string
	age     time.Duration // of the history
	options Options
	config  *pgx.ConnConfig
	conn    *pgx.Conn // nil when there is none
}

func openPostgres(_ context.Context, _ *url.URL, o Options) (Store, error) {
	config, err := postgresConfig(o)
	if err != nil {
		return nil, err
	}
	return &postgresStore{slot: o.Slot, age: o.historyAge(), options: o, config: config}, nil
}

func postgresConfig(o Options) (*pgx.ConnConfig, error) {
	settings, err := wal.ParseDatabase(o.Database)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(o.Database)
	if err != nil {
		return nil, wal.Fault(err)
	}
	config.Config = *settings
	configure(config, o)
	return config, nil
}

// configure sets what a role's or a server's own settings must not decide. The
// start-up packet outranks them.
func configure(config *pgx.ConnConfig, o Options) {
	maps.Copy(config.RuntimeParams, map[string]string{
		"application_name":              "outboxcdc checkpoint " + o.Slot,
		"client_encoding":               "UTF8",
		"search_path":                   "pg_catalog",
		"statement_timeout":             "0", // answerTimeout it is
		"idle_session_timeout":          "0", // an idle stream saves once a minute
		"default_transaction_read_only": "off",
	})
	// No statement is prepared: nothing of ours stays behind in the session.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.ValidateConnect == nil {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if o.Dial != nil {
		config.DialFunc = o.Dial
		config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
		if o.Logger != nil {
			o.Logger.Debug("notice from the server", slog.String("message", notice.Message), slog.String("sqlstate", notice.Code))
		}
	}
}

// IdleInterval is Quiet's: each save writes log.
func (s *postgresStore) IdleInterval() time.Duration { return idleInterval }

// Prepare is Preparer's: it makes the table when it is missing and the role may.
func (s *postgresStore) Prepare(ctx context.Context) (made []string, err error) {
	if _, err = s.Load(ctx); err == nil || errors.Is(err, ErrNone) {
		err = s.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, newestSQL)
			return err
		})
	}
	switch {
	case err == nil, errors.Is(err, ErrNone):
		return nil, nil
	case !errors.Is(err, errNoTable):
		return nil, err
	}
	err = s.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		made, err = migrations.Apply(ctx, conn, migrations.Params{})
		return err
	})
	return made, err
}

// Load is Store's.
func (s *postgresStore) Load(ctx context.Context) (p Position, err error) {
	s.drop()
	err = s.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		p, err = s.load(ctx, conn)
		return err
	})
	return p, err
}

// Save is Store's.
func (s *postgresStore) Save(ctx context.Context, p Position) error {
	if err := complete(p, s.slot); err != nil {
		return err
	}
	return s.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, saveSQL, positionArgs(p)...)
		if err != nil || tag.RowsAffected() == 1 {
			return err
		}
		return s.refusal(ctx, conn, p)
	})
}

// refusal says why p was not saved.
func (s *postgresStore) refusal(ctx context.Context, conn *pgx.Conn, p Position) error {
	saved, err := s.load(ctx, conn)
	if err == nil {
		err = follow(saved, p)
	}
	if err == nil || errors.Is(err, ErrNone) {
		return errors.New("another process changed the saved position at the same moment")
	}
	return err
}

// use gives do a connection and bounds the time that it takes. A connection with
// an error behind it is not used again.
func (s *postgresStore) use(ctx context.Context, do func(context.Context, *pgx.Conn) error) error {
	if s.conn == nil {
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	answer, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	err := do(answer, s.conn)
	if err == nil {
		return nil
	}
	s.drop()
	if answer.Err() != nil && ctx.Err() == nil {
		return &fault.Error{
			Class:  fault.Transient,
			Err:    fmt.Errorf("wait for the database: no answer within %v", answerTimeout),
			Advice: "look at its load, its disk and the locks on outboxcdc.checkpoint",
		}
	}
	return s.explain(err)
}

// connect reads the files that the settings name anew: certificates and passwords are
// renewed while a stream lives.
func (s *postgresStore) connect(ctx context.Context) (err error) {
	if s.config, err = postgresConfig(s.options); err != nil {
		return err
	}
	s.conn, err = pgx.ConnectConfig(ctx, s.config)
	return wal.Fault(err)
}

// drop lets go of the connection. Nothing on it is worth an error.
func (s *postgresStore) drop() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	s.conn.Close(ctx) //nolint:errcheck // see above
	s.conn = nil
}

// Close is Store's.
func (s *postgresStore) Close() error {
	s.drop()
	return nil
}

// errNoTable means that the database was not set up, not for us, or by an older
// version.
var errNoTable = errors.New("the tables of the saved positions are missing or those of an older version")

// explain gives an error of the database its class and the way out.
func (s *postgresStore) explain(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) || fault.Classify(err) != fault.Transient {
		return wal.Fault(err)
	}
	switch e.Code {
	case "42P01", "3F000", "42703": // undefined_table, invalid_schema_name, undefined_column
		return fault.NewOperator(fmt.Errorf("%w: %w", errNoTable, err), "run `outboxcdc init`")
	case "42501": // insufficient_privilege
		return fault.NewOperator(err, s.grants(migrations.StreamRights()))
	default:
		return wal.Fault(err)
	}
}

// Missing is Entitled's.
func (s *postgresStore) Missing(ctx context.Context) (fix string, err error) {
	var lacking []migrations.Right
	err = s.use(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		lacking = nil
		for _, right := range migrations.StreamRights() {
			may, err := s.may(ctx, conn, right)
			if err != nil {
				return err
			}
			if !may && right.Always {
				lacking = append(lacking, right)
			}
		}
		return nil
	})
	if err != nil || len(lacking) == 0 {
		return "", err
	}
	return s.grants(lacking), nil
}

// may asks the catalog, which answers also who may not use the schema. A table that is
// not there is lacking nothing.
func (s *postgresStore) may(ctx context.Context, conn *pgx.Conn, right migrations.Right) (may bool, err error) {
	for privilege := range strings.SplitSeq(right.Privileges, ", ") {
		err := conn.QueryRow(ctx, `SELECT coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, $2)), true)
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'outboxcdc' AND c.relname = $1`,
			right.Table, privilege).Scan(&may)
		if err != nil || !may {
			return false, err
		}
	}
	return true, nil
}

// grants is the way out for who lacks rights.
func (s *postgresStore) grants(rights []migrations.Right) string {
	role := pgx.Identifier{s.config.User}.Sanitize()
	var sql strings.Builder
	fmt.Fprintf(&sql, "have the owner of the schema run `outboxcdc init --role %s`, or: GRANT USAGE ON SCHEMA outboxcdc TO %s", s.config.User, role)
	for _, right := range rights {
		fmt.Fprintf(&sql, "; GRANT %s ON outboxcdc.%s TO %s", right.Privileges, right.Table, role)
	}
	return sql.String()
}
