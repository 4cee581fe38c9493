package checkpoint

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

const testSlot = "orders"

func testPosition(lsn wal.LSN) Position {
	return Position{
		Slot: testSlot, System: "7398712345678901234", Timeline: 1, Database: "shop",
		LSN: lsn, Time: time.Date(2026, 2, 3, 4, 5, 6, 789_012_345, time.UTC),
	}
}

// storeOn is a store on a fake disk, without a lock: nobody else is there.
func storeOn(d *fakeDisk) *fileStore {
	return &fileStore{
		path: "/state/orders.json", slot: testSlot, age: DefaultHistoryAge, disk: d,
		lock: func(context.Context) (func(), error) { return func() {}, nil },
		free: func() error { return nil },
	}
}

// saved gives a fake disk on which lsn is saved.
func saved(tb testing.TB, lsn wal.LSN) *fakeDisk {
	tb.Helper()
	d := newFakeDisk()
	if err := storeOn(d).Save(tb.Context(), testPosition(lsn)); err != nil {
		tb.Fatal(err)
	}
	return d
}

// For every operation of a save and every state that a power cut at that moment
// may leave: the file is the old one or the new one, and the new one once Save has
// returned.
func TestAPowerCutAtAnyMomentLeavesOldOrNew(t *testing.T) {
	const before, after = 0x100, 0x200
	finished := false
	for n := 0; !finished; n++ {
		d := saved(t, before)
		d.failAfter(n, errPower)
		err := storeOn(d).Save(t.Context(), testPosition(after))
		finished = err == nil
		for i, left := range d.powerCuts() {
			got, loadErr := storeOn(left).Load(t.Context())
			if loadErr != nil {
				t.Fatalf("power cut %d after %d operations: Load = %v", i, n, loadErr)
			}
			if got.LSN != after && (finished || got.LSN != before) {
				t.Errorf("power cut %d after %d operations (Save = %v) left %v", i, n, err, got.LSN)
			}
		}
	}
}

func TestAFirstSaveIsDurableToo(t *testing.T) {
	for i, left := range saved(t, 0x100).powerCuts() {
		if got, err := storeOn(left).Load(t.Context()); err != nil || got.LSN != 0x100 {
			t.Errorf("power cut %d after a first Save: Load = %v, %v", i, got.LSN, err)
		}
	}
}

// A process that is killed in the middle of a save may leave what is seen but not
// durable. The next one builds on it, so it must not be taken away again.
func TestWhatWasLoadedSurvivesAPowerCut(t *testing.T) {
	const before, after = 0x100, 0x200
	for n := range 6 {
		d := saved(t, before)
		d.failAfter(n, errPower)
		_ = storeOn(d).Save(t.Context(), testPosition(after)) // killed
		next := d.restart()
		got, err := storeOn(next).Load(t.Context())
		if err != nil {
			t.Fatalf("killed after %d operations: Load = %v", n, err)
		}
		for i, left := range next.powerCuts() {
			if again, err := storeOn(left).Load(t.Context()); err != nil || again.LSN != got.LSN {
				t.Errorf("killed after %d operations: Load gave %v, after power cut %d it gives %v, %v", n, got.LSN, i, again.LSN, err)
			}
		}
	}
}

func TestAFullDiskLeavesTheOldFileAndNoLitter(t *testing.T) {
	for n, failure := range []error{syscall.ENOSPC, syscall.ENOSPC, syscall.EDQUOT, syscall.ENOSPC} {
		d := saved(t, 0x100)
		d.failAfter(n+1, failure) // the first operation syncs the old file
		err := storeOn(d).Save(t.Context(), testPosition(0x200))
		if !errors.Is(err, failure) || fault.Classify(err) != fault.Transient || !strings.Contains(err.Error(), "space") {
			t.Fatalf("operation %d: Save on a full disk = %v", n, err)
		}
		if got, err := storeOn(d).Load(t.Context()); err != nil || got.LSN != 0x100 {
			t.Errorf("operation %d: Load = %v, %v, want the old position", n, got.LSN, err)
		}
		if len(d.names) != 1 {
			t.Errorf("operation %d: %d files are left, want 1", n, len(d.names))
		}
		if err := storeOn(d).Save(t.Context(), testPosition(0x300)); err != nil {
			t.Errorf("operation %d: Save with space again = %v", n, err)
		}
	}
}

func TestAFailedSyncOfTheDirectoryIsNoSave(t *testing.T) {
	d := saved(t, 0x100)
	d.failAfter(5, syscall.EIO)
	if err := storeOn(d).Save(t.Context(), testPosition(0x200)); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Save = %v, want EIO", err)
	}
}

func TestErrorsOfTheDiskSayWhoCanMendThem(t *testing.T) {
	for failure, want := range map[error]fault.Class{
		syscall.ENOSPC: fault.Transient,
		syscall.EIO:    fault.Transient,
		syscall.EACCES: fault.Operator,
		syscall.EROFS:  fault.Operator,
		syscall.EBUSY:  fault.Operator,
		syscall.ENOENT: fault.Operator,
	} {
		d := newFakeDisk()
		d.failAfter(0, failure)
		err := storeOn(d).Save(t.Context(), testPosition(1))
		if !errors.Is(err, failure) || fault.Classify(err) != want || !strings.Contains(err.Error(), "/state/orders.json") {
			t.Errorf("Save with %v = %v of class %v, want class %v", failure, err, fault.Classify(err), want)
		}
	}
}

// openTest opens the store at path as a new process would.
func openTest(tb testing.TB, path string) Store {
	tb.Helper()
	s, err := Open(tb.Context(), "file://"+path, Options{Slot: testSlot})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func TestADamagedFileIsNeverNone(t *testing.T) {
	good, err := renderFile(testPosition(0x100))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":          "",
		"torn":           string(good[:len(good)/2]),
		"zeros":          strings.Repeat("\x00", len(good)),
		"garbage":        "0/16B3748\n",
		"null":           "null",
		"object":         "{}",
		"huge":           string(good) + strings.Repeat(" ", maxFileBytes),
		"more behind":    string(good) + "{}",
		"edited":         strings.Replace(string(good), "0/100", "0/900", 1),
		"other checksum": strings.Replace(string(good), "crc32c:", "crc32c:0", 1),
		"unknown field":  strings.Replace(string(good), `"slot"`, `"slots": 1, "slot"`, 1),
		"field twice":    strings.Replace(string(good), `"format": 2,`, `"format": 2, "format": 2,`, 1),
		"other case":     strings.Replace(string(good), `"format"`, `"Format"`, 1),
		"newer":          strings.Replace(string(good), `"format": 2`, `"format": 3`, 1),
		"no format":      strings.Replace(string(good), `"format": 2,`, ``, 1),
	} {
		path := filepath.Join(t.TempDir(), "orders.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openTest(t, path)
		_, loadErr := s.Load(t.Context())
		saveErr := s.Save(t.Context(), testPosition(0x1000))
		for doing, err := range map[string]error{"Load": loadErr, "Save": saveErr} {
			var e *fault.Error
			if errors.Is(err, ErrNone) || !errors.As(err, &e) || e.Class != fault.Operator || e.Advice == "" || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %s = %v, want an operator error that names the file", name, doing, err)
			}
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != content {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestReformattedFileIsStillRead(t *testing.T) {
	good, err := renderFile(testPosition(0x100))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseFile(compact(good))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testPosition(0x100), got); diff != "" {
		t.Errorf("parse of a file without white space (-want +got):\n%s", diff)
	}
}

func TestAFileOfAnotherSlotIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shared.json")
	if err := openTest(t, path).Save(t.Context(), testPosition(0x100)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), "file://"+path, Options{Slot: "payments"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing was written
	other := testPosition(0x200)
	other.Slot = "payments"
	_, loadErr := s.Load(t.Context())
	for doing, err := range map[string]error{"Load": loadErr, "Save": s.Save(t.Context(), other)} {
		if fault.Classify(err) != fault.Operator || !strings.Contains(err.Error(), `"orders"`) {
			t.Errorf("%s = %v, want an operator error that names the other slot", doing, err)
		}
	}
}

func TestAnUnusablePathIsRefusedAtOpen(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"directory":            dir,
		"no such directory":    filepath.Join(dir, "missing", "orders.json"),
		"below a file":         filepath.Join(plain, "orders.json"),
		"not writable by root": "/proc/orders.json",
		"device":               "/dev/null",
		"dangling link":        dangling,
	} {
		_, err := Open(t.Context(), "file://"+path, Options{Slot: testSlot})
		var e *fault.Error
		if !errors.As(err, &e) || e.Class != fault.Operator || e.Advice == "" || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Open = %v, want an operator error that names %s", name, err, path)
		}
	}
}

func TestASymbolicLinkStaysOne(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "real.json"), filepath.Join(dir, "link.json")
	if err := openTest(t, target).Save(t.Context(), testPosition(0x100)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := openTest(t, link).Save(t.Context(), testPosition(0x200)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
	if got, err := openTest(t, target).Load(t.Context()); err != nil || got.LSN != 0x200 {
		t.Errorf("behind the link stands %v, %v, want 0/200", got.LSN, err)
	}
}

func TestNobodyElseMayReadTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.json")
	if err := openTest(t, path).Save(t.Context(), testPosition(1)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has mode %v, %v, want 0600", info.Mode(), err)
	}
}

// While another process is between its look and its rename, a save waits, and so does who
// opens the file: the other may be frozen there.
func TestASaveWaitsForAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.json")
	s := openTest(t, path)
	other, err := openLock(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer other.close() //nolint:errcheck // nothing was written
	synctest.Test(t, func(t *testing.T) {
		unlock, err := other.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := s.Save(t.Context(), testPosition(1)); fault.Classify(err) != fault.Transient || !strings.Contains(err.Error(), "another process") {
			t.Errorf("Save beside another process = %v, want a transient error", err)
		}
		if waited := time.Since(begin); waited != lockTimeout {
			t.Errorf("Save gave up after %v, want %v", waited, lockTimeout)
		}
		if _, err := Open(t.Context(), "file://"+path, Options{Slot: testSlot}); fault.Classify(err) != fault.Transient || !strings.Contains(err.Error(), "fuser") {
			t.Errorf("Open beside another process = %v, want a transient error and how to find it", err)
		}
		if _, err := s.Load(t.Context()); !errors.Is(err, ErrNone) {
			t.Errorf("Load = %v, want ErrNone", err)
		}
		time.AfterFunc(time.Second, unlock)
		if err := s.Save(t.Context(), testPosition(1)); err != nil {
			t.Errorf("Save after the other process = %v", err)
		}
	})
}

// saverPath tells a copy of this test program to save to a file until it is killed.
const saverPath = "OUTBOXCDC_TEST_SAVER"

func TestSaveUntilKilled(t *testing.T) {
	path := os.Getenv(saverPath) //nolint:forbidigo // how a test program tells its copy
	if path == "" {
		return // not the copy
	}
	s := openTest(t, path)
	from := wal.LSN(1)
	if p, err := s.Load(t.Context()); err == nil {
		from = p.LSN + 1
	}
	for lsn := from; ; lsn++ {
		if err := s.Save(t.Context(), testPosition(lsn)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(os.Stdout, "saved %d\n", lsn); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKillingTheProcessLosesNothingSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.json")
	for round := range 8 {
		last := killAfter(t, path, 3+round)
		got, err := openTest(t, path).Load(t.Context())
		if err != nil || got.LSN < last {
			t.Fatalf("round %d: Load after the kill = %v, %v, want at least %v", round, got.LSN, err, last)
		}
	}
}

// killAfter kills a saving process once it has told of so many saves, and gives
// the last that it told of.
func killAfter(t *testing.T, path string, saves int) (last wal.LSN) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSaveUntilKilled$")
	child.Env = append(os.Environ(), saverPath+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 1; lines.Scan(); n++ {
		number, ok := strings.CutPrefix(lines.Text(), "saved ")
		lsn, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil {
			t.Fatalf("the saving process says %q", lines.Text())
		}
		last = wal.LSN(lsn)
		if n == saves {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // killed
	return last
}

func TestNoChangedByteGoesUnnoticed(t *testing.T) {
	want := testPosition(0xABC)
	good, err := renderFile(want)
	if err != nil {
		t.Fatal(err)
	}
	for at := range good {
		for _, to := range []byte{0, ' ', '0', '1', 'F', '"', good[at] ^ 1, good[at] ^ 0x20, good[at] ^ 0x80} {
			changed := bytes.Clone(good)
			changed[at] = to
			if got, err := parseFile(changed); err == nil && !cmp.Equal(got, want) {
				t.Fatalf("byte %d changed to %q: read as %+v", at, to, got)
			}
		}
	}
}

func FuzzFileIsReadAsItWasWrittenOrNotAtAll(f *testing.F) {
	for _, lsn := range []wal.LSN{1, 1 << 63} {
		good, err := renderFile(testPosition(lsn))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(good)
		f.Add(compact(good))
		f.Add(good[:len(good)/2])
	}
	f.Add([]byte(`{"format":1,"position":{},"checksum":"crc32c:00000000"}`))
	f.Add([]byte(`{"format":1,"position":null,"checksum":""}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := parseFile(content)
		if err != nil {
			return
		}
		again, err := renderFile(p)
		if err != nil || !bytes.Equal(compact(again), compact(content)) {
			t.Fatalf("%q is read as %+v, which is written %q, %v", content, p, again, err)
		}
	})
}

func TestWhatCannotBeReadBackIsNotWritten(t *testing.T) {
	for name, change := range map[string]func(*Position){
		"text that is not UTF-8": func(p *Position) { p.Database = "sh\xffop" },
		"year 10000":             func(p *Position) { p.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		d := saved(t, 0x100)
		p := testPosition(0x200)
		change(&p)
		if err := storeOn(d).Save(t.Context(), p); fault.Classify(err) != fault.Bug {
			t.Errorf("%s: Save = %v, want an error of class bug", name, err)
		}
		if got, err := storeOn(d).Load(t.Context()); err != nil || got.LSN != 0x100 {
			t.Errorf("%s: Load = %v, %v, want the old position", name, got.LSN, err)
		}
	}
}
