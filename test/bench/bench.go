package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// bench is what the measurements share: servers, programs, and where results go.
type bench struct {
	plan
	out      io.Writer
	dir      string // of what was built
	bare     string // the bareloop binary
	recv     string // pg_recvlogical, empty where there is none
	postgres *servers.PostgresServer
	kafka    *servers.KafkaServer
	client   *kgo.Client
	topics   *kadm.Client
	serial   int // of names
}

// open builds the programs and starts the servers. After an error nothing is left.
func open(ctx context.Context, p plan, out io.Writer) (*bench, error) {
	b := &bench{plan: p, out: out}
	err := b.start(ctx)
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	b.printf("%d cores, %s; Postgres %d and Kafka on the same machine\n", runtime.NumCPU(), runtime.GOARCH, b.postgres.Major())
	if control := congestionControl(); control != "" {
		b.printf("TCP's congestion control is %s\n", control)
	}
	if b.recv == "" {
		b.printf("pg_recvlogical is not installed, so there is no ratio to it\n")
	}
	return b, nil
}

func (b *bench) start(ctx context.Context) error {
	var err error
	if b.dir, err = os.MkdirTemp("", "outboxcdc-bench"); err != nil {
		return err
	}
	if b.bare, err = b.build(ctx, "bareloop", "./test/bench/bareloop"); err != nil {
		return err
	}
	if b.binary == "" {
		if b.binary, err = b.build(ctx, "outboxcdc", "./cmd/outboxcdc"); err != nil {
			return err
		}
	}
	logger := slog.New(slog.NewTextHandler(b.out, nil))
	b.postgres, err = servers.StartPostgres(ctx, servers.Config{Logger: logger, Settings: postgresSettings()})
	if err != nil {
		return err
	}
	b.recv = findRecvlogical(b.postgres.BinDir())
	b.kafka, err = servers.StartKafka(ctx, servers.Config{Logger: logger, Steady: true})
	if err != nil {
		return err
	}
	b.client, err = kgo.NewClient(kgo.SeedBrokers(b.kafka.Bootstrap()...), kgo.MetadataMinAge(10*pollPause))
	if err != nil {
		return err
	}
	b.topics = kadm.NewClient(b.client)
	return nil
}

// postgresSettings keep what a busy server does by itself out of the measurement: no
// checkpoint, no vacuum.
func postgresSettings() map[string]string {
	return map[string]string{
		"autovacuum":         "off",
		"checkpoint_timeout": "1h",
		"max_wal_size":       "64GB",
		"shared_buffers":     "512MB",
		// Beside the data, where the server is at home.
		"unix_socket_directories": ".",
	}
}

// close ends what runs, in the reverse order.
func (b *bench) close() error {
	var errs []error
	if b.client != nil {
		b.client.Close()
	}
	if b.kafka != nil {
		errs = append(errs, b.kafka.Close())
	}
	if b.postgres != nil {
		errs = append(errs, b.postgres.Close())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir)) //nolint:gosec // made by us
	}
	return errors.Join(errs...)
}

// build makes a command of this module as a release would be.
func (b *bench) build(ctx context.Context, name, command string, more ...string) (string, error) {
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	path := filepath.Join(b.dir, name)
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", path}, append(more, command)...)
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // our own commands
	cmd.Dir = strings.TrimSpace(string(module))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	return path, nil
}

// findRecvlogical looks beside the server's own programs, then in the search path.
func findRecvlogical(binDir string) string {
	const name = "pg_recvlogical"
	if binDir != "" {
		if path, err := exec.LookPath(filepath.Join(binDir, name)); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

func (b *bench) printf(format string, args ...any) {
	fmt.Fprintf(b.out, format, args...) //nolint:errcheck // nobody is left to tell
}

func (b *bench) brokers() string { return strings.Join(b.kafka.Bootstrap(), ",") }

// name gives a name that is new in this run.
func (b *bench) name(prefix string) string {
	b.serial++
	return fmt.Sprintf("%s%d", prefix, b.serial)
}

// local says whether Postgres' processes are this machine's, to be looked at.
func (b *bench) local() bool { return b.postgres.BinDir() != "" }

// connect opens a connection that commits without waiting for the disk.
func (b *bench) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	conn, err := b.postgres.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, "SET synchronous_commit = off")
	return conn, err
}
