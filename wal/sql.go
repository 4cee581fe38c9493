package wal

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// fetch runs SQL whose only column is JSON and decodes each row of its last
// result. JSON is how the catalogs of all majors are read with one statement:
// row_to_json gives the columns that there are, and a field without a column stays
// zero. The simple protocol, since a walsender knows no other.
func fetch[T any](ctx context.Context, pg *pgconn.PgConn, sql string) ([]T, error) {
	results, err := pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, Fault(err)
	}
	if len(results) == 0 {
		return nil, nil
	}
	rows := results[len(results)-1].Rows
	all := make([]T, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row[0], &all[i]); err != nil {
			return nil, fmt.Errorf("read the answer of the server: %w", err)
		}
	}
	return all, nil
}

// fetchOne is fetch for at most one row.
func fetchOne[T any](ctx context.Context, pg *pgconn.PgConn, sql string) (one T, ok bool, err error) {
	all, err := fetch[T](ctx, pg, sql)
	if err != nil || len(all) == 0 {
		return one, false, err
	}
	return all[0], true, nil
}

func execute(ctx context.Context, pg *pgconn.PgConn, sql string) error {
	_, err := pg.Exec(ctx, sql).ReadAll()
	return Fault(err)
}

// position is an LSN in JSON, where pg_lsn is a string and no position is null.
type position LSN

// UnmarshalJSON reads the text form strictly.
func (p *position) UnmarshalJSON(text []byte) error {
	var s *string
	if err := json.Unmarshal(text, &s); err != nil || s == nil {
		*p = 0
		return err
	}
	lsn, err := ParseLSN(*s)
	*p = position(lsn)
	return err
}

// quoteName is an identifier for SQL and for replication commands, which double a
// quotation mark alike.
func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteText is a string literal. A backslash means itself: the connection has
// standard_conforming_strings on, and replication commands know no other rule.
func quoteText(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// displayName is an identifier for people: quoted only where SQL would need it.
func displayName(name string) string {
	plain := name != ""
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || c == '_'
		plain = plain && (letter || i > 0 && ('0' <= c && c <= '9' || c == '$'))
	}
	if plain {
		return name
	}
	return quoteName(name)
}

// Display is the table's name for people: quoted only where SQL would need it.
func (t Table) Display() string { return t.display() }

func (t Table) quoted() string  { return quoteName(t.Schema) + "." + quoteName(t.Name) }
func (t Table) display() string { return displayName(t.Schema) + "." + displayName(t.Name) }

// quotedTables lists tables for a publication.
func quotedTables(tables []Table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.quoted()
	}
	return strings.Join(names, ", ")
}
