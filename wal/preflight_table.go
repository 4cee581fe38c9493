package wal

import (
	"fmt"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// tableFacts is what is asked about one configured table.
type tableFacts struct {
	OID         int64         `json:"oid"`         // 0 when there is no such table
	Kind        string        `json:"kind"`        // pg_class.relkind
	Persistence string        `json:"persistence"` // pg_class.relpersistence
	Identity    bool          `json:"identity"`    // updates and deletes can be published
	Root        string        `json:"root"`        // of a partition: the table at the top
	Columns     []columnFacts `json:"columns"`
	Elsewhere   []string      `json:"elsewhere"`  // schemas that have a table of this name
	Membership  int64         `json:"membership"` // oid of the row that puts it into the publication; 0 when all tables are in it
	Published   bool          `json:"published"`
	Sent        []string      `json:"attnames"`  // columns that the publication sends; 15 and later
	Filter      string        `json:"rowfilter"` // 15 and later
	BreakingPub string        `json:"breaking"`  // a publication that makes updates and deletes fail, when there is no identity
}

type columnFacts struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	Base      string `json:"base"`      // as ColumnShape.TypeName
	Generated string `json:"generated"` // s stored, v virtual
	OID       uint32 `json:"oid"`       // of the type; asked by Tables only, and so the next
	Modifier  int32  `json:"modifier"`
}

// baseTypeSQL gives ColumnShape.TypeName of a column a of pg_attribute.
const baseTypeSQL = `(WITH RECURSIVE b AS (
		SELECT t.typname, t.typnamespace, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
		UNION ALL SELECT t.typname, t.typnamespace, t.typtype, t.typbasetype FROM pg_type t JOIN b ON b.typtype = 'd' AND t.oid = b.typbasetype)
	SELECT CASE n.nspname WHEN 'pg_catalog' THEN '' ELSE n.nspname || '.' END || b.typname
	FROM b JOIN pg_namespace n ON n.oid = b.typnamespace WHERE b.typtype <> 'd')`

// tablesSQL looks at the configured tables, one row for each in their order.
func tablesSQL(config Config, version int) string {
	wanted := make([]string, len(config.Tables))
	for i, t := range config.Tables {
		wanted[i] = fmt.Sprintf("(%d, %s, %s)", i, quoteText(t.Schema), quoteText(t.Name))
	}
	schemaMember := "NULL::oid"
	if version >= 15 { // FOR TABLES IN SCHEMA
		schemaMember = "(SELECT m.oid FROM pg_publication_namespace m WHERE m.pnpubid = p.oid AND m.pnnspid = c.relnamespace)"
	}
	return fmt.Sprintf(`SELECT row_to_json(t)::text FROM (
	SELECT coalesce(c.oid, 0)::bigint AS oid, c.relkind AS kind, c.relpersistence AS persistence, i.identity,
		CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::regclass::text ELSE '' END AS root,
		(SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, NULL), 'base', %s, 'generated', a.attgenerated))
			FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
		(SELECT json_agg(quote_ident(n.nspname)) FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace
			WHERE o.relname = w.name AND o.relkind IN ('r', 'p') AND n.nspname <> w.schema) AS elsewhere,
		coalesce((SELECT m.oid FROM pg_publication_rel m WHERE m.prpubid = p.oid AND m.prrelid = c.oid), %s, 0)::bigint AS membership,
		v.entry IS NOT NULL AS published, v.entry -> 'attnames' AS attnames, v.entry ->> 'rowfilter' AS rowfilter,
		CASE WHEN i.identity THEN '' ELSE (SELECT min(quote_ident(x.pubname)) FROM pg_publication_tables x JOIN pg_publication y USING (pubname)
			WHERE x.schemaname = w.schema AND x.tablename = w.name AND (y.pubupdate OR y.pubdelete)) END AS breaking
	FROM (VALUES %s) w (place, schema, name)
	LEFT JOIN pg_class c ON c.relname = w.name AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = w.schema)
	LEFT JOIN pg_publication p ON p.pubname = %s
	LEFT JOIN LATERAL (SELECT to_jsonb(x) AS entry FROM pg_publication_tables x
		WHERE x.pubname = p.pubname AND x.schemaname = w.schema AND x.tablename = w.name) v ON true
	CROSS JOIN LATERAL (SELECT coalesce(c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
		AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)), false) AS identity) i
	ORDER BY w.place) t`, baseTypeSQL, schemaMember, strings.Join(wanted, ", "), quoteText(config.Publication))
}

func (t tableFacts) column(name string) (columnFacts, bool) {
	for _, c := range t.Columns {
		if c.Name == name {
			return c, true
		}
	}
	return columnFacts{}, false
}

func judgeTable(t Table, facts tableFacts) []fault.Finding {
	f := findings{subject: "table " + t.display()}
	if facts.OID == 0 {
		f.failure(CodeTableMissing, missingTable(t, facts), "run outboxcdc init to make it, or name another with --table")
		return f.all
	}
	f.kind(t, facts)
	for _, column := range t.Columns {
		f.column(t, column, facts)
	}
	return f.orOK(CodeTable, "it is there with the columns that are read")
}

func missingTable(t Table, facts tableFacts) string {
	if len(facts.Elsewhere) == 0 {
		return "there is no such table in the database"
	}
	return fmt.Sprintf("there is no such table in schema %s, but one in %s",
		displayName(t.Schema), strings.Join(facts.Elsewhere, " and "))
}

// kind finds tables whose inserts never reach a publication.
func (f *findings) kind(t Table, facts tableFacts) {
	kinds := map[string]string{
		"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence",
		"i": "an index", "I": "an index", "c": "a composite type", "t": "a TOAST table",
	}
	const choose = "name a plain or partitioned table with --table"
	switch {
	case kinds[facts.Kind] != "":
		f.failure(CodeTableKind, fmt.Sprintf("it is %s, whose inserts are not in the log", kinds[facts.Kind]), choose)
	case facts.Persistence == "u":
		f.failure(CodeTableKind, "it is unlogged, so its inserts are not in the log", fmt.Sprintf("run ALTER TABLE %s SET LOGGED", t.quoted()))
	case facts.Persistence == "t":
		f.failure(CodeTableKind, "it is temporary, so its inserts are not in the log", choose)
	}
}

func (f *findings) column(t Table, wanted Column, facts tableFacts) {
	name := displayName(wanted.Name)
	column, ok := facts.column(wanted.Name)
	switch {
	case !ok && wanted.Required:
		f.failure(CodeColumnMissing, fmt.Sprintf("it has no column %s", name),
			fmt.Sprintf("add it: ALTER TABLE %s ADD COLUMN %s …", t.quoted(), quoteName(wanted.Name)))
	case !ok: // optional: it reads as null
	case column.Generated != "" && wanted.Required:
		f.failure(CodeColumnGenerated, fmt.Sprintf("column %s is generated, and the server does not send generated columns", name),
			"make it an ordinary column that the application or a trigger fills")
	case column.Generated != "":
		f.warning(CodeColumnGenerated, fmt.Sprintf("column %s is generated, so it reads as null", name),
			"make it an ordinary column that the application or a trigger fills")
	case !wanted.fits(column.Base):
		f.failure(CodeColumnType, fmt.Sprintf("column %s is of type %s, which cannot serve here", name, column.Type), typeAdvice(wanted))
	}
}

// typeAdvice says which types a column may have.
func typeAdvice(wanted Column) string {
	if len(wanted.OnlyTypes) > 0 {
		return "name a column of type " + strings.Join(wanted.OnlyTypes, ", ")
	}
	return "name a column of another type than " + strings.Join(wanted.NotTypes, ", ") + ": their text is not the same for equal values"
}
