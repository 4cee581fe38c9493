package test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// keysLeft are the keys of the rows that the table still has.
func (l *line) keysLeft(tb testing.TB) []string {
	tb.Helper()
	return firstColumn(tb, l.sql, "select aggregate_id from outbox order by seq")
}

func TestPruneDeletesOnlyWhatIsDeliveredAndOld(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	r := l.run(t)
	for _, key := range []string{"old", "older", "young"} {
		l.insert(t, key, "1")
	}
	l.awaitStatuses(t, "SENT 3")
	r.drain(t)
	l.insert(t, "unsent", "1")
	l.exec(t, "update outbox set created_at = now() - interval '80 hours' where aggregate_id <> 'young'")
	prune := append([]string{"prune", "--older-than", "72h"}, l.flags...)
	if out := mustRun(t, prune...); !strings.Contains(out, "2 rows of public.outbox") {
		t.Errorf("prune says %q, want 2 rows", out)
	}
	if diff := cmp.Diff([]string{"young", "unsent"}, l.keysLeft(t)); diff != "" {
		t.Errorf("the table holds (-want +got):\n%s", diff)
	}
	// Rows that nobody knows to be sent stay, however old they are.
	l.free(t)
	l.exec(t, "select pg_drop_replication_slot($1)", l.slot)
	r = l.run(t, accepting(t, l.saved(t)))
	l.insert(t, "later", "1")
	l.awaitStatuses(t, "SENT 2, UNKNOWN 1")
	r.drain(t)
	l.exec(t, "update outbox set created_at = now() - interval '80 hours'")
	mustRun(t, prune...)
	if diff := cmp.Diff([]string{"unsent"}, l.keysLeft(t)); diff != "" {
		t.Errorf("behind an accepted gap the table holds (-want +got):\n%s", diff)
	}
	for flag, say := range map[string]string{"--older-than=0s": "younger", "--older-than=-1h": "younger", "": "--older-than is missing"} {
		args := append([]string{"prune"}, l.flags...)
		if flag != "" {
			args = append(args, flag)
		}
		if out, status := outboxcdc(t, args...); status != fault.ExitUsage || !strings.Contains(out, say) {
			t.Errorf("prune %s ended with %d:\n%s", flag, status, out)
		}
	}
}

func TestPruneDropsPartitionsThatAreDone(t *testing.T) {
	t.Parallel()
	prunesPartitions(t, servers.SharedPostgres(t))
}

// The oldest version that we stream from reads intervals otherwise.
func TestPruneKnowsHowOldRowsAreOnPostgres14(t *testing.T) {
	t.Parallel()
	prunesPartitions(t, servers.Postgres(t, servers.Major(14)).Database(t))
}

func prunesPartitions(t *testing.T, db *servers.Database) {
	t.Helper()
	l := bareLine(t, db, servers.SharedKafka(t), walName("line"))
	l.exec(t, `create table outbox (seq bigint generated always as identity, aggregate_type text, aggregate_id text, event_type text, payload jsonb,
		id uuid default gen_random_uuid(), created_at timestamptz not null default now(), xid xid8 default pg_current_xact_id()) partition by range (created_at);
		create table outbox_old partition of outbox for values from ('2020-01-01') to ('2020-02-01');
		create table outbox_half partition of outbox for values from ('2020-02-01') to ('2020-03-01');
		create table outbox_rest partition of outbox default`)
	mustRun(t, append([]string{"init"}, l.flags...)...)
	r := l.run(t)
	at := func(key, created string) {
		t.Helper()
		l.exec(t, "insert into outbox (aggregate_type, aggregate_id, event_type, payload, created_at) values ('order', $1, 'e', '1', $2::text::timestamptz)", key, created)
	}
	at("1", "2020-01-15")
	at("2", "2020-02-15")
	at("3", "2019-01-01")
	l.awaitStatuses(t, "SENT 3")
	r.drain(t)
	at("4", "2020-02-16") // not sent
	out := mustRun(t, append([]string{"prune", "--older-than", "72h", "--drop-partitions"}, l.flags...)...)
	if !strings.Contains(out, "public.outbox_old") || !strings.Contains(out, "2 rows of public.outbox") {
		t.Errorf("prune says %q", out)
	}
	if diff := cmp.Diff([]string{"4"}, l.keysLeft(t)); diff != "" {
		t.Errorf("the table holds (-want +got):\n%s", diff)
	}
	if got := firstColumn(t, l.sql, "select relid::text from pg_partition_tree('outbox') where isleaf order by 1"); !slices.Equal(got, []string{"outbox_half", "outbox_rest"}) {
		t.Errorf("the partitions are %q, want the one that is done gone", got)
	}
}

func TestRowsThatWereSentAreMarkedOrDeletedWhereAskedFor(t *testing.T) {
	t.Parallel()
	often := func(c *pipeline.Config) { c.SweepInterval = 50 * time.Millisecond }
	t.Run("marked", func(t *testing.T) {
		l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
		l.exec(t, "alter table outbox add column status text")
		l.insert(t, "a", "1")
		r := l.run(t, often, func(c *pipeline.Config) { c.MarkSent = "status" })
		l.insert(t, "a", "2")
		eventually(t, time.Minute, "the rows are marked", func() bool {
			return slices.Equal(firstColumn(t, l.sql, "select coalesce(status, 'none') from outbox order by seq"), []string{"SENT", "SENT"})
		})
		r.drain(t)
		l.sentIsHeld(t)
		if diff := cmp.Diff([]string{"1", "2"}, l.values(t)["a"]); diff != "" {
			t.Errorf("the topic holds (-want +got):\n%s", diff)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
		r := l.run(t, often, func(c *pipeline.Config) { c.DeleteSent = true })
		for i := range 20 {
			l.insert(t, "a", fmt.Sprint(i))
		}
		eventually(t, time.Minute, "the rows are gone", func() bool { return len(l.keysLeft(t)) == 0 })
		r.drain(t)
		if diff := cmp.Diff(numbers(0, 19, 1), l.values(t)["a"]); diff != "" {
			t.Errorf("the topic holds (-want +got):\n%s", diff)
		}
	})
	// The log has a move from one partition to another as an insert.
	t.Run("refused where rows would move", func(t *testing.T) {
		l := bareLine(t, servers.SharedPostgres(t), servers.SharedKafka(t), walName("line"))
		l.exec(t, `create table outbox (seq bigint generated always as identity, aggregate_type text, aggregate_id text, event_type text, payload jsonb,
			status text, id uuid default gen_random_uuid(), created_at timestamptz not null default now(), xid xid8 default pg_current_xact_id()) partition by list (lower(status));
			create table outbox_sent partition of outbox for values in ('sent');
			create table outbox_rest partition of outbox default`)
		mustRun(t, append([]string{"init"}, l.flags...)...)
		r := l.begin(t, often, func(c *pipeline.Config) { c.MarkSent = "status" })
		l.insert(t, "a", "1")
		wantClass(t, r.end(t), fault.Operator, "partitioned by status", "sent again")
	})
	t.Run("refused without the right", func(t *testing.T) {
		l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
		r := l.begin(t, often, func(c *pipeline.Config) { c.MarkSent = "status" })
		l.insert(t, "a", "1")
		wantClass(t, r.end(t), fault.Operator, "status", "public.outbox")
	})
}

func TestStatusTellsWhereAStreamStands(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	r := l.run(t)
	l.insert(t, "a", "1")
	l.awaitStatuses(t, "SENT 1")
	type status struct {
		Exists  bool   `json:"exists"`
		Holder  string `json:"holder"`
		Saved   string `json:"saved"`
		End     string `json:"end"`
		Verdict struct {
			Kind, From, Advice string
			Begins             bool
		} `json:"verdict"`
		Tables []struct {
			Table   string `json:"table"`
			Pending *int64 `json:"pending_rows"`
		} `json:"tables"`
		LagSeconds float64 `json:"lag_seconds"`
		Open       *struct {
			PID int32 `json:"pid"`
		} `json:"open_transaction"`
	}
	look := func(want int) (s status) {
		t.Helper()
		out, code := outboxcdc(t, append([]string{"status", "--json"}, l.flags...)...)
		if code != want {
			t.Fatalf("status ended with %d, want %d:\n%s", code, want, out)
		}
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&s); err != nil {
			t.Fatalf("status prints no JSON: %v\n%s", err, out)
		}
		return s
	}
	s := look(0)
	if !s.Exists || !s.Verdict.Begins || s.Verdict.Kind != "resumable" || !strings.Contains(s.Holder, l.slot) || len(s.Tables) != 1 || *s.Tables[0].Pending != 0 {
		t.Errorf("while it streams the status is %+v", s)
	}
	r.drain(t)
	l.insert(t, "a", "2")
	l.insert(t, "a", "3")
	l.exec(t, "begin; insert into outbox (aggregate_type, aggregate_id, event_type) values ('order', 'a', 'open')")
	s = look(0)
	if s.Holder != "" || *s.Tables[0].Pending != 2 || s.LagSeconds <= 0 || s.Open == nil {
		t.Errorf("after a stop with two rows and an open transaction the status is %+v", s)
	}
	l.exec(t, "rollback")
	text := mustRun(t, append([]string{"status"}, l.flags...)...)
	for _, say := range []string{"resumable", "public.outbox: 2 wait", "nobody streams", "max_slot_wal_keep_size", s.Saved} {
		if !strings.Contains(text, say) {
			t.Errorf("status does not say %q:\n%s", say, text)
		}
	}
	l.free(t)
	l.exec(t, "select pg_drop_replication_slot($1)", l.slot)
	if s = look(fault.ExitOperator); s.Exists || s.Verdict.Kind != "gap" || s.Verdict.From != s.Saved || !strings.Contains(s.Verdict.Advice, "outboxcdc recover") {
		t.Errorf("without its slot the status is %+v", s)
	}
}
