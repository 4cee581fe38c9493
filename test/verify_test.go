package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/pipeline/verify"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// verify runs `outboxcdc verify` on a topic and gives its report and exit status.
func (l *line) verify(tb testing.TB, topic string, more ...string) (report verify.Report, exit int) {
	tb.Helper()
	args := append([]string{"verify", "--json", "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","), "--topic", topic}, l.flags...)
	path := binaryPath(tb) // the first to ask builds it, which may take longer than a run
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append(args, more...)...)
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	cmd.Run() //nolint:errcheck // the exit status is what counts
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		tb.Fatalf("outboxcdc verify printed no report (%v), exit %d:\n%s%s", err, cmd.ProcessState.ExitCode(), out.String(), errors.String())
	}
	return report, cmd.ProcessState.ExitCode()
}

// counts leaves out of a report what differs from run to run.
func counts(report verify.Report) verify.Report {
	report.Snapshot, report.Confirmed, report.Notes, report.Examples = "", "", nil, nil
	return report
}

// wantReport compares the counts and the exit status.
func wantReport(tb testing.TB, got, want verify.Report, exit, wantExit int) {
	tb.Helper()
	if diff := cmp.Diff(want, counts(got), cmpopts.IgnoreUnexported(verify.Example{})); diff != "" {
		tb.Errorf("the report (-want +got):\n%s\nexamples %+v, notes %q", diff, got.Examples, got.Notes)
	}
	if exit != wantExit {
		tb.Errorf("exit %d, want %d", exit, wantExit)
	}
}

// deliveredLine is a line with events on its topic and no stream that runs.
func deliveredLine(t *testing.T, events int64) (l *line, records []*kgo.Record) {
	t.Helper()
	l = newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	s := l.stream(t)
	if err := l.w.write(walContext(t), events, 4); err != nil {
		t.Fatal(err)
	}
	l.delivered(t)
	s.wantStop(t)
	return l, l.kafka.Records(t, l.topic)
}

// forge makes a topic that holds records as they are.
func (l *line) forge(tb testing.TB, records []*kgo.Record) string {
	tb.Helper()
	topic := l.kafka.Topic(tb, streamPartitions)
	client := l.kafka.Client(tb, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	copies := make([]*kgo.Record, len(records))
	for i, r := range records {
		copies[i] = &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
	}
	if err := client.ProduceSync(walContext(tb), copies...).FirstErr(); err != nil {
		tb.Fatalf("forge a topic: %v", err)
	}
	return topic
}

// ofOneAggregate gives two places of records of the same aggregate, the first one
// before the other, with nothing of that aggregate in between.
func ofOneAggregate(tb testing.TB, records []*kgo.Record) (i, j int) {
	tb.Helper()
	last := map[string]int{}
	for j, r := range records {
		if i, ok := last[string(r.Key)]; ok {
			return i, j
		}
		last[string(r.Key)] = j
	}
	tb.Fatal("no aggregate has two events")
	return 0, 0
}

// at gives a record the position of another place.
func at(r *kgo.Record, position string) *kgo.Record {
	moved := *r
	moved.Headers = slices.Clone(r.Headers)
	for i := range moved.Headers {
		if moved.Headers[i].Key == "outboxcdc-position" {
			moved.Headers[i].Value = []byte(position)
		}
	}
	return &moved
}

func TestVerifyFindsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	l, records := deliveredLine(t, 3000)
	n := int64(len(records))
	report, exit := l.verify(t, l.topic)
	wantReport(t, report, verify.Report{Rows: n, Records: n, Present: n}, exit, 0)

	// A stream that is idle leaves its last stride of log unconfirmed, so that a row
	// which is really missing would seem to be on its way for ever: verify moves it on.
	l.stream(t)
	i, j := ofOneAggregate(t, records)
	altered := *records[i]
	altered.Value = []byte(`{"n": 0}`)
	for name, c := range map[string]struct {
		forged []*kgo.Record
		want   verify.Report
		exit   int
	}{
		"a record is missing": {slices.Delete(slices.Clone(records), i, i+1), verify.Report{Present: n - 1, Missing: 1}, 3},
		"a record is there twice": {
			append(slices.Clone(records), records[i], records[j]),
			verify.Report{Present: n, Redelivered: 2},
			0,
		},
		"an event is there at another position": {
			append(slices.Clone(records), at(records[i], "FFFFFFFFFFFFFFF0/0")),
			verify.Report{Present: n, Duplicates: 1},
			0,
		},
		"two records are swapped": {swapped(records, i, j), verify.Report{Present: n, Disordered: 1}, 3},
		"a payload is altered": {
			slices.Replace(slices.Clone(records), i, i+1, &altered),
			verify.Report{Present: n - 1, Altered: 1},
			3,
		},
		"somebody else writes to the topic": {
			append(slices.Clone(records), &kgo.Record{Key: []byte("a-1"), Value: []byte("hello")}),
			verify.Report{Present: n, Foreign: 1},
			0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report, exit := l.verify(t, l.forge(t, c.forged), "--wait", "2m")
			c.want.Rows, c.want.Records = n, int64(len(c.forged))
			wantReport(t, report, c.want, exit, c.exit)
			if c.want.Missing > 0 && (len(report.Examples) != 1 || report.Examples[0].Row == "" || report.Examples[0].Seq == 0) {
				t.Errorf("the missing row is not named: %+v", report.Examples)
			}
		})
	}
}

func swapped(records []*kgo.Record, i, j int) []*kgo.Record {
	forged := slices.Clone(records)
	forged[i], forged[j] = forged[j], forged[i]
	return forged
}

func TestVerifyDoesNotCallARowMissingThatMayStillCome(t *testing.T) {
	t.Parallel()
	l, records := deliveredLine(t, 200)
	n := int64(len(records))
	if err := l.w.write(walContext(t), 20, 1); err != nil {
		t.Fatal(err)
	}
	more := l.w.written.Load() - n
	report, exit := l.verify(t, l.topic, "--wait", "1s")
	wantReport(t, report, verify.Report{Rows: n + more, Records: n, Present: n, Unsettled: more}, exit, fault.ExitTransient)

	s := l.stream(t)
	report, exit = l.verify(t, l.topic)
	wantReport(t, report, verify.Report{Rows: n + more, Records: n + more, Present: n + more}, exit, 0)
	s.stop(t)

	// Nothing brings them where there is no slot.
	if err := l.w.write(walContext(t), 1, 1); err != nil {
		t.Fatal(err)
	}
	lost := l.w.written.Load() - n - more
	l.free(t)
	l.exec(t, "select pg_drop_replication_slot($1)", l.slot)
	report, exit = l.verify(t, l.topic)
	wantReport(t, report, verify.Report{Rows: n + more + lost, Records: n + more, Present: n + more, Missing: lost}, exit, fault.ExitOperator)
}

func TestVerifyKnowsWhatItCannotKnow(t *testing.T) {
	t.Parallel()
	l, records := deliveredLine(t, 1000)
	n := int64(len(records))
	t.Run("rows were deleted", func(t *testing.T) {
		tag, err := l.sql.Exec(walContext(t), "delete from outbox where seq <= (select min(seq) + 99 from outbox)")
		if err != nil {
			t.Fatal(err)
		}
		report, exit := l.verify(t, l.topic)
		gone := tag.RowsAffected()
		wantReport(t, report, verify.Report{Rows: n - gone, Records: n, Present: n - gone, Rowless: gone}, exit, 0)
		n -= gone
	})
	t.Run("retention removed records", func(t *testing.T) {
		removed := l.cut(t, 5)
		report, exit := l.verify(t, l.topic)
		if exit != 0 || report.Expired == 0 || report.Missing != 0 || report.Disordered != 0 || len(report.Notes) == 0 {
			t.Errorf("exit %d, %+v after retention removed %d records, want them expired", exit, report, removed)
		}
		if report.Present+report.Expired != n {
			t.Errorf("%d rows are there and %d expired, want %d in all", report.Present, report.Expired, n)
		}
	})
}

// cut lets retention remove the first records of each partition.
func (l *line) cut(tb testing.TB, each int64) (removed int64) {
	tb.Helper()
	admin := kadm.NewClient(l.kafka.Client(tb))
	offsets := kadm.Offsets{}
	for p := range int32(streamPartitions) {
		offsets.Add(kadm.Offset{Topic: l.topic, Partition: p, At: each, LeaderEpoch: -1})
		removed += each
	}
	answers, err := admin.DeleteRecords(walContext(tb), offsets)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		tb.Fatalf("remove records: %v", err)
	}
	return removed
}

func TestVerifyComparesARange(t *testing.T) {
	t.Parallel()
	l, records := deliveredLine(t, 1000)
	n := int64(len(records))
	var low, high int64
	if err := l.sql.QueryRow(walContext(t), "select min(seq) + 10, min(seq) + 59 from outbox").Scan(&low, &high); err != nil {
		t.Fatal(err)
	}
	var within int64
	if err := l.sql.QueryRow(walContext(t), "select count(*) from outbox where seq between $1 and $2", low, high).Scan(&within); err != nil {
		t.Fatal(err)
	}
	report, exit := l.verify(t, l.topic, "--from-seq", fmt.Sprint(low), "--to-seq", fmt.Sprint(high))
	wantReport(t, report, verify.Report{Rows: within, Records: n, Present: within, Rowless: n - within}, exit, 0)

	var since time.Time
	if err := l.sql.QueryRow(walContext(t), "select clock_timestamp()").Scan(&since); err != nil {
		t.Fatal(err)
	}
	s := l.stream(t)
	if err := l.w.write(walContext(t), 50, 1); err != nil {
		t.Fatal(err)
	}
	l.delivered(t)
	s.stop(t)
	later := l.w.written.Load() - n
	report, exit = l.verify(t, l.topic, "--since", since.Format(time.RFC3339Nano))
	wantReport(t, report, verify.Report{Rows: later, Records: later, Present: later}, exit, 0)
}

func TestVerifyTellsParkedRowsFromMissingOnes(t *testing.T) {
	t.Parallel()
	p := newParkLine(t)
	s := p.stream(t)
	p.events(t, true)
	p.settled(t)
	s.wantStop(t)
	verified := *p.line
	verified.flags = p.base
	rows, waiting := int64(parkAggregates*3+1), int64(parkAggregates*2) // with the filler
	report, exit := verified.verify(t, p.topic)
	wantReport(t, report, verify.Report{Rows: rows, Records: rows - waiting, Present: rows - waiting, Parked: waiting}, exit, fault.ExitTransient)
	role := loginAs(t, p.db, "GRANT SELECT ON outbox TO $role")
	if got := command(t, nil, "verify", "--slot", p.slot, "--database-url", role, "--topic", p.topic, "--wait", "0s",
		"--sink", "kafka://"+strings.Join(p.kafka.Bootstrap(), ",")); got.exit != fault.ExitOperator || !strings.Contains(got.out, "may not read outboxcdc.parked") {
		t.Errorf("exit %d for a role that may not know what is parked, want %d and a note:\n%s%s", got.exit, fault.ExitOperator, got.out, got.errors)
	}

	p.dlq(t, "drop", "--aggregate-id", "p-0", "--yes", "--wait", "0s")
	p.flags = append(p.flags, "--column", mended)
	verified.flags = append(verified.flags, "--column", mended)
	s = p.stream(t)
	eventually(t, time.Minute, "the rows are dropped", func() bool { return p.parked(t) == int(waiting)-2 })
	p.dlq(t, "retry", "--all")
	s.wantStop(t)
	report, exit = verified.verify(t, p.topic)
	wantReport(t, report, verify.Report{Rows: rows, Records: rows - 2, Present: rows - 2, Dropped: 2}, exit, 0)
}

func TestVerifyNeedsNoMoreThanItSays(t *testing.T) {
	t.Parallel()
	l, records := deliveredLine(t, 100)
	n := int64(len(records))
	role := loginAs(t, l.db, "GRANT SELECT ON outbox TO $role")
	nobody := loginAs(t, l.db)
	run := func(url string) answer {
		t.Helper()
		return command(t, nil, "verify", "--slot", l.slot, "--database-url", url, "--topic", l.topic,
			"--sink", "kafka://"+strings.Join(l.kafka.Bootstrap(), ","))
	}
	if got := run(role); got.exit != 0 || !strings.Contains(got.out, fmt.Sprintf("%12d rows whose event is there", n)) {
		t.Errorf("exit %d with SELECT alone, want 0:\n%s%s", got.exit, got.out, got.errors)
	}
	wantRefusal(t, run(nobody), fault.ExitOperator, "public.outbox", "GRANT SELECT")
}

func TestVerifySaysWhatItLacks(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	sink := "kafka://" + strings.Join(l.kafka.Bootstrap(), ",")
	for name, c := range map[string]struct {
		args []string
		sql  string
		exit int
		says []string
	}{
		"a sink that keeps nothing": {args: []string{"--sink", "stdout://"}, exit: fault.ExitUsage, says: []string{"read back", "kafka://"}},
		"a table that is not there": {args: []string{"--sink", sink, "--table", "public.nothing"}, exit: fault.ExitOperator, says: []string{"public.nothing"}},
		"a range that is none":      {args: []string{"--sink", sink, "--from-seq", "7", "--to-seq", "3"}, exit: fault.ExitUsage, says: []string{"--from-seq"}},
		"a time that is none":       {args: []string{"--sink", sink, "--since", "yesterday"}, exit: fault.ExitUsage, says: []string{"--since", "24h"}},
		"a table without ids": {
			args: []string{"--sink", sink, "--table", "public.plain"}, exit: fault.ExitOperator, says: []string{"public.plain", "column id"},
			sql: "create table plain (aggregate_type text, aggregate_id text, event_type text, payload text)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.sql != "" {
				if _, err := l.sql.Exec(context.Background(), c.sql); err != nil {
					t.Fatal(err)
				}
			}
			wantRefusal(t, command(t, nil, slices.Concat([]string{"verify"}, l.flags, c.args)...), c.exit, c.says...)
		})
	}
	// A topic that is not there is told, and what was to be on it is missing.
	if got := command(t, nil, slices.Concat([]string{"verify", "--sink", sink, "--topic", "nobody.made.this"}, l.flags)...); got.exit != 0 ||
		!strings.Contains(got.out, "topic nobody.made.this does not exist") {
		t.Errorf("exit %d:\n%s%s", got.exit, got.out, got.errors)
	}
}
