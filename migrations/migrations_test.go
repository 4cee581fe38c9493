package migrations

import (
	"errors"
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func TestFilesAreNumberedWithoutGapsAndRecordThemselves(t *testing.T) {
	all, err := read(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 2 {
		t.Fatalf("%d migrations are embedded, want at least 2", len(all))
	}
	for _, m := range all {
		_, record, found := strings.Cut(m.text, "INSERT INTO outboxcdc.migration")
		if !found || !strings.Contains(record, "'"+m.name+"'") {
			t.Errorf("migration %04d_%s does not end with its own record", m.number, m.name)
		}
		if m.perTable != (m.name == "outbox") {
			t.Errorf("migration %04d_%s runs for each table: %v", m.number, m.name, m.perTable)
		}
	}
}

func TestAGapOrAStrayFileIsRefused(t *testing.T) {
	for name, paths := range map[string][]string{
		"gap":       {"0001_a.sql", "0003_b.sql"},
		"twice":     {"0001_a.sql", "0001_b.sql"},
		"no digits": {"a_b.sql"},
		"short":     {"1_a.sql"},
		"no name":   {"0001.sql"},
	} {
		dir := fstest.MapFS{}
		for _, path := range paths {
			dir[path] = &fstest.MapFile{}
		}
		if _, err := read(dir); err == nil {
			t.Errorf("%s: read(%v) succeeded", name, paths)
		}
	}
}

func TestRenderHoldsEveryStepInItsOwnTransaction(t *testing.T) {
	sql, err := Render(Params{Tables: []Table{{"public", "outbox"}, {`s"x`, "o'y\nDROP"}}})
	if err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]int{
		"\nBEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n": 11,
		"\nCOMMIT;\n":                            11,
		lock:                                     11,
		`TABLE IF NOT EXISTS "public"."outbox"`:  1,
		`TABLE IF NOT EXISTS "s""x"."o'y` + "\n": 1,
		`'s"x', 'o''y` + "\n":                    3,
		"\n-- 0002_outbox s\"x.o'y DROP\n":       1,
		"\nDROP":                                 4, // all of them in quotes
	} {
		if got := strings.Count(sql, part); got != want {
			t.Errorf("Render holds %q %d times, want %d", part, got, want)
		}
	}
	if again, err := substitute(sql, nil); err != nil || again != sql {
		t.Errorf("Render leaves variables: %v", err)
	}
}

func TestWithoutTablesOnlyOurOwnIsMade(t *testing.T) {
	steps, err := Params{}.steps()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range steps {
		names = append(names, s.String())
	}
	if diff := cmp.Diff([]string{"0001_checkpoint", "0003_history", "0004_replay", "0005_status", "0006_publish", "0007_parked", "0008_streamed", "0009_parked_status", "0010_left"}, names); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestEveryBadNameIsReportedAtOnce(t *testing.T) {
	_, err := Render(Params{Tables: []Table{
		{"", "outbox"}, {"public", strings.Repeat("é", 32)}, {"a\xff", "b\x00"},
	}})
	if got := fault.Classify(err); got != fault.Usage {
		t.Fatalf("Render gave %v of class %v, want a usage error", err, got)
	}
	for _, part := range []string{"schema is empty", "64 bytes", "not UTF-8", "zero byte"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestAStepRunsWhenItsWorkIsNotThere(t *testing.T) {
	app, other := Table{"app", "outbox"}, Table{"other", "outbox"}
	database := step{migration: migration{number: 1, newest: 2}}
	table := step{migration: migration{number: 2, newest: 2, perTable: true}, table: app}
	ran := func(number int, t Table) record { return record{Number: number, Table: t} }
	for _, c := range []struct {
		name string
		step step
		seen state
		want bool
	}{
		{"empty database", database, state{}, true},
		{"done", database, state{true, []record{ran(1, Table{})}}, false},
		{"made by hand, not recorded", database, state{true, nil}, true},
		{"recorded but dropped", database, state{false, []record{ran(1, Table{})}}, true},
		{"new table", table, state{false, []record{ran(1, Table{})}}, true},
		{"table done", table, state{true, []record{ran(1, Table{}), ran(2, app)}}, false},
		{"table of someone else", table, state{true, []record{ran(1, Table{})}}, false},
		{"record of another table", table, state{true, []record{ran(2, other)}}, false},
		{"our table dropped", table, state{false, []record{ran(2, app)}}, true},
		{"our table, a later step", step{migration: migration{number: 3, newest: 3, perTable: true}, table: app}, state{true, []record{ran(2, app)}}, true},
	} {
		got, err := c.step.due(c.seen)
		if err != nil || got != c.want {
			t.Errorf("%s: due = %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestANewerDatabaseIsRefused(t *testing.T) {
	s := step{migration: migration{number: 1, newest: 2}}
	_, err := s.due(state{true, []record{{3, "roles", Table{}}}})
	var e *fault.Error
	if !errors.As(err, &e) || e.Class != fault.Operator || e.Advice == "" || !strings.Contains(err.Error(), "0003_roles") {
		t.Fatalf("due = %v, want an operator error that names 0003_roles", err)
	}
}

// A migration that makes a table of ours says what the streaming role may do with it.
func TestEveryTableOfOursHasItsRights(t *testing.T) {
	paths, err := fs.Glob(files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for _, path := range paths {
		text, err := fs.ReadFile(files, path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`CREATE TABLE IF NOT EXISTS outboxcdc\.(\w+)`).FindAllStringSubmatch(string(text), -1) {
			made[found[1]] = true
		}
	}
	named := map[string]bool{}
	for _, right := range StreamRights() {
		if !made[right.Table] {
			t.Errorf("table %s has rights, and no migration makes it", right.Table)
		}
		named[right.Table] = true
	}
	for table := range made {
		if !named[table] {
			t.Errorf("no right on table outboxcdc.%s is named in StreamRights", table)
		}
	}
}
