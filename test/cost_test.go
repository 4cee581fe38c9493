package test

import (
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// Counting what waits reads the whole table, unless the xid of its rows has an index.
func TestCountingWhatWaitsReadsNewRowsAloneWhereXidHasAnIndex(t *testing.T) {
	t.Parallel()
	// On a shared server the transactions of other tests hold back the snapshot by which
	// what waits is counted.
	l := newLine(t, servers.Postgres(t).Database(t), servers.SharedKafka(t))
	r := l.run(t)
	l.exec(t, `insert into outbox (aggregate_type, aggregate_id, event_type, payload)
		select 'order', 'k' || i % 100, 'e', jsonb_build_object('n', i) from generate_series(1, 20000) i`)
	l.awaitStatuses(t, "SENT 20000")
	r.drain(t)
	l.exec(t, "create index outbox_xid on outbox (xid)")
	l.exec(t, "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'k', 'e', '1'), ('order', 'k', 'e', '2')")
	l.exec(t, "analyze outbox")
	scans := func() (byIndex, rows int64) {
		l.ask(t, "select idx_scan from pg_stat_user_indexes where indexrelname = 'outbox_xid'", &byIndex)
		l.ask(t, "select idx_tup_fetch from pg_stat_user_tables where relname = 'outbox'", &rows)
		return byIndex, rows
	}
	_, before := scans()
	out := mustRun(t, append([]string{"status"}, l.flags...)...)
	if !strings.Contains(out, "public.outbox: 2 wait") {
		t.Errorf("status does not count the two rows that wait:\n%s", out)
	}
	// The server adds up what a session did when it ends, or soon after.
	eventually(t, time.Minute, "the index was used", func() bool { byIndex, _ := scans(); return byIndex > 0 })
	if _, rows := scans(); rows-before > 100 {
		t.Errorf("status read %d rows by an index, want the new ones alone", rows-before)
	}
}
