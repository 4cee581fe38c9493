package wal

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// ColumnFacts is what the catalog knows of a column and the log does not say.
type ColumnFacts struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`     // pg_type.typname, of a domain that of the type below it
	Modifier int32    `json:"modifier"` // atttypmod, of a domain its own; -1 without
	Domain   bool     `json:"domain"`   // Type is that below a domain
	Labels   []string `json:"labels"`   // of an enum, in order; nil for other types
	NotNull  bool     `json:"not_null"`
	Default  string   `json:"default"` // the DEFAULT's expression as pg_get_expr prints it; empty without
}

// Describe gives the columns of a table as they are now, in the table's own order. It
// gives none for a table that does not exist.
func (c *Conn) Describe(ctx context.Context, schema, table string) ([]ColumnFacts, error) {
	return describe(ctx, c.pg, schema, table)
}

// Describe gives the columns of a table as Conn.Describe does.
func (t *Tables) Describe(ctx context.Context, schema, table string) ([]ColumnFacts, error) {
	return describe(ctx, t.pg, schema, table)
}

func describe(ctx context.Context, pg *pgconn.PgConn, schema, table string) ([]ColumnFacts, error) {
	columns, err := fetch[ColumnFacts](ctx, pg, fmt.Sprintf(describeSQL, quoteText(schema), quoteText(table)))
	if err != nil {
		return nil, fmt.Errorf("describe table %s.%s: %w", displayName(schema), displayName(table), err)
	}
	return columns, nil
}

// describeSQL walks from a domain to the type below it. A generated column's
// expression is no DEFAULT.
const describeSQL = `SELECT row_to_json(f)::text FROM (
	SELECT a.attname AS name, t.typname AS type, t.mod AS modifier, a.atttypid <> t.oid AS domain,
		a.attnotnull OR t.domain_not_null AS not_null,
		(SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) AS labels,
		CASE WHEN a.attgenerated = '' THEN coalesce(pg_get_expr(d.adbin, d.adrelid), '') ELSE '' END AS "default"
	FROM pg_attribute a
	JOIN pg_class r ON r.oid = a.attrelid
	JOIN pg_namespace n ON n.oid = r.relnamespace
	LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	CROSS JOIN LATERAL (
		WITH RECURSIVE down AS (
			SELECT y.oid, y.typname, y.typtype, y.typbasetype, a.atttypmod AS mod, false AS domain_not_null
			FROM pg_type y WHERE y.oid = a.atttypid
			UNION ALL
			SELECT y.oid, y.typname, y.typtype, y.typbasetype,
				(SELECT x.typtypmod FROM pg_type x WHERE x.oid = down.oid),
				down.domain_not_null OR (SELECT x.typnotnull FROM pg_type x WHERE x.oid = down.oid)
			FROM down JOIN pg_type y ON y.oid = down.typbasetype WHERE down.typtype = 'd'
		)
		SELECT * FROM down WHERE typtype <> 'd'
	) t
	WHERE n.nspname = %s AND r.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
	ORDER BY a.attnum) f`
