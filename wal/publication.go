package wal

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// lockWait is how long making a publication waits for the lock on its tables. The
// lock conflicts with schema changes and vacuum only; while we wait for it nothing
// queues behind us but more of these.
const lockWait = "10s"

// PublicationSQL is the statement that makes the publication, for a database
// administrator who would rather run it than let CreatePublication.
//
// It publishes inserts alone: with updates and deletes in it, those of the
// application would fail on a table without a replica identity. Rows of a
// partitioned table carry the name of the table and not of the partition.
func PublicationSQL(config Config) string {
	tables := ""
	if len(config.Tables) > 0 {
		tables = "FOR TABLE " + quotedTables(config.Tables) + " "
	}
	return fmt.Sprintf("CREATE PUBLICATION %s %sWITH (publish = 'insert', publish_via_partition_root = true);",
		quoteName(config.Publication), tables)
}

// SetupSQL makes publication and slot, in this order, each unless it is there.
func SetupSQL(config Config) string {
	return fmt.Sprintf(`DO $outboxcdc$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = %s) THEN
    %s
  END IF;
END $outboxcdc$;
%s WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = %s);
`, quoteText(config.Publication), PublicationSQL(config), strings.TrimSuffix(SlotSQL(config), ";"), quoteText(config.Slot))
}

// CreatePublication makes the publication unless there is one of that name, which
// it leaves as it is: Preflight judges it. It needs the ownership of the tables and
// CREATE on the database.
func (c *Conn) CreatePublication(ctx context.Context) (created bool, err error) {
	there, err := c.HasPublication(ctx)
	if err != nil || there {
		return false, err
	}
	err = execute(ctx, c.pg, fmt.Sprintf("SET LOCAL lock_timeout = '%s'; %s", lockWait, PublicationSQL(c.config)))
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == "42710" { // duplicate_object: somebody was faster
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create publication %s: %w", displayName(c.config.Publication), err)
	}
	return true, nil
}

// startOptions are the options of START_REPLICATION for pgoutput. Version 1 of the
// protocol sends a transaction only after its commit. The names of publications are
// a list of identifiers inside of a string literal.
func (c *Conn) startOptions() []string {
	options := []string{
		"proto_version '1'",
		"publication_names " + quoteText(quoteName(c.config.Publication)),
	}
	if c.config.MessagePrefix != "" {
		options = append(options, "messages 'true'") // of all prefixes; the publication does not filter them
	}
	return options
}
