package wal

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// publicationFacts is what is asked about the publication as a whole.
type publicationFacts struct {
	OID    int64 `json:"oid"`
	Insert bool  `json:"pubinsert"`
	Root   bool  `json:"pubviaroot"`

	Altered uint32 `json:"altered"` // the transaction that last set an option or the owner
}

func publicationSQL(config Config) string {
	return fmt.Sprintf(`SELECT row_to_json(t)::text FROM (
		SELECT oid::bigint AS oid, pubinsert, pubviaroot, xmin::text::bigint AS altered FROM pg_publication WHERE pubname = %s) t`, quoteText(config.Publication))
}

// othersSQL counts the tables of the publication that are neither ours nor
// partitions of ours.
func othersSQL(config Config) string {
	ours := []string{"('', '')"} // a name that no table has, for a list of none
	for _, t := range config.Tables {
		ours = append(ours, fmt.Sprintf("(%s, %s)", quoteText(t.Schema), quoteText(t.Name)))
	}
	return fmt.Sprintf(`SELECT to_json(count(*))::text FROM pg_publication_tables x
		JOIN pg_namespace n ON n.nspname = x.schemaname
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = x.tablename
		WHERE x.pubname = %s AND (x.schemaname, x.tablename) NOT IN (%s)
		AND NOT (c.relispartition AND (SELECT (rn.nspname, r.relname) IN (%[2]s) FROM pg_class r
			JOIN pg_namespace rn ON rn.oid = r.relnamespace WHERE r.oid = pg_partition_root(c.oid)))`,
		quoteText(config.Publication), strings.Join(ours, ", "))
}

func missingPublication(config Config) fault.Finding {
	return fault.Finding{
		Code: CodePublicationMissing, Severity: fault.Failure, Subject: "publication " + displayName(config.Publication),
		Problem: "it does not exist in the database",
		Fix:     "run outboxcdc init, or as the owner of the tables: " + PublicationSQL(config),
	}
}

func judgePublication(config Config, p published) []fault.Finding {
	f := findings{subject: "publication " + displayName(config.Publication)}
	alter := "ALTER PUBLICATION " + quoteName(config.Publication)
	if !p.publication.Insert {
		f.failure(CodePublicationInsert, "it does not publish inserts", fmt.Sprintf("run %s SET (publish = 'insert')", alter))
	}
	for i, t := range config.Tables {
		f.membership(t, p.tables[i], p.publication, alter)
	}
	if n := p.others; n > 0 {
		f.warning(CodePublicationOthers, fmt.Sprintf("it also publishes %d other tables, whose changes are decoded and sent for nothing", n),
			"make a publication of the outbox tables alone: "+PublicationSQL(config))
	}
	if len(config.Tables) == 0 {
		return f.orOK(CodePublication, "it is there, and logical messages need no more of it")
	}
	return f.orOK(CodePublication, "it publishes the inserts of every table")
}

// membership judges what the publication says of one table that exists.
func (f *findings) membership(t Table, table tableFacts, publication publicationFacts, alter string) {
	switch {
	case table.OID == 0: // said of the table
	case table.Kind == "p" && !publication.Root:
		f.failure(CodePublicationRoot, fmt.Sprintf("rows of partitioned table %s carry the names of its partitions, by which nobody asked for them", t.display()),
			fmt.Sprintf("run %s SET (publish_via_partition_root = true)", alter))
	case !table.Published && table.Root != "" && publication.Root:
		f.failure(CodePublicationTable, fmt.Sprintf("rows of partition %s carry the name of %s", t.display(), table.Root),
			"name the partitioned table with --table")
	case !table.Published:
		f.failure(CodePublicationTable, fmt.Sprintf("table %s is not in it", t.display()),
			fmt.Sprintf("run %s ADD TABLE %s; rows inserted before that are not sent", alter, t.quoted()))
	default:
		f.contents(t, table, alter)
	}
	if table.OID != 0 && table.BreakingPub != "" {
		f.warning(CodePublicationIdentity, fmt.Sprintf(
			"updates and deletes on table %s fail, because publication %s publishes them and the table has no replica identity", t.display(), table.BreakingPub),
			fmt.Sprintf("run ALTER PUBLICATION %s SET (publish = 'insert'), or give the table a primary key", table.BreakingPub))
	}
}

// contents judges what of a published table is sent.
func (f *findings) contents(t Table, table tableFacts, alter string) {
	again := fmt.Sprintf("run %s DROP TABLE %s; %[1]s ADD TABLE %[2]s; with the stream stopped and nobody inserting", alter, t.quoted())
	if table.Filter != "" {
		f.failure(CodePublicationFilter, fmt.Sprintf("a row filter holds rows of table %s back", t.display()),
			again+"; to divide a log among slots, see docs/splitting.md")
	}
	if hidden := hiddenColumns(t, table); len(hidden) > 0 {
		f.failure(CodePublicationColumns, fmt.Sprintf("its column list for table %s leaves out %s", t.display(), strings.Join(hidden, ", ")), again)
	}
}

// hiddenColumns are ordinary columns that we read and the publication does not
// send. Majors before 15 send all and list none.
func hiddenColumns(t Table, table tableFacts) []string {
	var hidden []string
	for _, wanted := range t.Columns {
		column, ok := table.column(wanted.Name)
		if ok && column.Generated == "" && table.Sent != nil && !slices.Contains(table.Sent, wanted.Name) {
			hidden = append(hidden, displayName(wanted.Name))
		}
	}
	return hidden
}
