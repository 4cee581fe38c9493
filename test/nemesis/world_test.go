package nemesis

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

const partitions = 6

// world is the servers, the links, the load and the streamer between them. Faults
// strike one at a time, on the goroutine of the test.
type world struct {
	t      *testing.T
	random *mathrand.Rand
	began  time.Time

	pg       *servers.PostgresServer
	db       *servers.Database
	pgLink   *servers.Proxy
	broker   broker
	slot     string
	position string // the checkpoint file
	tiny     bool   // its directory is a small disk of its own
	load     *load
	sampler  *sampler
	main     *streamer

	struck       map[string]int
	longest      time.Duration
	longestAfter string
}

func newWorld(t *testing.T, random *mathrand.Rand, kind func(*testing.T, *servers.Proxy) broker) *world {
	t.Helper()
	w := &world{t: t, random: random, began: time.Now(), struck: map[string]int{}}
	w.pg = servers.Postgres(t)
	w.db = w.pg.Database(t)
	w.pgLink = servers.NewProxy(t, w.pg.Address())
	w.broker = kind(t, servers.NewProxy(t, w.pg.Address())) // which sets the proxy's target
	w.slot = "nemesis_" + strings.ToLower(rand.Text()[:10])
	w.position = filepath.Join(w.smallDisk(), "position.json")

	w.outboxcdc("init")
	w.load = newLoad(t, w.db, w.broker.pace())
	w.main = w.stream()
	w.load.run(random)
	w.sampler = sample(t, w)
	return w
}

// smallDisk is a directory on a disk that can be filled, where this user may mount
// one.
func (w *world) smallDisk() string {
	w.t.Helper()
	dir := w.t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		w.t.Logf("NOT TESTED: a full disk under the checkpoint file, since no small disk can be mounted here: %v", err)
		return dir
	}
	w.tiny = true
	w.t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			w.t.Errorf("unmount the small disk: %v", err)
		}
	})
	return dir
}

// throughProxy is the database's URL by way of the proxy.
func (w *world) throughProxy() string {
	w.t.Helper()
	at, err := url.Parse(w.db.URL)
	if err != nil {
		w.t.Fatal("the test database has no URL that parses")
	}
	at.Host = w.pgLink.Addr()
	return at.String()
}

// outboxcdc runs a command beside the links and wants status 0.
func (w *world) outboxcdc(command string, more ...string) string {
	w.t.Helper()
	path := binary(w.t) // the first to ask builds it
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := append([]string{command, "--slot", w.slot, "--database-url", w.db.URL}, more...)
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("outboxcdc %s: %v\n%s", command, err, out)
	}
	return string(out)
}

// stream starts a streamer behind the proxies.
func (w *world) stream() *streamer {
	w.t.Helper()
	return startStreamer(w.t, "--slot", w.slot, "--database-url", w.throughProxy(), "--sink", w.broker.sink(),
		"--topic", w.broker.topic(), "--checkpoint", "file://"+w.position, "--http", "off")
}

// sql asks the database beside the links. The server must be up.
func (w *world) sql(do func(ctx context.Context, conn *pgx.Conn) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := w.pg.Connect(ctx, w.db.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // nothing is owed to it
	if err := do(ctx, conn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	w.sql(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// recovers waits until everything that was written by now is confirmed, and keeps the
// time that it took.
func (w *world) recovers(after string) {
	w.t.Helper()
	began := time.Now()
	w.sql(func(ctx context.Context, conn *pgx.Conn) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*recoveryBound)
		defer cancel()
		var written string
		if err := conn.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&written); err != nil {
			return err
		}
		w.eventually(recoveryBound, "the slot is confirmed up to "+written+" after "+after, func() bool {
			var there bool
			err := conn.QueryRow(ctx, "select confirmed_flush_lsn >= $2::pg_lsn from pg_replication_slots where slot_name = $1", w.slot, written).Scan(&there)
			return err == nil && there
		})
		return nil
	})
	if took := time.Since(began); took > w.longest {
		w.longest, w.longestAfter = took, after
	}
}

// eventually waits until it is so, while the streamer lives.
func (w *world) eventually(within time.Duration, what string, so func() bool) {
	w.t.Helper()
	clock := time.NewTicker(50 * time.Millisecond)
	defer clock.Stop()
	for deadline := time.Now().Add(within); !so(); <-clock.C {
		if w.main.ended() {
			w.t.Fatalf("seed %d: outboxcdc has ended with %v, before %s:\n%s", *seed, w.main.cmd.ProcessState, what, w.main.log)
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("seed %d: not within %v: %s\n%s", *seed, within, what, w.main.log)
		}
	}
}

// let passes a while, between half of d and d.
func (w *world) let(d time.Duration) {
	timer := time.NewTimer(d/2 + time.Duration(w.random.Int64N(int64(d/2))))
	defer timer.Stop()
	<-timer.C
}

// finish ends load and stream in order, with everything delivered.
func (w *world) finish() {
	w.t.Helper()
	w.load.end()
	w.recovers("the end of the load")
	w.sampler.end()
	w.main.stop(w.t)
	os.Remove(w.position) //nolint:errcheck // the directory goes anyway
}
