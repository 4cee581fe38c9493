package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// DefaultMajor is the version of Postgres that tests run on unless told otherwise.
const DefaultMajor = 17

// postgresSettings is what every server of ours has. Slots and senders are many,
// because tests share a server.
func postgresSettings() map[string]string {
	return map[string]string{
		"wal_level":             "logical",
		"max_wal_senders":       "50",
		"max_replication_slots": "50",
		"max_connections":       "200",
		"fsync":                 "on",
		"shared_buffers":        "64MB",
		"timezone":              "UTC",
		"log_timezone":          "UTC",
	}
}

// PostgresServer is a running Postgres. Its superuser is postgres unless its
// address was given.
type PostgresServer struct {
	machine machine
	url     url.URL // a superuser's, without a database
	major   int
	binDir  string
	dataDir string
	shared  bool // several tests use it, so none may disturb it
}

// StartPostgres runs a Postgres for a program that is not a test. Close ends it.
func StartPostgres(ctx context.Context, c Config) (*PostgresServer, error) {
	p, err := choosePostgres(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := p.describe(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// choosePostgres takes the server from the first source that this machine has.
func choosePostgres(ctx context.Context, c Config) (*PostgresServer, error) {
	if text := os.Getenv(EnvPostgresURL); text != "" {
		return givenPostgres(ctx, text, c)
	}
	major, err := c.major()
	if err != nil {
		return nil, err
	}
	if dockerAnswers() {
		return retried(func() (*PostgresServer, error) { return dockerPostgres(ctx, major, c) })
	}
	p, err := embeddedPostgres(ctx, major, c)
	if err != nil {
		return nil, fmt.Errorf("run an embedded Postgres %d: %w; %s names a running one, and Docker is used when its daemon answers", major, err, EnvPostgresURL)
	}
	return p, nil
}

// givenPostgres takes the server that the environment names. It refuses one that
// is not as the test wants it.
func givenPostgres(ctx context.Context, text string, c Config) (*PostgresServer, error) {
	at, err := url.Parse(text)
	if err != nil || at.Host == "" {
		// The text may hold a password, and so may the parser's error.
		return nil, fmt.Errorf("read %s: not a URL such as postgres://user:password@host:5432", EnvPostgresURL)
	}
	at.Path = ""
	p := &PostgresServer{machine: given{EnvPostgresURL}, url: *at, shared: true}
	if err := p.fits(ctx, c); err != nil {
		return nil, fmt.Errorf("use the Postgres that %s names: %w", EnvPostgresURL, err)
	}
	return p, nil
}

// fits says whether a given server has the version and settings that are wanted.
func (p *PostgresServer) fits(ctx context.Context, c Config) error {
	if err := p.describe(ctx); err != nil {
		return err
	}
	if c.Major != 0 && c.Major != p.major {
		return fmt.Errorf("it is version %d and this test wants %d", p.major, c.Major)
	}
	conn, err := p.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer hangUp(conn)
	for name, want := range c.over(map[string]string{"wal_level": "logical"}) {
		var got string
		if err := conn.QueryRow(ctx, "select current_setting($1)", name).Scan(&got); err != nil {
			return fmt.Errorf("look at its setting %s: %w", name, err)
		}
		if got != want {
			return fmt.Errorf("its %s is %s and this test wants %s", name, got, want)
		}
	}
	return nil
}

// newPostgres is the server on a port of m, with a password of its own: whoever
// else listens there does not know it.
func newPostgres(m machine, host string, port int, password string) *PostgresServer {
	at := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", password),
		Host:     host + ":" + strconv.Itoa(port),
		RawQuery: "sslmode=disable",
	}
	return &PostgresServer{machine: m, url: at}
}

// newPassword is one that needs no quoting anywhere.
func newPassword() string { return strings.ToLower(rand.Text()) }

// Close ends the server and deletes its data. A given server stays as it is.
func (p *PostgresServer) Close() error { return p.machine.remove() }

// URL is the superuser's URL of a database. It carries the password.
func (p *PostgresServer) URL(database string) string {
	at := p.url
	at.Path = "/" + database
	return at.String()
}

// Address is the server's host and port.
func (p *PostgresServer) Address() string { return p.url.Host }

// User is the superuser's name.
func (p *PostgresServer) User() string { return p.url.User.Username() }

// Password is the superuser's.
func (p *PostgresServer) Password() string {
	password, _ := p.url.User.Password()
	return password
}

// Major is the server's major version.
func (p *PostgresServer) Major() int { return p.major }

// BinDir holds initdb, pg_ctl and postgres, nothing else; it is empty when the
// server is not an embedded one.
func (p *PostgresServer) BinDir() string { return p.binDir }

// DataDir is the server's data directory, empty when the server is not an
// embedded one. When we are root, it belongs to another user.
func (p *PostgresServer) DataDir() string { return p.dataDir }

// Log is the end of the server's log.
func (p *PostgresServer) Log() string { return p.machine.log() }

// Connect opens a connection as superuser. The caller closes it.
func (p *PostgresServer) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, p.URL(database))
	if err != nil {
		return nil, fmt.Errorf("connect to the test server: %w", err)
	}
	return conn, nil
}

// hangUp ends a connection to which nothing is owed.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the server may be gone, and that may be the test
}

// ready says whether the server answers.
func (p *PostgresServer) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := p.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// describe asks the server for its version.
func (p *PostgresServer) describe(ctx context.Context) error {
	conn, err := p.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer hangUp(conn)
	var number int
	err = conn.QueryRow(ctx, "select current_setting('server_version_num')::int").Scan(&number)
	if err != nil {
		return fmt.Errorf("ask the test server for its version: %w", err)
	}
	p.major = number / 10000
	return nil
}

// StopMode is how a Postgres is asked to end (pg_ctl stop -m).
type StopMode syscall.Signal

// The modes.
const (
	Smart     = StopMode(syscall.SIGTERM) // when the last client has left
	Fast      = StopMode(syscall.SIGINT)  // clients are sent away, the log is sent out, checkpoint
	Immediate = StopMode(syscall.SIGQUIT) // at once, without a checkpoint: a crash
)

// String names the mode as pg_ctl does.
func (m StopMode) String() string {
	switch m {
	case Smart:
		return "smart"
	case Fast:
		return "fast"
	case Immediate:
		return "immediate"
	default:
		return syscall.Signal(m).String()
	}
}

// disturbs refuses to disturb a server that other tests use.
func (p *PostgresServer) disturbs(what string) error {
	if _, ok := p.machine.(given); !ok && p.shared {
		return fmt.Errorf("%s a shared server: other tests use it; take one with servers.Postgres", what)
	}
	return nil
}

// stop asks the server to end and waits until nothing of it runs.
func (p *PostgresServer) stop(ctx context.Context, sig syscall.Signal) error {
	if err := p.disturbs("stop"); err != nil {
		return err
	}
	return down(ctx, p.machine, sig)
}

// start brings a stopped server up again.
func (p *PostgresServer) start(ctx context.Context) error {
	if err := p.disturbs("start"); err != nil {
		return err
	}
	return up(ctx, p.machine, p.ready)
}
