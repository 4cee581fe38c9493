package servers

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWhatIsUnpackedMayBeReadByAll holds whatever the umask is: root fetches, and
// the servant runs it.
func TestWhatIsUnpackedMayBeReadByAll(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer shut(root)
	const content = "#!/bin/sh\n"
	header := &tar.Header{Name: "./share/lib/initdb", Typeflag: tar.TypeReg, Mode: 0o700, Size: int64(len(content))}
	must(t, unpack(root, header, strings.NewReader(content)))
	must(t, unpack(root, &tar.Header{Name: "share/lib/link", Typeflag: tar.TypeSymlink, Linkname: "initdb"}, nil))
	for path, want := range map[string]os.FileMode{"share": 0o755, "share/lib": 0o755, "share/lib/link": 0o744} {
		info, err := os.Stat(filepath.Join(dir, path))
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "share", "lib", "link"))
	if err != nil || string(got) != content {
		t.Errorf("the file holds %q (%v)", got, err)
	}
}

func TestAnArchiveCannotWriteElsewhere(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer shut(root)
	for _, name := range []string{"../out", "/out", "a/../../out"} {
		header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600}
		if err := unpack(root, header, strings.NewReader("")); err == nil {
			t.Errorf("%s was unpacked", name)
		}
	}
}
