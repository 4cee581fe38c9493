package servers_test

import (
	"context"
	"testing"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

func TestPostgresIsReadyForLogicalDecoding(t *testing.T) {
	p := servers.Postgres(t)
	for name, want := range map[string]string{"wal_level": "logical", "fsync": "on", "full_page_writes": "on"} {
		if got := setting(t, p, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	d := p.Database(t)
	conn := d.Conn(t)
	var lsn string
	err := conn.QueryRow(context.Background(), "select lsn::text from pg_create_logical_replication_slot('s', 'pgoutput')").Scan(&lsn)
	if err != nil {
		t.Fatalf("make a slot: %v", err)
	}
}
