package test

import (
	"cmp"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// sent is a record of a replay or of a stream, as far as a consumer tells them apart.
type sent struct {
	position, replay, key, value string
}

// sentTo gives the records of a topic with one partition in their order.
func (l *line) sentTo(tb testing.TB, topic string) []sent {
	tb.Helper()
	var all []sent
	for _, r := range l.kafka.Records(tb, topic) {
		all = append(all, sentAs(r))
	}
	return all
}

func sentAs(r *kgo.Record) sent {
	s := sent{key: string(r.Key), value: string(r.Value)}
	for _, h := range r.Headers {
		switch h.Key {
		case "outboxcdc-position":
			s.position = string(h.Value)
		case "outboxcdc-replay":
			s.replay = string(h.Value)
		}
	}
	return s
}

// inLog puts what a stream sent to several partitions into the order of the log, each
// event once, and drops what lies outside of [from, to).
func inLog(tb testing.TB, all []sent, from, to wal.LSN) []sent {
	tb.Helper()
	var within []sent
	for _, s := range all {
		if at := commitOf(tb, s.position); from <= at && at < to {
			within = append(within, s)
		}
	}
	slices.SortFunc(within, func(a, b sent) int { return cmp.Compare(padPosition(tb, a.position), padPosition(tb, b.position)) })
	return slices.Compact(within)
}

func commitOf(tb testing.TB, position string) wal.LSN {
	tb.Helper()
	hex, _, _ := strings.Cut(position, "/")
	at, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		tb.Fatalf("position %q: %v", position, err)
	}
	return wal.LSN(at)
}

// bookmarked is the position of the only bookmark. The stream's own slot may have moved
// since that was made.
func (l *line) bookmarked(tb testing.TB, name string) string {
	tb.Helper()
	var listed []struct{ Name, Slot, LSN string }
	out := mustRun(tb, append([]string{"bookmark", "list", "--json"}, l.flags...)...)
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed) != 1 || listed[0].Name != name {
		tb.Fatalf("the bookmarks are %v, %v, want %s alone", listed, err, name)
	}
	return listed[0].LSN
}

// replay runs a replay to its end and gives what it printed.
func (l *line) replay(tb testing.TB, topic string, args ...string) string {
	tb.Helper()
	return mustRun(tb, l.replayArgs(topic, args...)...)
}

func (l *line) replayArgs(topic string, args ...string) []string {
	return slices.Concat([]string{"replay", "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","), "--topic", topic}, l.flags, args)
}

// printed is what a plan says of itself behind a word.
func printed(tb testing.TB, out, word string) string {
	tb.Helper()
	m := regexp.MustCompile(`(?m)^` + word + ` +(.*)$`).FindStringSubmatch(out)
	if m == nil {
		tb.Fatalf("there is no line %q in:\n%s", word, out)
	}
	return m[1]
}

func lsn(tb testing.TB, text string) wal.LSN {
	tb.Helper()
	at, err := wal.ParseLSN(text)
	if err != nil {
		tb.Fatal(err)
	}
	return at
}

// atRate writes events at a rate a second until stop is called.
func (l *line) atRate(tb testing.TB, perSecond int) (stop func()) {
	tb.Helper()
	const writers, each = 2, 5
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	ended := make(chan error, writers)
	for writer := range writers {
		conn := l.db.Server.Conn(tb, l.db.Name)
		random := l.w.random(uint64(writer))
		go func() {
			clock := time.NewTicker(time.Second * writers * each / time.Duration(perSecond))
			defer clock.Stop()
			for {
				select {
				case <-ctx.Done():
					ended <- nil
					return
				case <-clock.C:
				}
				err := pgx.BeginFunc(context.Background(), conn, func(tx pgx.Tx) error {
					n, err := l.w.insert(context.Background(), tx, l.w.pick(random, each), 1)
					l.w.written.Add(n)
					return err
				})
				if err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	return func() {
		tb.Helper()
		cancel()
		for range writers {
			if err := <-ended; err != nil {
				tb.Fatalf("the workload: %v", err)
			}
		}
	}
}

// history waits until the history of the slot has at least n entries.
func (l *line) history(tb testing.TB, n int) {
	tb.Helper()
	eventually(tb, 2*time.Minute, "the history has "+strconv.Itoa(n)+" entries", func() bool {
		var entries int
		l.ask(tb, "select count(*) from outboxcdc.history where slot = $1 and delivered is not null", &entries, l.slot)
		return entries >= n
	})
}

// TestAReplayFromABookmarkIsExactlyTheSuffixInCommitOrder replays beside a stream that
// carries 1,000 events a second: from the bookmark, from a position behind it, and up
// to a position.
func TestAReplayFromABookmarkIsExactlyTheSuffixInCommitOrder(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	s := l.stream(t)
	stop := l.atRate(t, 1000)
	eventually(t, time.Minute, "a second of traffic", func() bool { return l.w.written.Load() > 1000 })
	mustRun(t, append([]string{"bookmark", "create", "before"}, l.flags...)...)
	var listed []struct{ Name, Slot, LSN string }
	if err := json.Unmarshal([]byte(mustRun(t, append([]string{"bookmark", "list", "--json"}, l.flags...)...)), &listed); err != nil || len(listed) != 1 || listed[0].Name != "before" {
		t.Fatalf("the bookmarks are %v, %v", listed, err)
	}
	marked, since := lsn(t, listed[0].LSN), l.w.written.Load()
	eventually(t, time.Minute, "three more seconds of traffic", func() bool { return l.w.written.Load() > since+3000 })
	middle := lsn(t, l.end(t))
	w := l.witness(t)
	eventually(t, time.Minute, "another second of traffic", func() bool { return l.w.written.Load() > since+4000 && !l.behind(t, middle.String()) })
	w.replays(t)

	type replayed struct {
		topic    string
		run      string
		from, to wal.LSN
	}
	var runs []replayed
	for _, args := range [][]string{
		{"--from-bookmark", "before"},
		{"--from-lsn", middle.String()},
		{"--from-lsn", marked.String(), "--to-lsn", middle.String()},
	} {
		topic := l.kafka.Topic(t, 1)
		out := l.replay(t, topic, args...)
		if !strings.Contains(printed(t, out, "source"), "bookmark before") {
			t.Errorf("the source is %q, want the bookmark", printed(t, out, "source"))
		}
		runs = append(runs, replayed{topic, printed(t, out, "run"), lsn(t, printed(t, out, "from")), lsn(t, printed(t, out, "to"))})
	}
	w.undisturbed(t)
	stop()
	d := l.delivered(t)
	if d.duplicates > 0 {
		t.Errorf("the stream sent %d events twice beside the replays, want none", d.duplicates)
	}
	s.wantStop(t)
	if n := strings.Count(s.log.String(), "another follows"); n > 0 {
		t.Errorf("the stream began %d sessions anew beside the replays, want none:\n%s", n, s.log)
	}
	live := l.sentTo(t, l.topic)
	if runs[0].from != marked || runs[2].to != middle {
		t.Errorf("plans begin at %v and end at %v, want %v and %v", runs[0].from, runs[2].to, marked, middle)
	}
	for i, r := range runs {
		want, got := inLog(t, live, r.from, r.to), l.sentTo(t, r.topic)
		for j := range want {
			want[j].replay = r.run
		}
		if len(want) < 500 {
			t.Errorf("replay %d: only %d events lie in its range: it proves little", i, len(want))
		}
		if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(sent{})); diff != "" {
			t.Errorf("replay %d of %d events gave %d; (-want +got):\n%.2000s", i, len(want), len(got), diff)
		}
	}
	mustRun(t, append([]string{"bookmark", "drop", "before"}, l.flags...)...)
	var slots int
	l.ask(t, "select count(*) from pg_replication_slots where database = current_database()", &slots)
	if slots != 1 {
		t.Errorf("%d slots are left, want the stream's alone", slots)
	}
}

// TestAReplayFromTheTableIsASupersetThatMissesNothing replays where no slot was held
// back, beside a stream that carries 1,000 events a second.
func TestAReplayFromTheTableIsASupersetThatMissesNothing(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	s := l.stream(t, "--history-interval", "1s", "--history-keep", "1h")
	stop := l.atRate(t, 1000)
	eventually(t, time.Minute, "a second of traffic", func() bool { return l.w.written.Load() > 1000 })
	l.history(t, 1)
	since := l.w.written.Load()
	eventually(t, time.Minute, "another second of traffic", func() bool { return l.w.written.Load() > since+1000 })
	from := lsn(t, l.end(t))
	w := l.witness(t)
	eventually(t, time.Minute, "two more seconds of traffic", func() bool { return l.w.written.Load() > since+3000 && !l.behind(t, from.String()) })
	eventually(t, time.Minute, "more than what is asked for is known to be delivered", func() (known bool) {
		l.ask(t, "select coalesce(delivered_lsn > $2::pg_lsn, false) from outboxcdc.checkpoint where slot = $1", &known, l.slot, from.String())
		return known
	})
	topic := l.kafka.Topic(t, streamPartitions)
	w.replays(t)
	out := l.replay(t, topic, "--from-lsn", from.String())
	if !strings.Contains(printed(t, out, "source"), "outbox table") {
		t.Errorf("the source is %q, want the table", printed(t, out, "source"))
	}
	to := lsn(t, printed(t, out, "to"))
	one := l.kafka.Topic(t, 1)
	only := l.replay(t, one, "--from-lsn", from.String(), "--aggregate", "order", "--id", "a-7")
	w.undisturbed(t)
	stop()
	if d := l.delivered(t); d.duplicates > 0 {
		t.Errorf("the stream sent %d events twice beside the replay, want none", d.duplicates)
	}
	s.wantStop(t)
	live := l.sentTo(t, l.topic)
	got := map[string]bool{}
	last := map[string]int64{}
	for _, r := range l.kafka.Records(t, topic) {
		a := sentAs(r)
		if a.position != "" || a.replay != printed(t, out, "run") {
			t.Fatalf("an event from the table has the position %q and the run %q, want none and %q", a.position, a.replay, printed(t, out, "run"))
		}
		if n := numberOf(t, r); got[a.key+a.value] || n <= last[a.key] {
			t.Fatalf("event %d of %s came after event %d", n, a.key, last[a.key])
		} else {
			last[a.key] = n
		}
		got[a.key+a.value] = true
	}
	want := inLog(t, live, from, to)
	for _, w := range want {
		if !got[w.key+w.value] {
			t.Fatalf("event %s %s at %s lies between %v and %v and was not replayed", w.key, w.value, w.position, from, to)
		}
	}
	if len(want) < 500 || len(got) == int(l.w.written.Load()) {
		t.Errorf("%d events were asked for and %d of %d sent: it proves little", len(want), len(got), l.w.written.Load())
	}
	var own int
	for _, r := range l.sentTo(t, one) {
		if r.key != "a-7" || r.replay != printed(t, only, "run") {
			t.Fatalf("an event of %s by run %q was sent where a-7 was asked for", r.key, r.replay)
		}
		own++
	}
	t.Logf("%d of %d events lie in the range, %d were sent, %d of one aggregate", len(want), l.w.written.Load(), len(got), own)
}

func TestAReplayThatReachesBackTooFarNamesTheOldestPositionPossible(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	r := l.run(t)
	l.insert(t, "a", "1")
	l.settle(t)
	early := l.slotText(t, "confirmed_flush_lsn")
	l.insert(t, "a", "2")
	l.settle(t)
	eventually(t, time.Minute, "the slot is confirmed past what settled it, too", func() bool {
		return l.arrived(t, "settled") == 2 && !l.behind(t, (l.lastSent(t)+1).String())
	})
	mustRun(t, append([]string{"bookmark", "create", "late"}, l.flags...)...)
	late := l.bookmarked(t, "late")
	l.insert(t, "a", "3")
	l.settle(t)
	r.drain(t)
	l.exec(t, "delete from outboxcdc.history where slot = $1", l.slot)
	l.exec(t, "update outboxcdc.checkpoint set delivered = null, delivered_lsn = null, delivered_at = null where slot = $1", l.slot)
	got := command(t, nil, l.replayArgs(l.topic, "--from-lsn", early)...)
	wantRefusal(t, got, fault.ExitOperator, "oldest position possible is "+late, "--from-lsn "+late)
	got = command(t, nil, l.replayArgs(l.topic, "--from-time", "1h")...)
	wantRefusal(t, got, fault.ExitOperator, "oldest position possible is "+late)
	got = command(t, nil, l.replayArgs(l.topic, "--from-lsn", "0/1", "--to-lsn", "FFFF/0")...)
	wantRefusal(t, got, fault.ExitUsage, "the log ends at")
	out := mustRun(t, l.replayArgs(l.topic, "--from-lsn", late, "--dry-run")...)
	if !strings.Contains(out, "would send 2 events") { // the third, and the one that settled it
		t.Errorf("the dry run says:\n%s", out)
	}
	if n := len(l.values(t)["a"]); n != 3 {
		t.Errorf("the topic holds %d events after a dry run, want 3", n)
	}
}

// TestAReplayGoesOnWhereItWasInterrupted interrupts replays of either source by a
// signal and by kill -9.
func TestAReplayGoesOnWhereItWasInterrupted(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	s := l.stream(t, "--history-interval", "1s", "--history-keep", "1h")
	l.insert(t, "first", `{"n": 1}`)
	l.settle(t)
	l.history(t, 1)
	mustRun(t, append([]string{"bookmark", "create", "start"}, l.flags...)...)
	marked := l.bookmarked(t, "start")
	const events, each = 3000, 50
	for n := range events / each {
		l.exec(t, `insert into outbox (aggregate_type, aggregate_id, event_type, payload)
			select 'order', 'k' || i % 7, 'e', jsonb_build_object('n', i) from generate_series($1::int, $2::int) i`, n*each+1, (n+1)*each)
	}
	l.settle(t)
	t.Run("from a slot", func(t *testing.T) { l.interruptedReplays(t, marked, events) })
	mustRun(t, append([]string{"bookmark", "drop", "start"}, l.flags...)...)
	t.Run("from the table", func(t *testing.T) { l.interruptedReplays(t, marked, events) })
	s.wantStop(t)
}

func (l *line) interruptedReplays(t *testing.T, from string, events int) {
	t.Helper()
	for name, end := range map[string]func(s *streamer){
		"kill": func(s *streamer) { s.kill(t) },
		"stop": func(s *streamer) {
			if status := s.stop(t); status != fault.ExitTransient || !strings.Contains(s.log.String(), "it goes on with --run") {
				t.Errorf("exit status %d after SIGTERM, want %d and a sentence how to go on:\n%s", status, fault.ExitTransient, s.log)
			}
		},
	} {
		topic := l.kafka.Topic(t, 1)
		// At this rate all of it takes ten seconds, and it is interrupted after two.
		s := start(t, l.replayArgs(topic, "--from-lsn", from, "--rate", "300")...)
		var run string
		eventually(t, time.Minute, "a part of it is recorded", func() bool {
			var sent int
			l.ask(t, "select coalesce(max(sent), 0) from outboxcdc.replay where slot = $1 and finished_at is null", &sent, l.slot)
			return sent > 500
		})
		end(s)
		run = printed(t, s.log.String(), "run")
		before := len(l.sentTo(t, topic))
		l.replay(t, topic, "--run", run)
		all := l.sentTo(t, topic)
		values := map[string]bool{}
		for _, a := range all {
			values[a.value] = true
			if a.replay != run {
				t.Fatalf("an event has the run %q, want %q", a.replay, run)
			}
		}
		for i := range events {
			if !values[numbered(i+1)] {
				t.Fatalf("%s: event %d was not replayed", name, i+1)
			}
		}
		if before >= events || len(all) > 2*events {
			t.Errorf("%s: %d of %d events were there when it went on, and %d in the end", name, before, events, len(all))
		}
		t.Logf("%s: %d events when it was interrupted, %d in the end", name, before, len(all))
		got := command(t, nil, l.replayArgs(topic, "--run", run)...)
		wantRefusal(t, got, fault.ExitUsage, "has come to its end")
	}
}
