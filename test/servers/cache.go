package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// nobody is the user that servers run as when we are root: Postgres refuses root.
// No account needs to exist for it.
const nobody = 65534

// servant is who runs the servers: nil for ourselves.
func servant() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: nobody, Gid: nobody}
}

// bequeath gives path to the servant.
func bequeath(path string) error {
	if servant() == nil {
		return nil
	}
	return os.Chown(path, nobody, nobody)
}

// cacheDir is where fetched servers and running ones live: outside the checkout,
// kept between runs. Root's is one that the servant may enter, which its home is
// not.
func cacheDir() (string, error) {
	if dir := os.Getenv(EnvCache); dir != "" {
		return givenCache(dir)
	}
	var errs []error
	for _, parent := range cacheParents() {
		dir := filepath.Join(parent, "outboxcdc-test")
		err := ownDir(dir)
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("make a cache for test servers: %w; name a directory in %s", errors.Join(errs...), EnvCache)
}

// givenCache is the cache that the environment names. A server that may not enter
// it would say so in a way that nobody understands.
func givenCache(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil || servant() == nil {
		return dir, err
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent) //nolint:gosec // the user names it on purpose
		if err == nil && info.Mode().Perm()&0o001 == 0 {
			return "", fmt.Errorf("use %s=%s: as root we run the servers as user %d, who may not enter %s; name a directory that everyone may enter", EnvCache, dir, nobody, parent)
		}
		if parent == filepath.Dir(parent) {
			return dir, nil
		}
	}
}

// cacheParents are the directories that may hold the cache, the best first.
func cacheParents() []string {
	var parents []string
	if os.Geteuid() == 0 {
		parents = append(parents, "/var/cache", "/var/tmp")
	} else if dir, err := os.UserCacheDir(); err == nil {
		parents = append(parents, dir)
	}
	return append(parents, filepath.Join(os.TempDir(), "uid-"+strconv.Itoa(os.Geteuid())))
}

// ownDir makes dir, or sees that it is ours alone to write: what lies in it is run.
func ownDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the servant must enter
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s may be written by others", dir)
	}
	return os.Chmod(dir, 0o755) //nolint:gosec // the servant must enter, whatever the umask is
}

// errLocked means that somebody else holds a lock.
var errLocked = errors.New("another process holds the lock")

// tryLock takes the lock file at path, or gives errLocked. The lock ends with this
// process at the latest.
func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // in our own cache
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	shut(file)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errLocked
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// lock waits for the lock file at path.
func lock(ctx context.Context, path string) (*os.File, error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		file, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// place is where one server lives: a directory and ports that no other server of
// this user gets while this process holds them, whether the server runs or not.
type place struct {
	dir   string
	ports []int
	locks []*os.File
}

// newPlace makes a directory and reserves some ports. It also clears away what
// processes left behind that were killed.
func newPlace(ctx context.Context, ports int) (*place, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	p := &place{}
	if err := p.settle(ctx, filepath.Join(cache, "run")); err != nil {
		return nil, errors.Join(err, p.remove())
	}
	for range ports {
		if err := p.reserve(filepath.Join(cache, "ports")); err != nil {
			return nil, errors.Join(err, p.remove())
		}
	}
	return p, nil
}

// settle makes the directory. All who make or clear one hold the lock of run, so
// nobody clears what has no lock of its own yet.
func (p *place) settle(ctx context.Context, run string) error {
	if err := makeDirs(run); err != nil {
		return err
	}
	all, err := lock(ctx, filepath.Join(run, "lock"))
	if err != nil {
		return err
	}
	defer shut(all)
	if err := sweep(run); err != nil {
		return err
	}
	p.dir = filepath.Join(run, strconv.Itoa(os.Getpid())+"-"+strings.ToLower(rand.Text()[:8]))
	own, err := tryLock(p.dir + ".lock")
	if err != nil {
		return err
	}
	p.locks = append(p.locks, own)
	return makeDirs(p.dir)
}

// sweep deletes the directories under run whose process is gone.
func sweep(run string) error {
	files, err := filepath.Glob(filepath.Join(run, "*.lock"))
	if err != nil {
		return err
	}
	for _, file := range files {
		own, err := tryLock(file)
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(clearPlace(strings.TrimSuffix(file, ".lock")), own.Close()); err != nil {
			return fmt.Errorf("clear what a dead test left behind: %w", err)
		}
	}
	return nil
}

// clearPlace deletes a directory and its lock file. The owner may have removed the file
// after we opened it. A server that is being killed may still write into the directory;
// then both stay for the next one who clears.
func clearPlace(dir string) error {
	err := os.RemoveAll(dir)
	if errors.Is(err, syscall.ENOTEMPTY) {
		return nil
	}
	if removed := os.Remove(dir + ".lock"); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
}

// makeDirs makes dir and its parents so that the servant may enter it.
func makeDirs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	return os.Chmod(dir, 0o755) //nolint:gosec // as above
}

// Ports are taken below the range from which systems choose the local port of a
// connection (from 32768 on Linux, 49152 elsewhere). In that range a client that
// dials the port of a stopped server is now and then connected to itself, and any
// connection may sit on the port when the server wants it back.
const (
	firstPort = 20000
	lastPort  = 32000
)

// reserve takes one free port. The lock file keeps other tests off it, also while
// the server is stopped.
func (p *place) reserve(dir string) error {
	if err := makeDirs(dir); err != nil {
		return err
	}
	for range 1000 {
		port := firstPort + mathrand.IntN(lastPort-firstPort)
		file, err := tryLock(filepath.Join(dir, strconv.Itoa(port)))
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return err
		}
		if !free(port) {
			shut(file)
			continue
		}
		p.ports = append(p.ports, port)
		p.locks = append(p.locks, file)
		return nil
	}
	return fmt.Errorf("find a free port between %d and %d: none in 1000 tries", firstPort, lastPort)
}

// free says whether nobody listens on the port of the loopback.
func free(port int) bool {
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// loopback is the address of a port on this host.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// path is a file in the place.
func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// remove deletes the directory and gives everything back.
func (p *place) remove() error {
	var errs []error
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir), os.Remove(p.dir+".lock"))
	}
	for _, file := range p.locks {
		errs = append(errs, file.Close())
	}
	p.dir, p.locks = "", nil
	return errors.Join(errs...)
}

// fetched gives the directory name of the cache, and has fetch fill it when it is
// not there: into an empty directory that takes the name only when all went well.
// One process fetches, others wait for it.
func fetched(ctx context.Context, name string, fetch func(dir string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if err := makeDirs(cache); err != nil {
		return "", err
	}
	held, err := lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer shut(held)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	partial := dir + ".partial"
	if err := errors.Join(os.RemoveAll(partial), makeDirs(partial)); err != nil {
		return "", err
	}
	if err := fetch(partial); err != nil {
		return "", errors.Join(err, os.RemoveAll(partial))
	}
	return dir, os.Rename(partial, dir)
}
