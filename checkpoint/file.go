package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func init() {
	register("file", "file:///var/lib/outboxcdc/orders.json", onlyPath, openFile)
}

// fileStore keeps the position in a file of its own.
//
// A save writes a new file beside the old one, syncs it, renames it over the old
// one and syncs the directory. A crash at any moment, of the machine too, leaves
// the old file or the new one, whole; a disk that is full leaves the old one. A
// load syncs what it read before it gives it out: a process that was killed after
// its rename may have left what is visible but not durable yet.
//
// What counts is in the file, never what this process remembers. Each save takes a
// lock, looks at the file and compares, so that two processes on one file cannot
// overwrite each other's later position. The lock is not kept in between: an
// instance that stands by for the slot has the same file open.
type fileStore struct {
	path string
	slot string
	age  time.Duration // of the history
	disk disk
	lock func(ctx context.Context) (unlock func(), err error)
	free func() error // lets go of the lock file
}

// disk is what a fileStore does to the file system.
type disk interface {
	create(path string) (file, error) // anew, whatever was there
	extend(path string) (file, error) // to write behind what is there, or anew
	open(path string) (file, error)   // a file or a directory, to read and sync
	rename(from, to string) error
	remove(path string) error
}

type file interface {
	io.ReadWriteCloser
	Sync() error
}

// onlyPath refuses what is not a path on this machine.
func onlyPath(u *url.URL) error {
	plain := url.URL{Scheme: u.Scheme, Path: u.Path, RawPath: u.RawPath, OmitHost: u.OmitHost}
	if *u != plain || !filepath.IsAbs(u.Path) {
		return badURL("file takes an absolute path after three slashes, and nothing else")
	}
	return nil
}

func openFile(ctx context.Context, u *url.URL, o Options) (Store, error) {
	s := &fileStore{slot: o.Slot, age: o.historyAge(), disk: osDisk{}}
	var err error
	if s.path, err = resolve(u.Path); err != nil {
		return nil, unusable(u.Path, err)
	}
	held, err := openLock(s.path + ".lock")
	if err != nil {
		return nil, unusable(s.path, err)
	}
	s.lock, s.free = held.take, held.close
	if err := s.try(ctx); err != nil {
		return nil, errors.Join(unusable(s.path, err), s.Close())
	}
	return s, nil
}

// resolve follows symbolic links, because a rename would replace a link instead of
// the file, and refuses what is not a file.
func resolve(path string) (string, error) {
	path = filepath.Clean(path)
	info, err := os.Lstat(path) //nolint:gosec // whoever starts us names the file
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	if err != nil {
		return "", err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", err
		}
		if info, err = os.Lstat(path); err != nil { //nolint:gosec // as above
			return "", err
		}
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file", path)
	}
	return path, nil
}

// try finds out at once what the first save would find out after an hour.
func (s *fileStore) try(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := s.disk.create(s.temporary())
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), s.disk.remove(s.temporary()))
}

// Load is Store's.
func (s *fileStore) Load(ctx context.Context) (Position, error) {
	if ctx.Err() != nil {
		return Position{}, context.Cause(ctx)
	}
	p, err := s.read()
	if err != nil && !errors.Is(err, ErrNone) {
		return Position{}, err
	}
	// In a directory that is gone, nothing saved means nothing.
	if err := s.sync(filepath.Dir(s.path)); err != nil {
		return Position{}, s.explain("read", err)
	}
	return p, err
}

// read gives what the file holds, synced.
func (s *fileStore) read() (Position, error) {
	f, err := s.disk.open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Position{}, ErrNone
	}
	if err != nil {
		return Position{}, s.explain("read", err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return Position{}, s.explain("read", err)
	}
	return s.parse(content)
}

func (s *fileStore) parse(content []byte) (Position, error) {
	p, err := parseFile(content)
	switch {
	case errors.Is(err, errUnknownFormat):
		return p, fault.NewOperator(fmt.Errorf("read checkpoint file %s: %w", s.path, err), "use the outboxcdc that wrote it, or a newer one")
	case err != nil:
		return p, fault.NewOperator(fmt.Errorf("read checkpoint file %s: %w", s.path, err),
			"restore it from a backup; or move it away, and the stream goes on from where the slot stands")
	case p.Slot != s.slot:
		return Position{}, fault.NewOperator(
			fmt.Errorf("checkpoint file %s holds the position of slot %q, not of %q", s.path, p.Slot, s.slot),
			"give each slot a file of its own")
	default:
		return p, nil
	}
}

// Save is Store's.
func (s *fileStore) Save(ctx context.Context, p Position) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := complete(p, s.slot); err != nil {
		return err
	}
	content, err := renderFile(p)
	if err != nil {
		return bug("%w", err)
	}
	return s.locked(ctx, func() error {
		saved, err := s.read()
		if err == nil {
			err = follow(saved, p)
		}
		if err != nil && !errors.Is(err, ErrNone) {
			return err
		}
		return s.replace(s.path, content)
	})
}

// replace puts content in the place of the file at path. The order is all: the name must
// not point to the new file before its content is on disk, and nothing is saved
// before the name is.
func (s *fileStore) replace(path string, content []byte) error {
	if err := s.write(path, content); err != nil {
		s.disk.remove(s.temporary()) //nolint:errcheck // half a file takes room, the first error says why
		return s.explain("write", err)
	}
	return s.explain("sync the directory of", s.sync(filepath.Dir(s.path)))
}

func (s *fileStore) write(path string, content []byte) error {
	f, err := s.disk.create(s.temporary())
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return s.disk.rename(s.temporary(), path)
}

func (s *fileStore) temporary() string { return s.path + ".new" }

func (s *fileStore) sync(path string) error {
	f, err := s.disk.open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close is Store's.
func (s *fileStore) Close() error { return s.free() }

// explain gives an error of the file system its class and the way out. A full or
// failing disk may be mended while we wait; what is configured may not.
func (s *fileStore) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s checkpoint file %s: %w", doing, s.path, err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &fault.Error{Class: fault.Transient, Err: err, Advice: "free some space; the last saved position is intact"}
	case errors.Is(err, syscall.EBUSY):
		return fault.NewOperator(err, "mount the directory of the file, not the file itself: it is replaced at each save")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EROFS):
		return fault.NewOperator(err, "make sure that the directory exists and that this user may write in it")
	default:
		return err
	}
}

// unusable is an error of opening: somebody must look at the path, unless another process
// holds the file.
func unusable(path string, err error) error {
	_, told := errors.AsType[*fault.Error](err)
	err = fmt.Errorf("open checkpoint file %s: %w", path, err)
	if told {
		return err
	}
	return fault.NewOperator(err, "name a file in an existing directory that this user may write in")
}

// osDisk is the real one.
type osDisk struct{}

// create makes the file anew rather than open what is there: that may be a link to
// somewhere else.
func (osDisk) create(path string) (file, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return openedOr(os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)) //nolint:gosec // whoever starts us names the file
}

func (osDisk) extend(path string) (file, error) {
	return openedOr(os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)) //nolint:gosec // as above
}

func (osDisk) open(path string) (file, error) {
	return openedOr(os.Open(path)) //nolint:gosec // whoever starts us names the file
}
func (osDisk) rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) remove(path string) error     { return os.Remove(path) }

// openedOr keeps a nil *os.File from becoming a file that is not nil.
func openedOr(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}
