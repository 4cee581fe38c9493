package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The matrix that users read says which test shows what. A test that is renamed must
// take its line along, and the count must be right.
func TestTheFailureMatrixNamesTestsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("../docs/failure-matrix.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	row, name := regexp.MustCompile(`^\| [A-G]\d+ \|`), regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")
	rows, tested := 0, 0
	for line := range strings.Lines(string(text)) {
		if !row.MatchString(line) {
			continue
		}
		rows++
		named := name.FindAllStringSubmatch(line, -1)
		if len(named) > 0 {
			tested++
		} else if !strings.Contains(line, "not tested: ") {
			t.Errorf("no test, and no reason why: %s", line)
		}
		for _, n := range named {
			if !tests[n[1]] {
				t.Errorf("there is no test called %s: %s", n[1], line)
			}
		}
	}
	if want := fmt.Sprintf("\n%d of the %d are tested.", tested, rows); !strings.Contains(string(text), want) {
		t.Errorf("the matrix does not say %q", strings.TrimSpace(want))
	}
}

// testNames are the names of all tests of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\(`)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, f := range function.FindAllSubmatch(source, -1) {
			names[string(f[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
