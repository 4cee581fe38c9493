package migrations

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Roles are those that are given what they need and no more: one that streams, and
// services that insert. Names are taken as they are, case included.
type Roles struct {
	Stream string   // empty for none
	Insert []string // of services
}

// Right is what the streaming role needs on a table of the schema outboxcdc.
type Right struct {
	Table      string
	Privileges string // separated by comma and space
	Always     bool   // without it nothing is streamed; else a command or a flag needs it
}

// StreamRights are what the streaming role needs in the schema outboxcdc, table by
// table. A migration that makes a table there has a line here.
//
// DELETE for `outboxcdc drop` gives the role no power that it lacks without: it may write
// any position, and drop the slot that the position is of.
func StreamRights() []Right {
	return []Right{
		{"checkpoint", "SELECT, INSERT, UPDATE", true},
		{"checkpoint", "DELETE", false}, // drop
		{"history", "SELECT, INSERT, UPDATE, DELETE", true},
		{"migration", "SELECT", false},
		{"outbox_table", "SELECT, INSERT, UPDATE", true},
		{"outbox_table", "DELETE", false},                   // drop
		{"parked", "SELECT, INSERT, UPDATE, DELETE", false}, // --on-error park
		{"replay", "SELECT, INSERT, UPDATE", false},
		{"unsure", "SELECT, INSERT", true},
		{"unsure", "DELETE", false}, // drop
	}
}

// grant is one statement and what is true when there is nothing for it to do.
type grant struct {
	what string // for people
	sql  string
	has  string // SQL of type boolean
}

// validate gives every problem at once.
func (r Roles) validate() error {
	var errs []error
	for _, name := range r.all() {
		errs = append(errs, checkName("role", name))
	}
	if err := errors.Join(errs...); err != nil {
		return fault.NewUsage(err, "name a role of the database")
	}
	return nil
}

func (r Roles) all() []string {
	if r.Stream == "" {
		return r.Insert
	}
	return append([]string{r.Stream}, r.Insert...)
}

// RenderRoles gives the SQL that MakeRoles would run on a database in which nobody has
// anything, for an administrator. It may run again, and has no password in it.
func RenderRoles(p Params, r Roles) (string, error) {
	grants, err := r.grants(p)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, g := range grants {
		fmt.Fprintf(&out, "%s;\n", g.sql)
	}
	return out.String(), nil
}

// MakeRoles makes roles that are missing, without a password, and grants what they lack,
// and says what it did. The tables must be there. What is granted beyond is left as it is.
func MakeRoles(ctx context.Context, conn *pgx.Conn, p Params, r Roles) (made []string, err error) {
	grants, err := r.grants(p)
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		var has bool
		if err := conn.QueryRow(ctx, "SELECT "+g.has, pgx.QueryExecModeExec).Scan(&has); err != nil {
			return made, wal.Fault(fmt.Errorf("look at %s: %w", g.what, err))
		}
		if has {
			continue
		}
		if _, err := conn.PgConn().Exec(ctx, g.sql).ReadAll(); err != nil {
			return made, rolesFault(g, err)
		}
		made = append(made, g.what)
	}
	return made, nil
}

func rolesFault(g grant, err error) error {
	err = fmt.Errorf("make %s: %w", g.what, err)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == insufficientPrivilege {
		return fault.NewOperator(err, "run `outboxcdc init` as the owner of the tables with CREATEROLE, and REPLICATION from version 16 on, "+
			"or give what `outboxcdc init --print-sql` prints to the administrator of the database")
	}
	return wal.Fault(err)
}

// grants are everything that the roles need, in order.
func (r Roles) grants(p Params) ([]grant, error) {
	if err := errors.Join(p.validate(), r.validate()); err != nil {
		return nil, err
	}
	var all []grant
	if r.Stream != "" {
		all = append(all, streamRole(r.Stream), onDatabase(r.Stream), onSchema(r.Stream, "outboxcdc"))
		for _, right := range StreamRights() {
			all = append(all, onTable(r.Stream, right.Privileges, Table{Schema: "outboxcdc", Name: right.Table}))
		}
		for _, t := range p.Tables {
			all = append(all, onSchema(r.Stream, t.Schema), onTable(r.Stream, "SELECT", t))
		}
	}
	for _, role := range r.Insert {
		all = append(all, loginRole(role), onDatabase(role), onSchema(role, "outboxcdc")) // the functions that publish are there
		for _, t := range p.Tables {
			all = append(all, onSchema(role, t.Schema), onTable(role, "INSERT", t), onSequences(role, t))
		}
	}
	return all, nil
}

// loginRole may log in once an administrator has given it a password, or pg_hba.conf
// another way.
func loginRole(role string) grant {
	return grant{
		what: "role " + role,
		sql:  block(fmt.Sprintf("    IF NOT (%s) THEN\n        CREATE ROLE %s LOGIN;\n    END IF;\n", roleExists(role, ""), quoteIdentifier(role))),
		has:  roleExists(role, ""),
	}
}

// streamRole may besides read the log. Amazon gives that by membership in a role of its
// own, because the attribute is for superusers there.
func streamRole(role string) grant {
	const amazon = "rds_replication"
	member := "EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname = '" + amazon + "')"
	may := roleExists(role, " AND (r.rolreplication OR r.rolsuper OR "+member+")")
	return grant{
		what: "role " + role + " with REPLICATION",
		sql: block(fmt.Sprintf(`    IF NOT (%s) THEN
        CREATE ROLE %[2]s LOGIN;
    END IF;
    IF NOT (%[3]s) THEN
        IF %[4]s THEN
            GRANT %[5]s TO %[2]s;
        ELSE
            ALTER ROLE %[2]s REPLICATION;
        END IF;
    END IF;
`, roleExists(role, ""), quoteIdentifier(role), may, roleExists(amazon, ""), amazon)),
		has: may,
	}
}

func roleExists(role, more string) string {
	return "EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = " + quoteLiteral(role) + more + ")"
}

func onDatabase(role string) grant {
	has := fmt.Sprintf("pg_catalog.has_database_privilege(%s, pg_catalog.current_database(), 'CONNECT')", quoteLiteral(role))
	return grant{
		what: "CONNECT on the database for " + role,
		sql: block(fmt.Sprintf("    IF NOT (%s) THEN\n        EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %%I TO %%I', pg_catalog.current_database(), %s);\n    END IF;\n",
			has, quoteLiteral(role))),
		has: has,
	}
}

func onSchema(role, schema string) grant {
	return grant{
		what: "USAGE on schema " + schema + " for " + role,
		sql:  fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", quoteIdentifier(schema), quoteIdentifier(role)),
		has:  fmt.Sprintf("pg_catalog.has_schema_privilege(%s, %s, 'USAGE')", quoteLiteral(role), quoteLiteral(schema)),
	}
}

func (t Table) quoted() string { return quoteIdentifier(t.Schema) + "." + quoteIdentifier(t.Name) }

func onTable(role, privileges string, t Table) grant {
	var has []string
	for privilege := range strings.SplitSeq(privileges, ", ") {
		has = append(has, fmt.Sprintf("pg_catalog.has_table_privilege(%s, %s, '%s')", quoteLiteral(role), quoteLiteral(t.quoted()), privilege))
	}
	return grant{
		what: privileges + " on " + t.Schema + "." + t.Name + " for " + role,
		sql:  fmt.Sprintf("GRANT %s ON %s TO %s", privileges, t.quoted(), quoteIdentifier(role)),
		has:  strings.Join(has, " AND "),
	}
}

// onSequences is for tables of somebody's own: a column of type serial draws from a
// sequence with the rights of who inserts, an identity column does not.
func onSequences(role string, t Table) grant {
	from := fmt.Sprintf(`pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid
            WHERE d.refobjid = %s::pg_catalog.regclass AND d.deptype = 'a' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND CASE WHEN s.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege(%s, s.oid, 'USAGE') ELSE false END`, quoteLiteral(t.quoted()), quoteLiteral(role))
	return grant{
		what: "USAGE on the sequences of " + t.Schema + "." + t.Name + " for " + role,
		sql: "-- Only a column of type serial has a sequence of which an INSERT needs to know.\n" + block(fmt.Sprintf(`    EXECUTE (SELECT coalesce(string_agg(pg_catalog.format('GRANT USAGE ON SEQUENCE %%s TO %%I', s.oid::pg_catalog.regclass, %s), '; '), 'SELECT')
            FROM %s);
`, quoteLiteral(role), from)),
		has: "NOT EXISTS (SELECT FROM " + from + ")",
	}
}

// block is an anonymous one. A name in it may hold its quote, and so another is taken.
func block(body string) string {
	quote := "$outboxcdc$"
	for strings.Contains(body, quote) {
		quote = "$" + strings.Trim(quote, "$") + "_$"
	}
	return "DO " + quote + "\nBEGIN\n" + body + "END " + quote
}
