package checkpoint

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
)

// fakeDisk is a file system that loses what was not synced. It has one directory.
type fakeDisk struct {
	names, synced map[string]*inode // what is seen, and what a power cut leaves
	countdown     int               // operations until one fails; negative is never
	failure       error             // of that operation
	dead          bool              // all later operations fail too: the power is gone
}

type inode struct{ content, synced []byte }

var errPower = errors.New("the power is gone")

func newFakeDisk() *fakeDisk {
	return &fakeDisk{names: map[string]*inode{}, synced: map[string]*inode{}, countdown: -1}
}

// failAfter lets n operations pass and fails the next one.
func (d *fakeDisk) failAfter(n int, failure error) { d.countdown, d.failure = n, failure }

func (d *fakeDisk) operation() error {
	if d.dead {
		return errPower
	}
	d.countdown--
	if d.countdown != -1 {
		return nil
	}
	d.dead = errors.Is(d.failure, errPower)
	return d.failure
}

// restart gives the disk as the next process finds it after this one was killed.
func (d *fakeDisk) restart() *fakeDisk {
	next := newFakeDisk()
	next.names, next.synced = maps.Clone(d.names), maps.Clone(d.synced)
	return next
}

// powerCut gives the disk as the machine may find it: the names of the last sync
// or the newest, and of each file what was synced, all that was written, or half.
func (d *fakeDisk) powerCut(newestNames bool, content func(*inode) []byte) *fakeDisk {
	next := newFakeDisk()
	names := d.synced
	if newestNames {
		names = d.names
	}
	for name, i := range names {
		left := bytes.Clone(content(i))
		next.names[name] = &inode{left, left}
	}
	next.synced = maps.Clone(next.names)
	return next
}

// powerCuts gives every disk that a power cut may leave.
func (d *fakeDisk) powerCuts() []*fakeDisk {
	var all []*fakeDisk
	for _, newestNames := range []bool{false, true} {
		for _, content := range []func(*inode) []byte{
			func(i *inode) []byte { return i.synced },
			func(i *inode) []byte { return i.content },
			func(i *inode) []byte {
				if bytes.Equal(i.content, i.synced) {
					return i.content
				}
				written := i.content[len(i.synced):] // files are only written at their end
				return i.content[:len(i.synced)+len(written)/2]
			},
		} {
			all = append(all, d.powerCut(newestNames, content))
		}
	}
	return all
}

func (d *fakeDisk) create(name string) (file, error) {
	if err := d.operation(); err != nil {
		return nil, err
	}
	d.names[name] = &inode{}
	return &fakeFile{disk: d, inode: d.names[name]}, nil
}

func (d *fakeDisk) extend(name string) (file, error) {
	if err := d.operation(); err != nil {
		return nil, err
	}
	if d.names[name] == nil {
		d.names[name] = &inode{}
	}
	return &fakeFile{disk: d, inode: d.names[name]}, nil
}

func (d *fakeDisk) open(name string) (file, error) {
	if d.dead {
		return nil, errPower
	}
	if path.Ext(name) == "" {
		return &fakeFile{disk: d}, nil // the directory
	}
	i, ok := d.names[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &fakeFile{disk: d, inode: i, unread: i.content}, nil
}

func (d *fakeDisk) rename(from, to string) error {
	if err := d.operation(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *fakeDisk) remove(name string) error {
	if err := d.operation(); err != nil {
		return err
	}
	delete(d.names, name)
	return nil
}

// fakeFile is the directory when it has no inode.
type fakeFile struct {
	disk   *fakeDisk
	inode  *inode
	unread []byte
}

func (f *fakeFile) Read(p []byte) (int, error) {
	if len(f.unread) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.unread)
	f.unread = f.unread[n:]
	return n, nil
}

// Write writes half when it fails, as on a disk that is full.
func (f *fakeFile) Write(p []byte) (int, error) {
	if err := f.disk.operation(); err != nil {
		f.inode.content = append(f.inode.content, p[:len(p)/2]...)
		return len(p) / 2, err
	}
	f.inode.content = append(f.inode.content, p...)
	return len(p), nil
}

func (f *fakeFile) Sync() error {
	if err := f.disk.operation(); err != nil {
		return err
	}
	if f.inode == nil {
		f.disk.synced = maps.Clone(f.disk.names)
		return nil
	}
	f.inode.synced = bytes.Clone(f.inode.content)
	return nil
}

func (f *fakeFile) Close() error { return nil }
