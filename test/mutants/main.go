// Command mutants plants one bug after the other and expects the tests to catch
// each. A guarantee whose mutant survives is a guarantee that nobody tests.
//
// A mutant is one replacement in one file, and the test that is known to kill it.
// The file itself is never touched: the compiler reads the changed text through
// an overlay.
//
//	go run ./test/mutants              all of them, two at a time
//	go run ./test/mutants -run ack     those whose name matches
//	go run ./test/mutants -p 1         one after the other
//	go run ./test/mutants -shard 2/3   the second third of them
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
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
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
	shard := flag.String("shard", "1/1", "which part of how many")
	atOnce := flag.Int("p", 2, "how many at a time")
	flag.Parse()
	chosen, err := choose(*pattern, *shard)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	began := time.Now()
	survivors, err := run(context.Background(), chosen, *atOnce)
	fmt.Printf("%d mutants, %d survived, in %v\n", len(chosen), survivors, time.Since(began).Round(time.Second))
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	if survivors > 0 {
		os.Exit(1)
	}
}

// choose gives the mutants of a part whose names match.
func choose(pattern, shard string) ([]mutant, error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("read -run: %w", err)
	}
	var part, parts int
	if n, _ := fmt.Sscanf(shard, "%d/%d", &part, &parts); n != 2 || part < 1 || part > parts {
		return nil, fmt.Errorf("read -shard: %q is not a part such as 1/2", shard)
	}
	var chosen []mutant
	for i, m := range all() {
		if wanted.MatchString(m.name) && i%parts == part-1 {
			chosen = append(chosen, m)
		}
	}
	return chosen, nil
}

// run tries mutants, so many at a time, and counts those that nothing kills. One that
// cannot be tried is an error, and does not keep the others from being tried.
func run(ctx context.Context, chosen []mutant, atOnce int) (survivors int, err error) {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	var (
		mu   sync.Mutex
		errs []error
		work errgroup.Group
	)
	work.SetLimit(atOnce)
	for i, m := range chosen {
		work.Go(func() error {
			began := time.Now()
			killed, err := m.try(ctx, filepath.Join(dir, strconv.Itoa(i)))
			mu.Lock()
			defer mu.Unlock()
			verdict := "killed  "
			switch {
			case err != nil:
				verdict = "BROKEN  "
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			case !killed:
				verdict = "SURVIVED"
				survivors++
			}
			fmt.Printf("%s %5.1fs  %s (%s)\n", verdict, time.Since(began).Seconds(), m.name, m.test)
			return nil
		})
	}
	work.Wait() //nolint:errcheck // they are in errs
	return survivors, errors.Join(errs...)
}

func all() []mutant {
	return slices.Concat(chainMutants, adminMutants, storeMutants, stateMutants, replayMutants, simMutants, sinkMutants, rabbitMutants, securityMutants,
		speedMutants, commandMutants, debeziumMutants, operatorMutants, mappingMutants, poisonMutants)
}

// try builds the test with the bug in it, in dir, and runs it.
func (m mutant) try(ctx context.Context, dir string) (killed bool, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return false, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // in a temporary folder
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
	test.Env = append(os.Environ(), "GOFLAGS=-overlay="+overlay) // for commands that the test builds itself
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
