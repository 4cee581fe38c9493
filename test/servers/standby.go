package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The embedded archives hold initdb, pg_ctl and postgres, and no pg_basebackup. So
// a copy is made of the files themselves, which only an embedded server lets us
// see.

// Snapshot copies a server as a storage system does: the whole cluster with its
// slots, as of now. The server is stopped for it and comes back. The copy does not
// run; it has a port of its own and the same passwords, and ends with the test.
func (p *PostgresServer) Snapshot(tb testing.TB) *PostgresServer {
	tb.Helper()
	p.Stop(tb, Fast)
	snapshot := p.copied(tb, nil)
	p.Start(tb)
	return snapshot
}

// Restore makes a snapshot a server that was restored from a base backup and
// reached the end of the log it was given: it has a new timeline and no slots, since
// base backups contain none (protocol documentation, BASE_BACKUP). It starts.
func (p *PostgresServer) Restore(tb testing.TB) {
	tb.Helper()
	must(tb, empty(filepath.Join(p.dataDir, "pg_replslot")))
	must(tb, configure(p.dataDir, map[string]string{"restore_command": "false"}))
	must(tb, p.touch("recovery.signal"))
	p.Start(tb)
	p.awaitWrites(tb)
}

// Standby runs a hot standby of this server, made from a base backup taken while it
// runs. It needs version 15 or later, follows by a physical slot that has the
// standby's name, and ends with the test. From version 17 on it keeps copies of the
// primary's failover slots.
func (p *PostgresServer) Standby(tb testing.TB) (standby *PostgresServer, name string) {
	tb.Helper()
	name = "standby_" + strings.ToLower(rand.Text()[:10])
	ctx, cancel := bounded()
	defer cancel()
	conn := p.Conn(tb, "postgres")
	for _, sql := range []string{
		"select pg_create_physical_replication_slot('" + name + "', true)",
		"select pg_backup_start('" + name + "', fast => true)",
	} {
		_, err := conn.Exec(ctx, sql)
		must(tb, err)
	}
	standby = p.copied(tb, []string{"pg_wal", "pg_replslot"})
	var label string
	must(tb, conn.QueryRow(ctx, "select labelfile from pg_backup_stop(wait_for_archive => false)").Scan(&label))
	must(tb, standby.put("backup_label", label))
	must(tb, standby.touch("standby.signal"))
	settings := map[string]string{
		"primary_conninfo": fmt.Sprintf("host=%s port=%s user=postgres password=%s dbname=postgres application_name=%s",
			p.url.Hostname(), p.url.Port(), p.Password(), name),
		"primary_slot_name":           name,
		"hot_standby_feedback":        "on",
		"wal_retrieve_retry_interval": "100ms",
	}
	if p.major >= 17 {
		settings["sync_replication_slots"] = "on"
	}
	must(tb, configure(standby.dataDir, settings))
	standby.Start(tb)
	return standby, name
}

// HasSlot says whether a standby has a copy of the primary's slot that would survive
// a promotion. Until then the primary must decode records of running transactions,
// of which this makes one, and be confirmed what lies behind them.
func (p *PostgresServer) HasSlot(tb testing.TB, primary *PostgresServer, slot string) (has bool) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	there, err := primary.Connect(ctx, "postgres")
	must(tb, err)
	defer hangUp(there)
	_, err = there.Exec(ctx, "select pg_log_standby_snapshot()")
	must(tb, err)
	here, err := p.Connect(ctx, "postgres")
	must(tb, err)
	defer hangUp(here)
	must(tb, here.QueryRow(ctx, "select exists (select from pg_replication_slots where slot_name = $1 and synced and not temporary)", slot).Scan(&has))
	return has
}

// BecomeStandby starts a stopped server in recovery. It follows whomever its
// settings name, or nobody.
func (p *PostgresServer) BecomeStandby(tb testing.TB) {
	tb.Helper()
	must(tb, p.touch("standby.signal"))
	p.Start(tb)
}

// Promote ends the recovery of a standby: it takes writes, on a new timeline.
func (p *PostgresServer) Promote(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	_, err := p.Conn(tb, "postgres").Exec(ctx, "select pg_promote()")
	must(tb, err)
	p.awaitWrites(tb)
}

// awaitWrites waits until the server is out of recovery.
func (p *PostgresServer) awaitWrites(tb testing.TB) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn := p.Conn(tb, "postgres")
	must(tb, poll(ctx, 20*time.Millisecond, func(ctx context.Context) error {
		var recovers bool
		err := conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&recovers)
		if err == nil && recovers {
			err = errors.New("the server is still in recovery")
		}
		return err
	}))
}

// copied is a server on a copy of the data directory, with a port of its own. It
// does not run yet.
func (p *PostgresServer) copied(tb testing.TB, without []string) *PostgresServer {
	tb.Helper()
	if p.dataDir == "" {
		tb.Fatal("copy a server: only the files of an embedded one can be read")
	}
	ctx, cancel := bounded()
	defer cancel()
	place, err := newPlace(ctx, 1)
	must(tb, err)
	dataDir := place.path("data")
	m := newProcess(place, syscall.SIGQUIT, func() *exec.Cmd {
		return asServant(context.Background(), place.dir, filepath.Join(p.binDir, "postgres"), "-D", dataDir)
	})
	other := newPostgres(m, "127.0.0.1", place.ports[0], p.Password())
	other.binDir, other.dataDir, other.major = p.binDir, dataDir, p.major
	tb.Cleanup(func() { end(tb, other, m) })
	must(tb, copyTree(p.dataDir, dataDir, append(without, "postmaster.pid", "postmaster.opts")))
	must(tb, configure(dataDir, map[string]string{"port": strconv.Itoa(place.ports[0])}))
	return other
}

// put writes a file of the data directory.
func (p *PostgresServer) put(name, content string) error {
	path := filepath.Join(p.dataDir, name)
	return errors.Join(os.WriteFile(path, []byte(content), 0o600), bequeath(path)) //nolint:gosec // in our own cache
}

func (p *PostgresServer) touch(name string) error { return p.put(name, "") }

// copyTree copies directories and files, and makes those named in without empty
// directories or leaves them out.
func copyTree(from, to string, without []string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // the server has just removed it
		case err != nil:
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		excluded := slices.Contains(without, strings.Split(name, string(filepath.Separator))[0])
		switch {
		case entry.IsDir():
			// The directories of pg_wal are made by the server itself.
			if excluded && !slices.Contains(without, name) {
				return fs.SkipDir
			}
			return errors.Join(os.Mkdir(target, 0o700), bequeath(target))
		case excluded || !entry.Type().IsRegular():
			return nil
		default:
			return cloneFile(path, target)
		}
	})
}

func cloneFile(from, to string) error {
	source, err := os.Open(from) //nolint:gosec // in our own cache
	if errors.Is(err, fs.ErrNotExist) {
		return nil // as above
	}
	if err != nil {
		return err
	}
	defer shut(source)
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // as above
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close(), bequeath(to))
}

// empty removes what a directory holds.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	return err
}

// Archived makes a server keep its log in an archive of its own, for ArchiveStandby.
func Archived() Option {
	return func(c *Config) {
		Setting("archive_mode", "on")(c)
		Setting("archive_command", "mkdir -p archive && cp %p archive/%f")(c)
	}
}

// ArchiveStandby makes a standby from a base backup of this server as it is now, which
// was started with Archived. It reads the archive alone, through a script that is given
// the archive, the name of a file and where to put it. It does not run yet, and ends
// with the test.
func (p *PostgresServer) ArchiveStandby(tb testing.TB, script string) *PostgresServer {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn := p.Conn(tb, "postgres")
	_, err := conn.Exec(ctx, "select pg_backup_start('archive', fast => true)")
	must(tb, err)
	standby := p.copied(tb, []string{"pg_wal", "pg_replslot", archiveDir})
	var label string
	must(tb, conn.QueryRow(ctx, "select labelfile from pg_backup_stop(wait_for_archive => false)").Scan(&label))
	content, err := os.ReadFile(script) //nolint:gosec // the test names it
	must(tb, err)
	must(tb, errors.Join(standby.put("backup_label", label), standby.put("gate.sh", string(content)), standby.touch("standby.signal")))
	must(tb, configure(standby.dataDir, map[string]string{
		"restore_command":             "sh gate.sh " + filepath.Join(p.dataDir, archiveDir) + " %f %p",
		"wal_retrieve_retry_interval": "100ms",
		"archive_mode":                "off",
	}))
	return standby
}

const archiveDir = "archive"

// SetGate names the last segment that the archive's script gives out; empty lets all
// pass.
func (p *PostgresServer) SetGate(tb testing.TB, segment string) {
	tb.Helper()
	gate := filepath.Join(archiveDir, "gate")
	if segment == "" {
		must(tb, os.Remove(filepath.Join(p.dataDir, gate)))
		return
	}
	must(tb, p.put(gate, segment))
}
