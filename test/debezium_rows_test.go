package test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// goldenFrom names a directory with the observations of a real Debezium, one file a
// profile, to make the compact files of outbox/debezium/testdata from.
var goldenFrom = flag.String("debezium.golden", "", "make outbox/debezium/testdata anew from the observations in this directory")

const goldenDir = "../outbox/debezium/testdata"

// golden is a profile of outbox/debezium/testdata: what was asked of Debezium, the
// rows that the log then holds, and the records that it made of them.
type golden struct {
	Profile    string            `json:"profile"`
	About      string            `json:"about"`
	Connector  map[string]string `json:"connector"`
	Partitions int32             `json:"topic_partitions"`
	DDL        []string          `json:"ddl"`
	SQL        []string          `json:"sql"`
	Table      goldenTable       `json:"table"`
	Rows       []goldenRow       `json:"rows"`
	Records    json.RawMessage   `json:"records"`
	Varying    json.RawMessage   `json:"varying_headers,omitempty"`
	Error      json.RawMessage   `json:"error,omitempty"`
}

type goldenTable struct {
	Schema  string         `json:"schema"`
	Name    string         `json:"name"`
	Columns []goldenColumn `json:"columns"`
}

type goldenColumn struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Mod     int32    `json:"mod"`
	Labels  []string `json:"labels,omitempty"`
	NotNull bool     `json:"not_null,omitempty"`
	Default string   `json:"default,omitempty"`
}

// goldenRow is an inserted row, or a logical message in its place.
type goldenRow struct {
	SQL     int                `json:"sql"` // index of the statement
	Values  map[string]*string `json:"values,omitempty"`
	Message *string            `json:"message,omitempty"`
}

// TestRowsOfTheGoldenRecordsAreWhatPostgresSends holds the rows in
// outbox/debezium/testdata to what a real server sends for the same SQL. The records
// beside them are what the real Debezium made of that SQL.
func TestRowsOfTheGoldenRecordsAreWhatPostgresSends(t *testing.T) {
	t.Parallel()
	if *goldenFrom != "" {
		makeGolden(t)
		return
	}
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("find the golden files: %v, %d", err, len(files))
	}
	reader := newGoldenReader(t)
	for _, file := range files {
		var want golden
		readJSON(t, file, &want)
		got := want
		reader.fill(t, &got)
		if diff := cmp.Diff(want.Table, got.Table); diff != "" {
			t.Errorf("%s: the table (-file +server):\n%s", want.Profile, diff)
		}
		forgetMoments(&want)
		forgetMoments(&got)
		if diff := cmp.Diff(want.Rows, got.Rows); diff != "" {
			t.Errorf("%s: the rows (-file +server):\n%s", want.Profile, diff)
		}
	}
}

// forgetMoments takes out what differs each time: the values of columns whose DEFAULT
// is the time.
func forgetMoments(g *golden) {
	for _, c := range g.Table.Columns {
		if c.Default != "now()" {
			continue
		}
		for _, row := range g.Rows {
			delete(row.Values, c.Name)
		}
	}
}

func readJSON(tb testing.TB, file string, into any) {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		tb.Fatalf("read %s: %v", file, err)
	}
}

// goldenReader runs the SQL of profiles one after the other and reads what the log
// then holds.
type goldenReader struct {
	sql  *pgx.Conn
	slot string
}

func newGoldenReader(tb testing.TB) *goldenReader {
	tb.Helper()
	db := servers.SharedPostgres(tb)
	r := &goldenReader{sql: db.Conn(tb), slot: walName("golden")}
	r.run(tb, "set timezone = 'UTC'", "select pg_create_logical_replication_slot('"+r.slot+"', 'pgoutput')")
	return r
}

func (r *goldenReader) run(tb testing.TB, statements ...string) {
	tb.Helper()
	for _, statement := range statements {
		if _, err := r.sql.PgConn().Exec(walContext(tb), statement).ReadAll(); err != nil {
			tb.Fatalf("%.200s: %v", statement, err)
		}
	}
}

// fill puts the table and the rows of a profile in.
func (r *goldenReader) fill(tb testing.TB, g *golden) {
	tb.Helper()
	r.run(tb, "drop schema if exists app cascade", "drop schema public cascade", "create schema public", "drop publication if exists golden_pub")
	r.run(tb, g.DDL...)
	g.Rows = nil
	for i, statement := range g.SQL {
		r.run(tb, statement)
		for _, row := range r.read(tb) {
			row.SQL = i
			g.Rows = append(g.Rows, row)
		}
	}
	g.Table = r.describe(tb)
}

// read takes what the log holds by now out of the slot.
func (r *goldenReader) read(tb testing.TB) []goldenRow {
	tb.Helper()
	rows, err := r.sql.Query(walContext(tb), `select data from pg_logical_slot_get_binary_changes($1, null, null,
		'proto_version', '1', 'publication_names', 'golden_pub', 'messages', 'true')`, r.slot)
	if err != nil {
		tb.Fatal(err)
	}
	var found []goldenRow
	relations := map[uint32][]string{}
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&data}, func() error {
		f := fields{rest: data[1:]}
		switch data[0] {
		case 'R':
			oid, names := f.relation()
			relations[oid] = names
		case 'I':
			found = append(found, goldenRow{Values: f.insert(relations)})
		case 'M':
			if prefix, content := f.message(); prefix == "outbox" {
				found = append(found, goldenRow{Message: &content})
			}
		}
		return f.err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

// describe gives what the catalog says of the outbox table.
func (r *goldenReader) describe(tb testing.TB) goldenTable {
	tb.Helper()
	var table goldenTable
	err := r.sql.QueryRow(walContext(tb),
		"select schemaname, tablename from pg_publication_tables where pubname = 'golden_pub'").Scan(&table.Schema, &table.Name)
	if err != nil {
		tb.Fatalf("find the published table: %v", err)
	}
	rows, err := r.sql.Query(walContext(tb), `
		select row_to_json(c)::text from (
			select a.attname as name, t.typname as type, a.atttypmod as mod, a.attnotnull as not_null,
				(select array_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid) as labels,
				case when a.attgenerated = '' then coalesce(pg_get_expr(d.adbin, d.adrelid), '') end as "default"
			from pg_attribute a join pg_type t on t.oid = a.atttypid
			left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
			where a.attrelid = (select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
				where n.nspname = $1 and c.relname = $2)
				and a.attnum > 0 and not a.attisdropped order by a.attnum) c`, table.Schema, table.Name)
	if err != nil {
		tb.Fatal(err)
	}
	var text string
	_, err = pgx.ForEachRow(rows, []any{&text}, func() error {
		var c goldenColumn
		defer func() { table.Columns = append(table.Columns, c) }()
		return json.Unmarshal([]byte(text), &c)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return table
}

// fields reads pgoutput messages (protocol documentation, "Logical Replication
// Message Formats"), by a decoder of the test's own.
type fields struct {
	rest []byte
	err  error
}

func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.err, f.rest = errors.New("message is truncated"), nil
		return make([]byte, n)
	}
	taken := f.rest[:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) text() string {
	text, rest, _ := strings.Cut(string(f.rest), "\x00")
	f.rest = []byte(rest)
	return text
}

func (f *fields) relation() (oid uint32, names []string) {
	oid = binary.BigEndian.Uint32(f.take(4))
	f.text()
	f.text()
	f.take(1)
	for range binary.BigEndian.Uint16(f.take(2)) {
		f.take(1)
		names = append(names, f.text())
		f.take(8)
	}
	return oid, names
}

func (f *fields) insert(relations map[uint32][]string) map[string]*string {
	names := relations[binary.BigEndian.Uint32(f.take(4))]
	f.take(1 + 2)
	values := map[string]*string{}
	for _, name := range names {
		if f.take(1)[0] == 'n' {
			values[name] = nil
			continue
		}
		text := string(f.take(int(binary.BigEndian.Uint32(f.take(4)))))
		values[name] = &text
	}
	return values
}

func (f *fields) message() (prefix, content string) {
	f.take(1 + 8)
	prefix = f.text()
	return prefix, string(f.take(int(binary.BigEndian.Uint32(f.take(4)))))
}

// makeGolden makes the files of outbox/debezium/testdata out of observations: the
// rows are added, and bytes that are text become text.
func makeGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(*goldenFrom, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("find the observations: %v, %d", err, len(files))
	}
	reader := newGoldenReader(t)
	for _, file := range files {
		var seen struct {
			golden
			Publication string           `json:"publication"`
			Before      []string         `json:"statements_before_start"`
			Statements  []string         `json:"statements"`
			Records     []map[string]any `json:"records"`
		}
		readJSON(t, file, &seen)
		if seen.Profile == "error-record-too-large" {
			continue // a megabyte, of which the broker alone has an opinion
		}
		g := seen.golden
		g.DDL = append(g.DDL, seen.Publication)
		g.SQL = slices.Concat(seen.Before, seen.Statements)
		reader.fill(t, &g)
		for i, record := range seen.Records {
			compactRecord(record, g.Rows[min(i, len(g.Rows)-1)].Values)
		}
		if g.Records, err = json.Marshal(seen.Records); err != nil {
			t.Fatal(err)
		}
		if err := writeGolden(filepath.Join(goldenDir, g.Profile+".json"), &g); err != nil {
			t.Fatal(err)
		}
	}
}

// compactRecord writes bytes that are text as text, and a long value that is the
// row's payload by that name.
func compactRecord(record map[string]any, row map[string]*string) {
	headers := record["headers"].([]any)
	for _, h := range headers {
		pair := h.([]any)
		pair[1] = compactBytes(pair[1])
	}
	record["key"], record["value"] = compactBytes(record["key_b64"]), compactBytes(record["value_b64"])
	delete(record, "key_b64")
	delete(record, "value_b64")
	if text, isText := record["value"].(string); isText && len(text) > 1000 && row["payload"] != nil && *row["payload"] == text {
		delete(record, "value")
		record["value_of"] = "payload"
	}
}

func compactBytes(encoded any) any {
	text, isText := encoded.(string)
	if !isText {
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !utf8.Valid(raw) {
		return map[string]string{"base64": text}
	}
	return string(raw)
}

func writeGolden(file string, g *golden) error {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(g); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	// One row, record or statement a line: long enough to be small, short enough to
	// be read.
	text := strings.NewReplacer(
		`,"rows":[`, ",\n\"rows\":[\n", `,"records":[`, ",\n\"records\":[\n", `,"ddl":[`, ",\n\"ddl\":[", `,"sql":[`, ",\n\"sql\":[\n",
		`,"table":{`, ",\n\"table\":{", `},{"sql":`, "},\n{\"sql\":", `},{"headers":`, "},\n{\"headers\":",
	).Replace(b.String())
	if !json.Valid([]byte(text)) {
		return fmt.Errorf("write %s: it would be no JSON", file)
	}
	return os.WriteFile(file, []byte(text), 0o600)
}
