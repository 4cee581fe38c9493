package servers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	embedded "github.com/fergusstrange/embedded-postgres"
	"github.com/xi2/xz"
)

// postgresRelease is the release of a major version that is tested, as the library
// that fetches it names it.
func postgresRelease(major int) (release embedded.PostgresVersion, ok bool) {
	release, ok = map[int]embedded.PostgresVersion{
		14: embedded.V14,
		15: embedded.V15,
		16: embedded.V16,
		17: embedded.V17,
		18: embedded.V18,
	}[major]
	return release, ok
}

// embeddedPostgres runs a fetched Postgres as a child of this process.
func embeddedPostgres(ctx context.Context, major int, c Config) (*PostgresServer, error) {
	home, err := postgresHome(ctx, major, c)
	if err != nil {
		return nil, err
	}
	return retried(func() (*PostgresServer, error) { return runPostgres(ctx, home, c) })
}

// postgresHome is the directory with bin, lib and share of a major version.
func postgresHome(ctx context.Context, major int, c Config) (string, error) {
	release, ok := postgresRelease(major)
	if !ok {
		return "", fmt.Errorf("there is none: the majors are 14 to 18, chosen by %s", EnvPostgresMajor)
	}
	return fetched(ctx, "postgres-"+string(release), func(dir string) error {
		c.logger().Info("fetching Postgres, once for this machine", slog.String("version", string(release)))
		archive, err := downloadPostgres(ctx, release, filepath.Join(dir, "download"))
		if err != nil {
			return err
		}
		if err := extract(archive, dir); err != nil {
			return fmt.Errorf("unpack Postgres: %w", err)
		}
		return os.RemoveAll(filepath.Join(dir, "download"))
	})
}

// downloadPostgres has the library fetch and verify the archive of a release into
// dir, and gives the archive's path.
//
// The library fetches only on the way to a running server: it unpacks the archive
// and calls initdb and pg_ctl, which refuse to run as root and whose failure looks
// like any other. So it is stopped between fetching and unpacking: it is told to
// unpack into a link that leads nowhere, which it can neither find filled nor
// fill. What counts is whether the archive is there; the library renames it into
// place when it is whole.
func downloadPostgres(ctx context.Context, release embedded.PostgresVersion, dir string) (string, error) {
	nowhere := filepath.Join(dir, "nowhere")
	if err := errors.Join(makeDirs(dir), os.Symlink(filepath.Join(dir, "absent"), nowhere)); err != nil {
		return "", fmt.Errorf("prepare the download of Postgres: %w", err)
	}
	server := embedded.NewDatabase(embedded.DefaultConfig().
		Version(release).
		Port(0). // the library asks whether its port is free: any is
		CachePath(filepath.Join(dir, "archive")).
		RuntimePath(filepath.Join(dir, "runtime")).
		BinariesPath(filepath.Join(nowhere, "postgres")).
		Logger(io.Discard))
	done := make(chan error, 1)
	go func() { done <- server.Start() }()
	var stopped error
	select {
	case stopped = <-done:
	case <-ctx.Done():
		// The library takes no context. Its download ends with the process, which
		// has no server to go on with.
		return "", fmt.Errorf("fetch Postgres %s: %w", release, context.Cause(ctx))
	}
	archives, err := filepath.Glob(filepath.Join(dir, "archive", "*.txz"))
	if err != nil || len(archives) != 1 {
		return "", fmt.Errorf("fetch Postgres %s: %w", release, errors.Join(err, stopped))
	}
	return archives[0], nil
}

// extract unpacks a tar.xz archive into dir.
func extract(archive, dir string) error {
	file, err := os.Open(archive) //nolint:gosec // in our own cache
	if err != nil {
		return err
	}
	defer shut(file)
	unpacked, err := xz.NewReader(file, 0)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer shut(root)
	entries := tar.NewReader(unpacked)
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpack(root, header, entries); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

// unpack makes one entry of an archive. Everyone may read it, whatever the umask
// is: the servant must.
func unpack(root *os.Root, header *tar.Header, content io.Reader) error {
	name := filepath.Clean(header.Name)
	if !filepath.IsLocal(name) {
		return errors.New("the name leads out of the directory")
	}
	mode := header.FileInfo().Mode().Perm() | 0o444
	// The archives name hardly any directory.
	if err := passable(root, filepath.Dir(name)); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return passable(root, name)
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeReg:
		file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Chmod(mode), file.Close())
	default:
		return nil
	}
}

// passable makes a directory and its parents so that everyone may enter them.
func passable(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if err := passable(root, filepath.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return root.Chmod(dir, 0o755)
}

// runPostgres makes a cluster and starts its server.
func runPostgres(ctx context.Context, home string, c Config) (*PostgresServer, error) {
	place, err := newPlace(ctx, 1)
	if err != nil {
		return nil, err
	}
	binDir, dataDir, password := filepath.Join(home, "bin"), place.path("data"), newPassword()
	if err := initdb(ctx, binDir, dataDir, password); err != nil {
		return nil, errors.Join(err, place.remove())
	}
	base := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(place.ports[0]),
		"unix_socket_directories": "",
	}
	if err := configure(dataDir, c.over(merged(postgresSettings(), base))); err != nil {
		return nil, errors.Join(err, place.remove())
	}
	// SIGQUIT: the postmaster takes its backends and shared memory along.
	m := newProcess(place, syscall.SIGQUIT, func() *exec.Cmd {
		return asServant(context.Background(), place.dir, filepath.Join(binDir, "postgres"), "-D", dataDir)
	})
	p := newPostgres(m, "127.0.0.1", place.ports[0], password)
	p.binDir, p.dataDir = binDir, dataDir
	if err := up(ctx, m, p.ready); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	return p, nil
}

// initdb makes a cluster in dataDir.
func initdb(ctx context.Context, binDir, dataDir, password string) error {
	secret := dataDir + ".password"
	err := errors.Join(os.WriteFile(secret, []byte(password), 0o600), bequeath(secret),
		os.Mkdir(dataDir, 0o700), bequeath(dataDir))
	if err != nil {
		return fmt.Errorf("prepare the data directory: %w", err)
	}
	defer func() { _ = os.Remove(secret) }() // it goes with its directory at the latest
	// What initdb writes need not survive a crash of the machine; what the server
	// writes is synced.
	out, err := asServant(ctx, filepath.Dir(dataDir), filepath.Join(binDir, "initdb"),
		"--pgdata", dataDir, "--username", "postgres", "--pwfile", secret,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a cluster: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// configure appends settings to the server's file, where ALTER SYSTEM overrides
// them.
func configure(dataDir string, settings map[string]string) error {
	lines := sorted(settings, postgresSetting)
	file, err := os.OpenFile(filepath.Join(dataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0) //nolint:gosec // in our own cache
	if err != nil {
		return fmt.Errorf("configure Postgres: %w", err)
	}
	_, err = file.WriteString(strings.Join(lines, ""))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("configure Postgres: %w", err)
	}
	return nil
}

// postgresSetting is a line of postgresql.conf.
func postgresSetting(name, value string) string { return name + " = " + literal(value) + "\n" }

// asServant is a command that runs in dir as the user of the servers. Of our
// environment it sees the search path only: PGPORT or PGOPTIONS would change what
// runs.
func asServant(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // to run what was fetched is the purpose
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: servant()}
	return cmd
}
