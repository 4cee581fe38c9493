package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// What is tried here is tried as the streaming role, first without what it needs and then
// with it: the refusal names what an owner types, and that is enough.

// entitled runs a command without a right that init gave, which it wants to be refused
// with the GRANT, and then gives the right back.
func (r *roles) entitled(t *testing.T, lacks, grant string, args ...string) {
	t.Helper()
	privilege, table, _ := strings.Cut(lacks, " on ")
	var has bool
	r.ask(t, "select has_table_privilege($1, $2, $3)", &has, r.streamer, table, privilege)
	if !has {
		t.Errorf("init did not grant %s", lacks)
	}
	r.exec(t, "revoke "+lacks+" from "+r.streamer)
	wantRefusal(t, command(t, nil, slices.Concat(args, r.flags)...), fault.ExitOperator, grant)
	r.exec(t, "grant "+lacks+" to "+r.streamer)
}

// asStreamer lets all commands that follow log in as the streaming role.
func (r *roles) asStreamer() { r.flags = []string{"--slot", r.slot, "--database-url", r.streams} }

// event writes one event; one that is bad cannot be mapped, because of its headers.
func (r *roles) event(t *testing.T, id string, bad bool) {
	t.Helper()
	headers := "{}"
	if bad {
		headers = "[]"
	}
	r.exec(t, "insert into outbox (aggregate_type, aggregate_id, event_type, payload, headers) values ('order', $1, 'raised', '1', $2::text::jsonb)", id, headers)
}

// arrives waits until the topic holds so many events of an aggregate.
func (r *roles) arrives(t *testing.T, id string, events int) {
	t.Helper()
	eventually(t, time.Minute, "the events of "+id+" arrive", func() bool { return len(r.values(t)[id]) == events })
}

func TestTheStreamingRoleMaySettleParkedRows(t *testing.T) {
	t.Parallel()
	r := newRoles(t)
	r.asStreamer()
	parks := []string{"--on-error", "park", "--dead-letter-topic", r.kafka.Topic(t, 1)}
	s := r.stream(t, parks...)
	for _, id := range []string{"sent", "dropped"} {
		r.event(t, id, true)
		r.event(t, id, false)
	}
	r.event(t, "sound", false)
	r.arrives(t, "sound", 1)
	const grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON outboxcdc.parked TO"
	r.entitled(t, "select on outboxcdc.parked", grant, "dlq", "show")
	r.entitled(t, "update on outboxcdc.parked", grant, "dlq", "retry", "--all", "--wait", "0s")
	r.entitled(t, "update on outboxcdc.parked", grant, "dlq", "drop", "--all", "--yes", "--wait", "0s")
	dlq := func(say string, args ...string) {
		t.Helper()
		if out := mustRun(t, slices.Concat([]string{"dlq"}, args, r.flags)...); !strings.Contains(out, say) {
			t.Errorf("dlq %s does not say %q:\n%s", args[0], say, out)
		}
	}
	dlq("4 rows of 2 aggregates are parked", "list")
	dlq("not a JSON object", "show", "--aggregate-id", "sent")
	dlq("and it is done; 2 rows of 1 aggregates", "drop", "--yes", "--aggregate-id", "dropped", "--wait", "1m")
	if status := s.stop(t); status != 0 {
		t.Fatalf("the stream ended with %d:\n%s", status, s.log)
	}
	s = r.stream(t, append(parks, "--column", mended)...)
	dlq("and it is done; 0 rows of 0 aggregates", "retry", "--aggregate-id", "sent", "--wait", "1m")
	r.arrives(t, "sent", 2)
	if status := s.stop(t); status != 0 {
		t.Errorf("the stream ended with %d:\n%s", status, s.log)
	}
	if got := r.values(t)["dropped"]; len(got) != 0 {
		t.Errorf("of what was dropped the topic holds %q", got)
	}

	r.exec(t, "revoke insert on outboxcdc.parked from "+r.streamer)
	s = r.stream(t, parks...)
	r.event(t, "late", true)
	if status := s.await(t); status != fault.ExitOperator || !s.says(grant)() {
		t.Errorf("a stream that may not park ended with %d, want that it names the GRANT:\n%s", status, s.log)
	}
}

func TestTheStreamingRoleMaySkipAndDrop(t *testing.T) {
	t.Parallel()
	r := newRoles(t)
	owner := slices.Clone(r.flags)
	r.asStreamer()
	r.event(t, "a", false)
	r.event(t, "a", true)
	r.event(t, "a", false)
	s := r.stream(t)
	if status := s.await(t); status != fault.ExitData {
		t.Fatalf("a stream that halts ended with %d:\n%s", status, s.log)
	}
	skip := []string{"skip", "--yes", "--lsn", poisonIn(t, s.log.String())}
	r.entitled(t, "insert on outboxcdc.history", "GRANT SELECT, INSERT, UPDATE, DELETE ON outboxcdc.history TO", skip...)
	mustRun(t, slices.Concat(skip, r.flags)...)
	s = r.stream(t)
	r.arrives(t, "a", 2)
	if status := s.stop(t); status != 0 {
		t.Fatalf("behind what was skipped the stream ended with %d:\n%s", status, s.log)
	}

	drop := []string{"drop", "--yes", r.slot}
	for _, table := range []string{"checkpoint", "history", "outbox_table", "unsure"} {
		r.entitled(t, "delete on outboxcdc."+table, "GRANT DELETE ON outboxcdc."+table+" TO ", drop...)
	}
	if got := r.slotText(t, "slot_name"); got != r.slot {
		t.Fatalf("a drop that was refused left the slot %q", got)
	}
	got := command(t, nil, slices.Concat(drop, r.flags)...)
	for _, say := range []string{"removed slot " + r.slot, "removed saved position", "removed the note", "publication outboxcdc stays: its owner"} {
		if got.exit != 0 || !strings.Contains(got.out, say) {
			t.Errorf("drop ended with %d and does not say %q:\n%s%s", got.exit, say, got.out, got.errors)
		}
	}
	wantRefusal(t, command(t, nil, slices.Concat(drop, r.flags)...), fault.ExitOperator, "its owner")
	if out := mustRun(t, slices.Concat(drop, owner)...); !strings.Contains(out, "removed publication") {
		t.Errorf("after that the owner's drop says:\n%s", out)
	}
}

func TestTheStreamingRoleMayLetRowsGoWhereThatIsGranted(t *testing.T) {
	t.Parallel()
	r := newRoles(t)
	r.exec(t, `alter table outbox add column "row Status" text`)
	r.asStreamer()
	// A stream that finds rows that were sent sweeps them at once; those that it sends
	// itself, a minute later.
	sent := func(id string) {
		t.Helper()
		r.event(t, id, false)
		s := r.stream(t)
		eventually(t, time.Minute, "the row is known to be sent", func() bool {
			return slices.Equal(firstColumn(t, r.sql, "select status from outboxcdc.outbox_status where aggregate_id = $1", id), []string{"SENT"})
		})
		if status := s.stop(t); status != 0 {
			t.Fatalf("the stream ended with %d:\n%s", status, s.log)
		}
	}
	sent("a")
	refused := func(grant string, flags ...string) {
		t.Helper()
		s := r.stream(t, flags...)
		if status := s.await(t); status != fault.ExitOperator || !strings.Contains(s.log.String(), grant) {
			t.Errorf("stream %q ended with %d and does not say %s:\n%s", flags, status, grant, s.log)
		}
	}
	goes := func(query string, flags ...string) {
		t.Helper()
		s := r.stream(t, flags...)
		eventually(t, time.Minute, "the row is swept", func() bool { return slices.Equal(firstColumn(t, r.sql, query), []string{"1"}) })
		if status := s.stop(t); status != 0 {
			t.Errorf("stream %q ended with %d:\n%s", flags, status, s.log)
		}
	}
	refused(`GRANT SELECT, UPDATE ("row Status") ON "public"."outbox" TO`, "--mark-sent", "row Status")
	r.exec(t, `grant update ("row Status") on outbox to `+r.streamer)
	goes(`select count(*)::text from outbox where "row Status" = 'SENT'`, "--mark-sent", "row Status")
	r.mayNot(t, r.streams, "update outbox set payload = '{}'", "delete from outbox")

	prune := slices.Concat([]string{"prune", "--older-than", "1ms"}, r.flags)
	wantRefusal(t, command(t, nil, prune...), fault.ExitOperator, `GRANT SELECT, DELETE ON "public"."outbox" TO`)
	refused(`GRANT SELECT, DELETE ON "public"."outbox" TO`, "--delete-sent")
	r.exec(t, "grant delete on outbox to "+r.streamer)
	if out := mustRun(t, prune...); !strings.Contains(out, "deleted   1 rows of public.outbox") {
		t.Errorf("prune says:\n%s", out)
	}
	sent("b")
	goes("select (1 - count(*))::text from outbox where aggregate_id = 'b'", "--delete-sent")
}

// A partition that is made tomorrow has no grants of its own: those on the table are
// enough, for what reads rows and for what lets them go.
func TestTheStreamingRoleNeedsNoRightsOnPartitions(t *testing.T) {
	t.Parallel()
	r := newRoles(t, `create table outbox (seq bigint generated always as identity, aggregate_type text, aggregate_id text, event_type text, payload jsonb, headers jsonb,
		status text, id uuid default gen_random_uuid(), created_at timestamptz not null default now(), xid xid8 default pg_current_xact_id()) partition by range (created_at)`,
		"create table outbox_old partition of outbox for values from ('2020-01-01') to ('2020-02-01')",
		"create table outbox_half partition of outbox for values from ('2020-02-01') to ('2020-03-01')",
		"create table outbox_empty partition of outbox for values from ('2020-03-01') to ('2020-04-01')",
		"create table outbox_rest partition of outbox default")
	r.asStreamer()
	for id, created := range map[string]string{"1": "2020-01-15", "2": "2020-02-15", "3": "2030-01-15"} {
		r.exec(t, "insert into outbox (aggregate_type, aggregate_id, event_type, payload, created_at) values ('order', $1, 'raised', '1', $2::text::timestamptz)", id, created)
	}
	stop := func(s *streamer) {
		t.Helper()
		if status := s.stop(t); status != 0 {
			t.Fatalf("the stream ended with %d:\n%s", status, s.log)
		}
	}
	s := r.stream(t)
	eventually(t, time.Minute, "all rows are known to be sent", func() bool {
		return slices.Equal(firstColumn(t, r.sql, "select distinct status from outboxcdc.outbox_status"), []string{"SENT"})
	})
	stop(s)
	if out := mustRun(t, slices.Concat([]string{"status"}, r.flags)...); !strings.Contains(out, "public.outbox: 0 wait") {
		t.Errorf("status says:\n%s", out)
	}
	sink := []string{"--sink", "kafka://" + strings.Join(r.kafka.Bootstrap(), ","), "--topic", r.topic}
	mustRun(t, slices.Concat([]string{"verify"}, sink, r.flags)...)

	r.exec(t, "grant update (status) on outbox to "+r.streamer)
	s = r.stream(t, "--mark-sent", "status")
	eventually(t, time.Minute, "all rows are marked", func() bool {
		if s.over() {
			t.Fatal("the stream ended by itself")
		}
		return slices.Equal(firstColumn(t, r.sql, "select aggregate_id from outbox where status = 'SENT' order by 1"), []string{"1", "2", "3"})
	})
	stop(s)
	r.exec(t, "grant delete on outbox to "+r.streamer)
	if out := mustRun(t, slices.Concat([]string{"prune", "--older-than", "72h"}, r.flags)...); !strings.Contains(out, "deleted   2 rows of public.outbox") {
		t.Errorf("prune says:\n%s", out)
	}
	if left := firstColumn(t, r.sql, "select aggregate_id from outbox"); !slices.Equal(left, []string{"3"}) {
		t.Errorf("after prune the table holds %q, want what is younger", left)
	}
}

// Whoever lost REPLICATION is told so, whatever they run.
func TestAStreamingRoleWithoutReplicationIsToldSo(t *testing.T) {
	t.Parallel()
	r := newRoles(t)
	r.asStreamer()
	r.exec(t, "alter role "+pgx.Identifier{r.streamer}.Sanitize()+" noreplication")
	for _, args := range [][]string{
		{"skip", "--yes", "--lsn", "0/1"},
		{"drop", "--yes", r.slot},
		{"dlq", "list"},
		{"dlq", "show"},
		{"dlq", "retry", "--all"},
		{"dlq", "drop", "--all", "--yes"},
		{"prune", "--older-than", "1s"},
		{"peek"},
	} {
		wantRefusal(t, command(t, nil, slices.Concat(args, r.flags)...), fault.ExitOperator, "ALTER ROLE "+pgx.Identifier{r.streamer}.Sanitize()+" REPLICATION")
	}
}
