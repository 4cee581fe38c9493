package servers

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// freshCache is an empty cache that servers may enter.
func freshCache(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	must(tb, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

var errDisk = errors.New("disk full")

func TestWhatIsFetchedIsFetchedOnceAndWhole(t *testing.T) {
	t.Setenv(EnvCache, freshCache(t))
	ctx := context.Background()
	_, err := fetched(ctx, "thing", func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), errDisk)
	})
	if !errors.Is(err, errDisk) {
		t.Fatalf("a fetch that fails: %v", err)
	}
	var calls atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			dir, err := fetched(ctx, "thing", func(dir string) error {
				calls.Add(1)
				return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o600)
			})
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "whole")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "half")); err == nil {
				t.Error("the failed fetch left something behind")
			}
		})
	}
	all.Wait()
	if calls.Load() != 1 {
		t.Errorf("fetched %d times, want once", calls.Load())
	}
}

func TestAFetchThatDiedIsDoneAgain(t *testing.T) {
	cache := freshCache(t)
	t.Setenv(EnvCache, cache)
	must(t, os.MkdirAll(filepath.Join(cache, "thing.partial", "half"), 0o700))
	dir, err := fetched(context.Background(), "thing", func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o600)
	})
	must(t, err)
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != "whole" {
		t.Errorf("the directory holds %v", entries)
	}
}

func TestALockIsWaitedForUntilTheContextEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := lock(context.Background(), path)
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
	must(t, held.Close())
	again, err := lock(context.Background(), path)
	must(t, err)
	must(t, again.Close())
}

func TestPlacesShareNoPortAndNoDirectory(t *testing.T) {
	ports, dirs := map[int]bool{}, map[string]bool{}
	for range 40 {
		p, err := newPlace(context.Background(), 2)
		must(t, err)
		t.Cleanup(func() { vacate(t, p) })
		for _, port := range p.ports {
			if ports[port] || port >= 32768 {
				t.Errorf("port %d is taken twice, or systems hand it out", port)
			}
			ports[port] = true
		}
		if dirs[p.dir] {
			t.Errorf("%s is taken twice", p.dir)
		}
		dirs[p.dir] = true
	}
	for dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("a living place was cleared: %v", err)
		}
	}
}

// vacate removes a place.
func vacate(tb testing.TB, p *place) {
	tb.Helper()
	if err := p.remove(); err != nil {
		tb.Error(err)
	}
}

func TestAPlaceThatIsRemovedLeavesNothing(t *testing.T) {
	cache := freshCache(t)
	t.Setenv(EnvCache, cache)
	p, err := newPlace(context.Background(), 1)
	must(t, err)
	must(t, os.WriteFile(p.path("file"), nil, 0o600))
	must(t, p.remove())
	must(t, p.remove())
	left, err := filepath.Glob(filepath.Join(cache, "run", "*-*"))
	must(t, err)
	if len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestAPlaceWhoseOwnerWasFasterIsNoError(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	if err := clearPlace(gone); err != nil {
		t.Errorf("neither directory nor lock are there: %v", err)
	}
	must(t, os.Mkdir(gone, 0o700))
	if err := clearPlace(gone); err != nil {
		t.Errorf("the lock is not there: %v", err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

func TestACacheThatOthersMayWriteIsNotUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	must(t, ownDir(dir))
	must(t, os.Chmod(dir, 0o777))
	if err := ownDir(dir); err == nil {
		t.Error("a directory that everyone may write was taken")
	}
}

func TestTailKeepsTheEndInWholeLines(t *testing.T) {
	var log tail
	if got := log.String(); got != "(nothing)\n" {
		t.Errorf("an empty log is %q", got)
	}
	for range 10_000 {
		_, _ = log.Write([]byte("a line of the log\n"))
	}
	_, _ = log.Write([]byte("the last\n"))
	got := log.String()
	if len(got) > tailBytes || len(got) < tailBytes/2 || !strings.HasPrefix(got, "a line") || !strings.HasSuffix(got, "the last\n") {
		t.Errorf("%d bytes from %q to %q", len(got), got[:20], got[len(got)-20:])
	}
}

func TestACacheThatServersCannotEnterIsRefused(t *testing.T) {
	if servant() == nil {
		t.Log("the servers run as ourselves, who may enter what is ours")
		return
	}
	closed := filepath.Join(t.TempDir(), "closed")
	must(t, os.Mkdir(closed, 0o700))
	t.Setenv(EnvCache, filepath.Join(closed, "cache"))
	if _, err := cacheDir(); err == nil || !strings.Contains(err.Error(), closed) {
		t.Errorf("a cache below a closed directory: %v", err)
	}
}
