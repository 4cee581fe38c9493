package wal

import (
	"context"
	"fmt"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// CodeTableUnreadable is the finding of Unreadable.
const CodeTableUnreadable = "table.unreadable"

// Unreadable gives a warning for each configured table that the role may not read. A
// stream does not need to: what it sends comes from the log, whatever the role may. What
// looks at the tables themselves does.
func (c *Conn) Unreadable(ctx context.Context) ([]fault.Finding, error) {
	var all []fault.Finding
	for _, t := range c.config.Tables {
		may, _, err := fetchOne[bool](ctx, c.pg, fmt.Sprintf(`SELECT to_json(coalesce(bool_and(
			has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')), true))::text
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s`,
			quoteText(t.Schema), quoteText(t.Name)))
		if err != nil {
			return nil, fmt.Errorf("look at the rights on table %s: %w", t.display(), err)
		}
		if may {
			continue
		}
		f := findings{subject: "table " + t.display()}
		role := quoteName(c.user)
		f.warning(CodeTableUnreadable, "the role may not read it, which streaming need not, but status, verify, prune, recover and replays from the table do",
			fmt.Sprintf("have its owner run `outboxcdc init --role %s`, or: GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %s",
				c.user, quoteName(t.Schema), role, t.quoted(), role))
		all = append(all, f.all...)
	}
	return all, nil
}
