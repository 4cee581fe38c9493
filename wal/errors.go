package wal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// ErrSlotBusy means that another process streams from the slot. It is no failure:
// the slot is the lock, and whoever does not hold it stands by.
var ErrSlotBusy = errors.New("slot is in use by another process")

// ErrDenied means that the server let the role in before and does not now, or never did:
// a wrong password, a rule of pg_hba.conf, or a directory of passwords that is away and
// for which the server has no code of its own. Or we do not let ourselves in: the server
// takes no TLS, or another login than we were told to want.
var ErrDenied = errors.New("the server does not let the role in")

// Fault gives an error of the Postgres driver its class and, where somebody can do
// something, the way out. It goes by SQLSTATE and by type, never by text. An error
// that has a class, a cancelled context and nil pass through, and so does what it
// does not know, which counts as transient.
//
// A refused connection is described anew, because pgconn's own error carries the
// whole configuration with the password in it.
func Fault(err error) error {
	var (
		classified *fault.Error
		unparsed   *pgconn.ParseConfigError
		refused    *pgconn.ConnectError
		server     *pgconn.PgError
	)
	switch {
	case err == nil, errors.As(err, &classified):
		return err
	case errors.As(err, &unparsed):
		return badDatabase(errors.Unwrap(unparsed), "check its form and its parameters")
	case errors.As(err, &refused):
		return refusal(refused.Config, errors.Unwrap(refused))
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &server):
		return serverFault(server.Code, err)
	default:
		return err
	}
}

// serverFault is Fault for an error that the server reported.
func serverFault(code string, err error) error {
	if code == "55006" { // object_in_use
		err = fmt.Errorf("%w: %w", ErrSlotBusy, err)
	}
	class, advice := verdict(code)
	if class == fault.Transient && advice == "" {
		return &fault.Error{Class: class, Err: err}
	}
	return &fault.Error{Class: class, Err: err, Advice: advice}
}

// verdict says who can mend an SQLSTATE, and how. What is not named here may pass
// by itself.
func verdict(code string) (fault.Class, string) {
	if v, ok := verdicts()[code]; ok {
		return v.class, v.advice
	}
	switch code[:min(2, len(code))] {
	case "0A", "22", "28", "3D", "3F", "42":
		return fault.Operator, "run outboxcdc check, which looks at every setting that the stream depends on"
	default:
		return fault.Transient, ""
	}
}

type sqlstateVerdict struct {
	class  fault.Class
	advice string
}

func verdicts() map[string]sqlstateVerdict {
	return map[string]sqlstateVerdict{
		"08P01": {fault.Transient, "connect to the server itself, since a pooler in between may refuse replication connections"},
		"22021": {fault.Data, "a row holds bytes that are no text in the encoding of the database: repair or remove it at its source"},
		"22P05": {fault.Data, "a row holds a character that has no equivalent in UTF-8: repair or remove it at its source"},
		"25006": {fault.Transient, "the server takes no writes: name the primary, or all servers of the cluster, in the database URL"},
		"28000": {fault.Operator, "check the user and the TLS settings of the database URL, and let the role in through pg_hba.conf"},
		"28P01": {fault.Operator, "check the user and the password in the database URL, PGPASSWORD or the password file"},
		"3D000": {fault.Operator, "check the database name in the database URL, or create the database"},
		"3F000": {fault.Operator, "run outboxcdc init, or check the names of schemas and tables"},
		"42501": {fault.Operator, "grant the role what the message names, or run this step as a role that has it"},
		"42601": {fault.Operator, "check that the server is PostgreSQL 14 or later"},
		"42704": {fault.Operator, "run outboxcdc check, which names the slot or publication that is missing"},
		"42710": {fault.Transient, "another process made it at the same moment"},
		"42P01": {fault.Operator, "run outboxcdc init, or check the names of the tables"},
		"53100": {fault.Transient, "free or add disk space on the server"},
		"53300": {fault.Transient, "close other connections, or raise max_connections or max_wal_senders on the server"},
		"53400": {fault.Operator, "drop a replication slot that nobody uses, or raise max_replication_slots and restart the server"},
		"55000": {fault.Operator, "run outboxcdc check, which names what is wrong with the slot or the server"},
		"55P03": {fault.Transient, "another session holds a lock on the table"},
		"57P04": {fault.Operator, "the database was dropped: check the database name in the database URL"},
		"58P01": {fault.Transient, "a file of the log is missing on the server: look at its log and its disk"},
		"XX001": {fault.Operator, "the server found corrupted data: look at its log, and restore it from a backup"},
		"XX002": {fault.Operator, "the server found a corrupted index: look at its log, and rebuild the index"},
	}
}

// refusal describes why a connection was not made.
func refusal(settings *pgconn.Config, cause error) error {
	if server, ok := errors.AsType[*pgconn.PgError](cause); ok {
		class, advice := refusalVerdict(settings, server.Code)
		if strings.HasPrefix(server.Code, "28") { // invalid authorization
			cause = errors.Join(ErrDenied, cause)
		}
		err := fmt.Errorf("%s: %w", target(settings),
			&briefError{text: fmt.Sprintf("%s (SQLSTATE %s)", server.Message, server.Code), cause: cause})
		return &fault.Error{Class: class, Err: err, Advice: advice}
	}
	err := fmt.Errorf("%s: %w", target(settings), &briefError{text: reasons(cause), cause: cause})
	switch {
	case errors.Is(cause, context.Canceled):
		return err
	case errors.Is(cause, pgconn.ErrReadOnlyConnection):
		_, advice := verdict("25006")
		return &fault.Error{Class: fault.Transient, Err: err, Advice: advice}
	case distrustAdvice(cause) != "":
		return fault.NewOperator(err, distrustAdvice(cause))
	case errors.Is(cause, errNoTLS):
		return fault.NewOperator(denied(settings, cause), noTLSAdvice)
	case unproved(settings, cause):
		return fault.NewOperator(denied(settings, cause), unprovedAdvice(settings))
	default:
		return &fault.Error{Class: fault.Transient, Err: err, Advice: unreachedAdvice(settings)}
	}
}

// unreachedAdvice is for a server that does not answer. Who names no database has
// probably given no database URL at all: then there is none to correct.
func unreachedAdvice(settings *pgconn.Config) string {
	if settings.Database == "" {
		return "no database is named: give --database-url, OUTBOXCDC_DATABASE_URL or the PG* variables; and see that the server runs and is reachable"
	}
	return "check host and port in the database URL, and that the server runs and is reachable"
}

// denied is a refusal that is ours: the login is not as we were told to have it. A
// stream that had one before tries some more times, as with one that the server refuses.
func denied(settings *pgconn.Config, cause error) error {
	return fmt.Errorf("%s: %w", target(settings), &briefError{text: reasons(cause), cause: errors.Join(ErrDenied, cause)})
}

// refusalVerdict knows what a code means while a connection is made.
func refusalVerdict(settings *pgconn.Config, code string) (fault.Class, string) {
	role := quoteName(settings.User)
	switch code {
	case "42501":
		return fault.Operator, fmt.Sprintf("have a superuser run: ALTER ROLE %s REPLICATION (on Amazon RDS: GRANT rds_replication TO %s), "+
			"and GRANT CONNECT ON DATABASE %s TO %s", role, role, quoteName(databaseName(settings)), role)
	case "42704", "22023":
		return fault.Operator, "check the options in the database URL and PGOPTIONS, and that the server is PostgreSQL 14 or later"
	default:
		return verdict(code)
	}
}

// target names what was to be reached, and as whom.
func target(settings *pgconn.Config) string {
	return fmt.Sprintf("connect to database %s at %s as role %s",
		displayName(databaseName(settings)), strings.Join(hosts(settings), ", "), displayName(settings.User))
}

// databaseName is the database that the server takes when none is named: that of
// the role.
func databaseName(settings *pgconn.Config) string {
	if settings.Database == "" {
		return settings.User
	}
	return settings.Database
}

func hosts(settings *pgconn.Config) []string {
	all := []string{address(settings.Host, settings.Port)}
	for _, other := range settings.Fallbacks {
		if host := address(other.Host, other.Port); !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	return all
}

func address(host string, port uint16) string {
	if strings.HasPrefix(host, "/") {
		return host // a socket's directory
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// reasons puts what each host answered on one line, each answer once: with
// sslmode=prefer a host is tried with TLS and without.
func reasons(err error) string {
	var texts []string
	for _, one := range flatten(err) {
		text := strings.ReplaceAll(one.Error(), "\n", "; ")
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}

func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	return joined.Unwrap()
}

// briefError says in a few words what its cause says in many, or says too openly.
type briefError struct {
	text  string
	cause error
}

func (e *briefError) Error() string { return e.text }
func (e *briefError) Unwrap() error { return e.cause }
