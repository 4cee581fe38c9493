package test

import (
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// upgrade leaves a line as pg_upgrade does, before Postgres 17: the same tables with the
// same numbers of transactions, a log that begins further on, another cluster, no slot.
func (l *line) upgrade(tb testing.TB) {
	tb.Helper()
	l.lose(tb, losses["dropped"])
	l.exec(tb, "update outboxcdc.checkpoint set system = '7' where slot = $1", l.slot)
	l.exec(tb, "update outboxcdc.history set system = '7' where slot = $1", l.slot)
}

func TestARecoveryAfterAnUpgradeSendsWhatNobodyStreamed(t *testing.T) {
	t.Parallel()
	l, r := delivering(t)
	r.drain(t)
	wantRefusal(t, command(t, nil, append(l.recoverArgs(), "--upgraded")...), fault.ExitUsage, "leave out --upgraded")
	l.insert(t, "a", `{"n": 2}`)
	l.upgrade(t)
	l.insert(t, "a", `{"n": 3}`)
	wantRefusal(t, command(t, nil, l.recoverArgs()...), fault.ExitOperator, "was saved in cluster 7", "recover --slot "+l.slot+" --upgraded")
	mustRun(t, append(l.recoverArgs(), "--upgraded")...)
	l.wantAllUpTo(t, 4)
}

// A dump that is restored into another cluster begins log and transactions anew.
func TestARestoredDumpIsNotTakenForAnUpgrade(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, want string }{
		"its log begins anew":            {"update outboxcdc.checkpoint set lsn = 'FFFF/0' where slot = $1", "the log ends at"},
		"its transactions begin anew":    {"update outboxcdc.checkpoint set delivered = '99999999999:99999999999:' where slot = $1", "numbers of transactions are lower"},
		"what was delivered is not told": {"update outboxcdc.checkpoint set delivered = null, delivered_lsn = null, delivered_at = null where slot = $1", "--everything"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
			r := l.run(t)
			l.insert(t, "a", `{"n": 1}`)
			l.settle(t)
			r.drain(t)
			l.upgrade(t)
			l.exec(t, "delete from outboxcdc.history where slot = $1", l.slot)
			l.exec(t, c.sql, l.slot)
			wantRefusal(t, command(t, nil, append(l.recoverArgs(), "--upgraded")...), fault.ExitOperator, c.want)
		})
	}
}
