// Command mutants plants one bug after the other and expects the tests to catch
// each. A guarantee whose mutant survives is a guarantee that nobody tests.
//
// A mutant is one replacement in one file, and the test that is known to kill it.
// The file itself is never touched: the compiler reads the changed text through
// an overlay.
//
//	go run ./test/mutants            all of them
//	go run ./test/mutants -run ack   those whose name matches
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// mutant is a planted bug.
type mutant struct {
	name string // the mistake
	file string // from the top of the repository
	old  string // stands in the file exactly once
	new  string
	pkg  string // of the test
	test string // regular expression that the names of the tests begin with
}

const killTimeout = "120s" // a mutant may hang; that is caught too

func main() {
	pattern := flag.String("run", "", "only mutants whose name matches")
	flag.Parse()
	survivors, err := run(context.Background(), *pattern)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	if survivors > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context, pattern string) (survivors int, err error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return 0, fmt.Errorf("read -run: %w", err)
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	tried := 0
	for _, m := range all() {
		if !wanted.MatchString(m.name) {
			continue
		}
		began := time.Now()
		killed, err := m.try(ctx, dir)
		if err != nil {
			return survivors, fmt.Errorf("%s: %w", m.name, err)
		}
		tried++
		verdict := "killed  "
		if !killed {
			verdict = "SURVIVED"
			survivors++
		}
		fmt.Printf("%s %5.1fs  %s (%s)\n", verdict, time.Since(began).Seconds(), m.name, m.test)
	}
	fmt.Printf("%d mutants, %d killed, %d survived\n", tried, tried-survivors, survivors)
	return survivors, nil
}

func all() []mutant {
	return slices.Concat(chainMutants, adminMutants, storeMutants, simMutants, sinkMutants, commandMutants)
}

// try builds the test with the bug in it and runs it.
func (m mutant) try(ctx context.Context, dir string) (killed bool, err error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return false, err
	}
	binary := filepath.Join(dir, "mutant.test")
	//nolint:gosec // the words come from the table
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "synctests", "-overlay", overlay, "-o", binary, m.pkg)
	if out, err := build.CombinedOutput(); err != nil {
		return false, fmt.Errorf("does not compile: %w\n%s", err, out)
	}
	//nolint:gosec // built above
	test := exec.CommandContext(ctx, binary, "-test.run", "^("+m.test+")", "-test.timeout", killTimeout)
	test.Dir = m.pkg
	out, err := test.CombinedOutput()
	if strings.Contains(string(out), "no tests to run") {
		return false, fmt.Errorf("no test is called %s", m.test)
	}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return false, err
	}
	return err != nil, nil
}

// overlay writes the changed file and tells the compiler to read it instead.
func (m mutant) overlay(dir string) (string, error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		return "", fmt.Errorf("the text to replace stands %d times in %s, want once", n, m.file)
	}
	changed := filepath.Join(dir, "changed.go")
	mutated := strings.Replace(string(source), m.old, m.new, 1)
	if err := os.WriteFile(changed, []byte(mutated), 0o600); err != nil { //nolint:gosec // a folder of our own
		return "", err
	}
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}
