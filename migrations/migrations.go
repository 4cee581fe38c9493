// Package migrations makes what outboxcdc keeps in a database: its schema, its
// saved positions, and outbox tables.
//
// It knows SQL files, in what order they run and which have run. It does not know
// slots, publications or streams. The files are plain SQL with psql's variables, so
// that an administrator can read and run them without this program:
//
//   - NNNN_name.sql, numbered without gaps from 0001. A file that was released is
//     never changed; what it made is changed by a later one.
//   - A file that names the variables "schema" and "table" runs once for each outbox
//     table, any other once for the database.
//   - Each runs in a transaction of its own, ends with the insert of its record
//     into outboxcdc.migration, and may run again on what it made.
package migrations

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

//go:embed *.sql
var files embed.FS

// Table names an outbox table. Both names are taken as they are, case included.
type Table struct {
	Schema string
	Name   string
}

// Params say what is to be made. Without tables it is only what outboxcdc needs
// for itself.
type Params struct {
	Tables []Table
}

// maxNameBytes is what Postgres keeps of a name; it would cut the rest in silence.
const maxNameBytes = 63

// validate gives every problem at once.
func (p Params) validate() error {
	var errs []error
	for _, t := range p.Tables {
		errs = append(errs, checkName("schema", t.Schema), checkName("table", t.Name))
	}
	if err := errors.Join(errs...); err != nil {
		return fault.NewUsage(err, "name an outbox table as schema.table")
	}
	return nil
}

func checkName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name of the %s is empty", kind)
	case len(name) > maxNameBytes:
		return fmt.Errorf("the name of %s %q is %d bytes long, Postgres keeps %d", kind, name, len(name), maxNameBytes)
	}
	if err := checkText(name); err != nil {
		return fmt.Errorf("the name of %s %q %w", kind, name, err)
	}
	return nil
}

// Render gives the SQL that Apply would run on a database without anything, for an
// administrator who runs it with psql. It may run again: what is there stays as it
// is.
func Render(p Params) (string, error) {
	steps, err := p.steps()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("-- What outboxcdc needs. Run it with psql -v ON_ERROR_STOP=1; it may run again.\n")
	for _, s := range steps {
		sql, err := s.sql()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "\n-- %s\nBEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n%s%s\n%sCOMMIT;\n", s.comment(), settings, lock, sql)
	}
	return out.String(), nil
}

// migration is one of the files.
type migration struct {
	number   int
	name     string
	text     string
	perTable bool
	newest   int // number of the last migration that this program has
}

// step is a migration of one table, or of the database when table is zero.
type step struct {
	migration
	table Table
}

// steps are what p asks for, in the order in which it runs.
func (p Params) steps() ([]step, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	all, err := read(files)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, m := range all {
		if !m.perTable {
			steps = append(steps, step{migration: m})
			continue
		}
		for _, t := range p.Tables {
			steps = append(steps, step{migration: m, table: t})
		}
	}
	return steps, nil
}

// read reads the migrations in dir, in order.
func read(dir fs.FS) ([]migration, error) {
	paths, err := fs.Glob(dir, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("list the migrations: %w", err)
	}
	var all []migration
	for i, path := range paths {
		m, err := readOne(dir, path)
		if err != nil {
			return nil, err
		}
		if m.number != i+1 {
			return nil, fmt.Errorf("migration %s stands where number %04d is due", path, i+1)
		}
		m.newest = len(paths)
		all = append(all, m)
	}
	return all, nil
}

func readOne(dir fs.FS, path string) (migration, error) {
	digits, name, ok := strings.Cut(strings.TrimSuffix(path, ".sql"), "_")
	number, err := strconv.Atoi(digits)
	if !ok || len(digits) != 4 || err != nil {
		return migration{}, fmt.Errorf("migration %s is not named NNNN_name.sql", path)
	}
	text, err := fs.ReadFile(dir, path)
	if err != nil {
		return migration{}, fmt.Errorf("read migration %s: %w", path, err)
	}
	m := migration{number: number, name: name, text: string(text)}
	m.perTable = usesVariable(m.text, "table")
	return m, nil
}

// String names the step for people, such as "0002_outbox public.outbox".
func (s step) String() string {
	name := fmt.Sprintf("%04d_%s", s.number, s.name)
	if s.perTable {
		name += " " + s.table.Schema + "." + s.table.Name
	}
	return name
}

// comment is String on one line: a name may hold a line end, and what follows
// would no longer be a comment.
func (s step) comment() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return ' '
		}
		return r
	}, s.String())
}

// sql is the text of the step with its variables filled in.
func (s step) sql() (string, error) {
	values := map[string]string{}
	if s.perTable {
		values["schema"], values["table"] = s.table.Schema, s.table.Name
	}
	sql, err := substitute(s.text, values)
	if err != nil {
		return "", fmt.Errorf("fill in migration %s: %w", s, err)
	}
	return sql, nil
}
