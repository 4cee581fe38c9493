package test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// parkLine is a line whose stream parks, with aggregates of which some rows cannot be
// mapped: their headers are no object.
type parkLine struct {
	*line

	letters string // topic of dead letters
	base    []string
	last    map[string]int // number of the last event of each such aggregate
}

const (
	parkAggregates = 4

	// mended lets a stream map the bad rows: it has no column for headers.
	mended = "headers="
)

func newParkLine(t *testing.T) *parkLine {
	t.Helper()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	p := &parkLine{line: l, letters: l.kafka.Topic(t, 1), base: slices.Clone(l.flags), last: map[string]int{}}
	l.flags = append(l.flags, "--on-error", "park", "--dead-letter-topic", p.letters)
	return p
}

// event writes the next event of an aggregate; a bad one cannot be mapped.
func (p *parkLine) event(t *testing.T, id string, bad bool) {
	t.Helper()
	headers := `{}`
	if bad {
		headers = `[]`
	}
	p.last[id]++
	if _, err := p.sql.Exec(walContext(t), `insert into outbox (aggregate_type, aggregate_id, event_type, payload, headers)
		values ('order', $1, 'raised', jsonb_build_object('n', $2::int), $3::jsonb)`, id, p.last[id], headers); err != nil {
		t.Fatal(err)
	}
}

// large writes the next event of an aggregate, of 3000 bytes.
func (p *parkLine) large(t *testing.T, id string) {
	t.Helper()
	p.last[id]++
	p.exec(t, `insert into outbox (aggregate_type, aggregate_id, event_type, payload)
		values ('order', $1, 'raised', jsonb_build_object('n', $2::int, 'x', repeat('x', 3000)))`, id, p.last[id])
}

// events writes three rounds of events, of which the second is bad when poison says so.
func (p *parkLine) events(t *testing.T, poison bool) {
	t.Helper()
	for round := range 3 {
		for i := range parkAggregates {
			p.event(t, "p-"+strconv.Itoa(i), poison && round == 1)
		}
	}
}

// parked is how many rows are parked, as the database says.
func (p *parkLine) parked(t *testing.T) (rows int) {
	t.Helper()
	if err := p.sql.QueryRow(walContext(t), "select count(*) from outboxcdc.parked where slot = $1 and state = 'parked'", p.slot).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func (p *parkLine) dlq(t *testing.T, command string, more ...string) string {
	t.Helper()
	return mustRun(t, slices.Concat([]string{"dlq", command}, p.base, more)...)
}

// checkKeys wants of each aggregate the events from 1 to its last, first occurrences in
// order and with rising positions, and gives the topic's last number of each. Nothing
// else is in order when rows were parked.
func checkKeys(t *testing.T, records []*kgo.Record) map[string]int {
	t.Helper()
	seen, highest, positions := map[string]int{}, map[string]string{}, map[string]string{}
	for _, r := range records {
		id, n, position := string(r.Key), int(numberOf(t, r)), headerOf(t, r, "outboxcdc-position")
		event := fmt.Sprintf("%s#%d", id, n)
		if first, known := positions[event]; known {
			if first != position {
				t.Fatalf("event %s came with position %s and again with %s", event, first, position)
			}
			continue
		}
		if n != seen[id]+1 {
			t.Fatalf("event %s came after event %d of the aggregate", event, seen[id])
		}
		if padded := padPosition(t, position); padded <= highest[id] {
			t.Fatalf("event %s at %s came after %s", event, position, highest[id])
		} else {
			highest[id] = padded
		}
		positions[event], seen[id] = position, n
	}
	return seen
}

// wantAll wants every event of every aggregate on the topic.
func (p *parkLine) wantAll(t *testing.T) {
	t.Helper()
	seen := checkKeys(t, p.kafka.Records(t, p.topic))
	for id, n := range p.w.last(t) {
		if seen[id] != int(n) {
			t.Errorf("aggregate %s: the topic holds events up to %d, the table %d", id, seen[id], n)
		}
	}
	for id, n := range p.last {
		if seen[id] != n && id != filler {
			t.Errorf("aggregate %s: the topic holds events up to %d, the table %d", id, seen[id], n)
		}
	}
}

// filler is an aggregate that is written to let the slot pass what came before, and may
// be on its way still when the topic is looked at.
const filler = "filler"

// settled waits until the slot is confirmed behind what was written.
func (p *parkLine) settled(t *testing.T) {
	t.Helper()
	last := p.end(t)
	p.event(t, filler, false)
	eventually(t, 2*time.Minute, "the slot is confirmed up to the last event", func() bool { return !p.behind(t, last) })
}

// TestParkAndRetryKeepEachAggregatesOrderThroughADeathAtEachStep kills the stream behind
// each step of parking, dropping and sending again, while a service writes.
func TestParkAndRetryKeepEachAggregatesOrderThroughADeathAtEachStep(t *testing.T) {
	t.Parallel()
	p := newParkLine(t)
	p.events(t, false)
	stopWriting := p.write(t)
	for _, trap := range []string{"park-kept:1", "park-kept:2", "after-send:3", "after-ack:3", "park-kept:1"} {
		m := p.streamInto(t, trap)
		eventually(t, time.Minute, "it streams", m.says("msg=streaming"))
		// As many as it takes: rows that come in one batch pass the trap once.
		eventually(t, time.Minute, "it dies", func() bool {
			p.events(t, true)
			return m.over()
		})
		m.dies(t)
	}
	s := p.stream(t)
	p.events(t, false)
	for i := range parkAggregates {
		p.large(t, "p-"+strconv.Itoa(i))
	}
	p.events(t, false)
	p.settled(t)
	seen := checkKeys(t, p.kafka.Records(t, p.topic))
	for i := range parkAggregates {
		if id := "p-" + strconv.Itoa(i); seen[id] != 4 {
			t.Errorf("aggregate %s: the topic holds events up to %d, want 4, before the first bad one", id, seen[id])
		}
	}
	if rows, want := p.parked(t), parkAggregates*(p.last["p-0"]-4); rows != want {
		t.Errorf("%d rows are parked, want %d: from the first bad row of each aggregate on", rows, want)
	}
	p.wantLetters(t)
	s.kill(t)

	p.flags = append(p.flags, "--column", mended)
	p.refusedAgain(t)
	p.dlq(t, "retry", "--all", "--wait", "0s")
	for _, trap := range []string{"retry-acked:1", "retry-settled:1", "retry-acked:2", "retry-settled:3", "retry-acked:1"} {
		m := p.streamInto(t, trap)
		m.dies(t)
		p.events(t, false)
	}
	stopWriting()
	s = p.stream(t)
	eventually(t, time.Minute, "nothing is parked any more", func() bool { return p.parked(t) == 0 })
	p.events(t, false)
	p.settled(t)
	p.wantAll(t)
	s.wantStop(t)
}

// refusedAgain retries while the large rows cannot be sent still, and kills the stream
// behind each note of that: what comes before them is sent, and what follows waits.
func (p *parkLine) refusedAgain(t *testing.T) {
	t.Helper()
	alterTopic(t, p.kafka, p.topic, "max.message.bytes", "2000")
	p.dlq(t, "retry", "--all", "--wait", "0s")
	for _, trap := range []string{"retry-refused:1", "retry-refused:2"} {
		p.streamInto(t, trap).dies(t)
	}
	s := p.stream(t)
	large := p.last["p-0"] - 3
	refused := "select count(*) from outboxcdc.parked where slot = $1 and state = 'parked' and cause = 'refused'"
	eventually(t, time.Minute, "all large rows are refused again", func() bool {
		var rows int
		p.ask(t, refused, &rows, p.slot)
		return rows == parkAggregates
	})
	s.kill(t)
	seen := checkKeys(t, p.kafka.Records(t, p.topic))
	for i := range parkAggregates {
		if id := "p-" + strconv.Itoa(i); seen[id] != large-1 {
			t.Errorf("aggregate %s: the topic holds events up to %d, want %d, before the large one", id, seen[id], large-1)
		}
	}
	if rows, want := p.parked(t), parkAggregates*4; rows != want {
		t.Errorf("%d rows are parked, want %d: from the large row of each aggregate on", rows, want)
	}
	alterTopic(t, p.kafka, p.topic, "max.message.bytes", "1000000")
}

// wantLetters wants a dead letter for each parked row, in order, with its reason.
func (p *parkLine) wantLetters(t *testing.T) {
	t.Helper()
	next := map[string]int{}
	for _, r := range p.kafka.Records(t, p.letters) {
		id, n := string(r.Key), int(numberOf(t, r))
		if next[id] == 0 {
			next[id] = 5
		}
		if n > next[id] {
			t.Fatalf("the dead letter of event %d of %s came where %d is due", n, id, next[id])
		}
		next[id] = max(next[id], n+1)
		if cause, reason := headerOf(t, r, "outboxcdc-cause"), headerOf(t, r, "outboxcdc-reason"); cause == "" || n == 5 && !strings.Contains(reason, "not a JSON object") {
			t.Errorf("the dead letter of event %d of %s says %s: %s", n, id, cause, reason)
		}
	}
	for id, n := range p.last {
		if id == filler {
			continue
		}
		if next[id] != n+1 {
			t.Errorf("the dead letters of %s end before %d, want all up to %d", id, next[id], n)
		}
	}
}

// wantNoOvertaking starts a stream that does not park: it would send what is behind parked
// rows before them.
func (p *parkLine) wantNoOvertaking(t *testing.T) {
	t.Helper()
	refused := stream(t, slices.Concat([]string{"--sink", "stdout://", "--http", "off"}, p.base)...)
	status := refused.await(t)
	if status != fault.ExitOperator || !refused.says("would overtake them")() || !refused.says("dlq retry")() {
		t.Errorf("a stream that halts ended with %d, want that it refuses to overtake what is parked:\n%s", status, refused.log)
	}
}

// TestDroppedRowsArePassedAndTheRestFollowsThroughADeath drops the bad rows alone.
func TestDroppedRowsArePassedAndTheRestFollowsThroughADeath(t *testing.T) {
	t.Parallel()
	p := newParkLine(t)
	s := p.stream(t)
	p.events(t, true)
	p.settled(t)
	s.wantStop(t)
	if out := p.dlq(t, "list"); !strings.Contains(out, "8 rows of 4 aggregates are parked") || strings.Count(out, "not a JSON object") != 4 {
		t.Errorf("dlq list prints\n%s\nwant 8 rows, 4 with what is wrong", out)
	}
	p.wantParkedInView(t)
	p.wantNoOvertaking(t)
	out, status := outboxcdc(t, slices.Concat([]string{"recover", "--sink", "stdout://"}, p.base)...)
	if status != fault.ExitOperator || !strings.Contains(out, "would overtake them") {
		t.Errorf("a recovery ended with %d, want that it refuses to overtake what is parked:\n%s", status, out)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(p.dlq(t, "list", "--json")), "\n") {
		if strings.Contains(line, `"cause":"mapping"`) {
			_, rest, _ := strings.Cut(line, `"position":"`)
			position, _, _ := strings.Cut(rest, `"`)
			if shown := p.dlq(t, "show", "--position", position); !strings.Contains(shown, `{"n": 2}`) {
				t.Errorf("dlq show prints\n%s\nwant the payload", shown)
			}
			p.dlq(t, "drop", "--yes", "--wait", "0s", "--position", position)
		}
	}
	p.streamTo(t, failpoint.DropDone, 2).dies(t)
	s = p.stream(t)
	out = p.dlq(t, "retry", "--all", "--wait", "1m")
	if !strings.Contains(out, "and it is done; 0 rows of 0 aggregates are parked now") {
		t.Errorf("dlq retry prints %q", out)
	}
	p.event(t, "p-0", false)
	p.settled(t)
	var numbers []int64
	for _, r := range p.kafka.Records(t, p.topic) {
		if string(r.Key) == "p-0" {
			numbers = append(numbers, numberOf(t, r))
		}
	}
	if !slices.Equal(slices.Compact(numbers), []int64{1, 3, 4}) {
		t.Errorf("the events of p-0 are %v, want 1, 3 and 4", numbers)
	}
	s.wantStop(t)
}

// wantParkedInView wants of each aggregate one row that was sent and two that are parked:
// known by their ids, by their transactions alone where the stream reads no id, and not
// mistaken for others of their transactions. What it changes for that it takes back.
func (p *parkLine) wantParkedInView(t *testing.T) {
	t.Helper()
	const want = "PARKED 8, SENT 4"
	view := `select string_agg(status || ' ' || n, ', ' order by status) from (select status, count(*) n
		from outboxcdc.outbox_status where slot = $1 and aggregate_id like 'p-%' group by 1) s`
	each := `select string_agg(status || ' ' || n, ', ' order by status) from (select outboxcdc.row_status($1, 'public', 'outbox', xid) status, count(*) n
		from outbox where aggregate_id like 'p-%' group by 1) s`
	p.exec(t, "begin")
	defer p.exec(t, "rollback")
	for _, c := range []struct{ what, before, query, want string }{
		{"the view", "", view, want},
		{"row_status", "", each, want},
		{"the view without ids", "update outboxcdc.parked set column_names = array_replace(column_names, 'id', 'other')", view, want},
		{"the view, of ids that are not parked", "update outboxcdc.parked set column_names = array_replace(column_names, 'other', 'id'), columns[array_position(column_names, 'other')] = 'none'", view, "SENT 12"},
	} {
		if c.before != "" {
			p.exec(t, c.before+" where slot = '"+p.slot+"'")
		}
		var got string
		p.ask(t, c.query, &got, p.slot)
		if got != c.want {
			t.Errorf("%s says %s, want %s", c.what, got, c.want)
		}
	}
}

// TestWhatKafkaRefusesIsParkedAndComesBackWhenItIsMended has a topic that is missing, a
// message that is too large, and one that the broker refuses with the batch it is in,
// for its time.
func TestWhatKafkaRefusesIsParkedAndComesBackWhenItIsMended(t *testing.T) {
	t.Parallel()
	p := newParkLine(t)
	topic := func(name string) string { return p.topic + "." + name }
	p.kafka.CreateTopic(t, topic("good"), 1, nil)
	p.kafka.CreateTopic(t, topic("small"), 1, map[string]string{"max.message.bytes": "2000"})
	p.kafka.CreateTopic(t, topic("young"), 1, map[string]string{"message.timestamp.before.max.ms": "3600000"})
	write := func(id, event string, size int, old bool) {
		t.Helper()
		at := "now()"
		if old {
			at = "now() - interval '1 day'"
		}
		if _, err := p.sql.Exec(walContext(t), `insert into outbox (aggregate_type, aggregate_id, event_type, payload, created_at)
			values ('order', $1, $2, to_jsonb(repeat('x', $3)), `+at+`)`, id, event, size); err != nil {
			t.Fatal(err)
		}
	}
	sinkURL := "kafka://" + strings.Join(p.kafka.Bootstrap(), ",")
	s := stream(t, append([]string{
		"--sink", sinkURL, "--topic", p.topic + ".{event_type}", "--timestamp-column", "created_at", "--http", "off",
	}, p.flags...)...)
	eventually(t, time.Minute, "it streams", s.says("msg=streaming"))
	write("missing", "absent", 1, false)
	write("large", "small", 3000, false)
	for range 20 {
		write("young", "young", 10, false)
	}
	write("old", "young", 10, true)
	for range 20 {
		write("young", "young", 10, false)
	}
	for _, id := range []string{"missing", "large", "old", "sound"} {
		write(id, "good", 1, false)
	}
	p.passed(t, s)
	for _, r := range p.kafka.Records(t, topic("good")) {
		// What is found before it is sent keeps its aggregate back on all topics; what the
		// broker refuses afterwards, on its own.
		if id := string(r.Key); id != "sound" && id != "old" {
			t.Errorf("an event of aggregate %s came while it was parked", id)
		}
	}
	list := p.dlq(t, "list")
	for _, text := range []string{"does not exist", "is larger than the 2000", "the broker refuses the time of an event", "6 rows of 3 aggregates are parked"} {
		if !strings.Contains(list, text) {
			t.Errorf("dlq list does not say %q:\n%s", text, list)
		}
	}
	t.Logf("dlq list:\n%s", list)
	out, status := outboxcdc(t, slices.Concat([]string{"dlq", "retry"}, p.base, []string{"--aggregate-id", "large"})...)
	if status != fault.ExitData || !strings.Contains(out, "cannot be sent still") {
		t.Errorf("a retry of what is too large still ended with %d: %s", status, out)
	}
	p.kafka.CreateTopic(t, topic("absent"), 1, nil)
	alterTopic(t, p.kafka, topic("small"), "max.message.bytes", "1000000")
	alterTopic(t, p.kafka, topic("young"), "message.timestamp.before.max.ms", "864000000")
	out = p.dlq(t, "retry", "--all")
	t.Logf("dlq retry:\n%s", out)
	if !strings.Contains(out, "0 rows of 0 aggregates are parked now") {
		t.Errorf("dlq retry prints %s\n%s", out, p.dlq(t, "list"))
	}
	for name, want := range map[string]int{"absent": 1, "small": 1, "young": 42, "good": 4} {
		seen := map[string]bool{}
		for _, r := range p.kafka.Records(t, topic(name)) {
			seen[headerOf(t, r, "id")] = true
		}
		if len(seen) != want {
			t.Errorf("topic %s holds %d events, want %d", name, len(seen), want)
		}
	}
	s.wantStop(t)
}

// passed waits until the slot has passed what was written, without another event.
func (p *parkLine) passed(t *testing.T, s *streamer) {
	t.Helper()
	var last string
	if err := p.sql.QueryRow(walContext(t), "select pg_current_wal_insert_lsn()::text from outbox order by seq desc limit 1").Scan(&last); err != nil {
		t.Fatal(err)
	}
	if _, err := p.sql.Exec(walContext(t), `insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', 'last', 'young', '{}')`); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the slot is confirmed up to the last event", func() bool { return s.over() || !p.behind(t, last) })
	if s.over() {
		t.Fatalf("the stream ended:\n%s", s.log)
	}
}

func alterTopic(t *testing.T, kafka *servers.KafkaServer, topic, name, value string) {
	t.Helper()
	answers, err := kadm.NewClient(kafka.Client(t)).AlterTopicConfigs(walContext(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
	if err == nil {
		_, err = answers.On(topic, nil)
	}
	if err != nil {
		t.Fatalf("set %s of %s: %v", name, topic, err)
	}
}

// TestWhatNoQueueTakesIsParkedAndComesBackInOrder has a message that RabbitMQ returns.
func TestWhatNoQueueTakesIsParkedAndComesBackInOrder(t *testing.T) {
	t.Parallel()
	l := newRabbitLine(t, servers.SharedRabbit(t))
	dead := l.name + "-dead"
	l.rabbit.Queue(t, dead, nil)
	l.rabbit.Bind(t, dead, l.name, "outbox.dead-letter")
	l.rabbit.Bind(t, l.name, l.name, "outbox.event.order")
	s := stream(t, l.args("--http", "off", "--on-error", "park")...)
	l.event(t, "order", "42", "1")
	l.event(t, "invoice", "42", "2") // nobody has bound a queue for invoices
	l.event(t, "invoice", "42", "3")
	l.event(t, "order", "42", "4")
	eventually(t, time.Minute, "two rows are parked", func() bool { return strings.Count(s.log.String(), `msg="row parked"`) == 2 })
	eventually(t, time.Minute, "the dead letters are there", func() bool { return len(rabbitMessages(t, l.rabbit, dead)) >= 2 })
	l.rabbit.Bind(t, l.name, l.name, "outbox.event.invoice")
	out := mustRun(t, "dlq", "retry", "--slot", l.slot, "--database-url", l.db.URL, "--aggregate-type", "invoice", "--aggregate-id", "42")
	if !strings.Contains(out, "0 rows of 0 aggregates are parked now") {
		t.Errorf("dlq retry prints %s", out)
	}
	var invoices []string
	seen := map[string]bool{}
	for _, m := range rabbitMessages(t, l.rabbit, l.name) {
		text := strings.Trim(string(m.Value), `"`)
		if !seen[text] && (text == "2" || text == "3") {
			invoices = append(invoices, text)
		}
		seen[text] = true
	}
	if len(seen) != 4 || !slices.Equal(invoices, []string{"2", "3"}) {
		t.Errorf("the queue holds %v, invoices in order %q, want all four", seen, invoices)
	}
	s.wantStop(t)
}

// TestAParkedAggregateWaitsWhereItsTopicIsAnother starts a stream whose topics tell the type
// of an aggregate, then one whose topic does not.
func TestAParkedAggregateWaitsWhereItsTopicIsAnother(t *testing.T) {
	t.Parallel()
	p := newParkLine(t)
	topic := p.topic
	p.topic += ".{aggregate_type}"
	s := p.stream(t)
	p.topic = topic
	p.event(t, "p-0", true)
	p.event(t, "p-0", false)
	eventually(t, time.Minute, "both rows are parked", func() bool { return p.parked(t) == 2 })
	s.stop(t)

	s = p.stream(t)
	p.event(t, "p-0", false)
	p.settled(t)
	if rows := p.parked(t); rows != 3 {
		t.Errorf("%d rows are parked, want 3: what comes next of the aggregate waits as well", rows)
	}
	s.stop(t)

	p.dlq(t, "retry", "--aggregate-id", "p-0", "--wait", "0s")
	s = p.stream(t, "--column", mended)
	eventually(t, time.Minute, "nothing is parked any more", func() bool { return p.parked(t) == 0 })
	p.event(t, "p-0", false)
	p.settled(t)
	p.wantAll(t)
	s.stop(t)
}

// TestADropThatIsAskedForDuringARetryStands asks to drop a row while a retry finds that it
// cannot be sent still.
func TestADropThatIsAskedForDuringARetryStands(t *testing.T) {
	t.Parallel()
	p := newParkLine(t)
	parking := wal.NewParking(wal.Config{Database: p.db.URL, Slot: p.slot}, "7")
	defer parking.Close() //nolint:errcheck // nothing is owed to it
	ctx := walContext(t)
	rows := make([]wal.ParkedRow, 3)
	for i := range rows {
		rows[i] = wal.ParkedRow{Place: wal.Place{Commit: 0x100, Index: i}, Aggregate: []byte("a\x00b"), Cause: "mapping", Reason: "it is bad"}
	}
	if err := parking.Park(ctx, rows); err != nil {
		t.Fatal(err)
	}
	if n, err := parking.AskRetry(ctx, wal.ParkedFilter{}); err != nil || n != 3 {
		t.Fatalf("asked to retry %d rows, %v, want 3", n, err)
	}
	if n, err := parking.AskDrop(ctx, wal.ParkedFilter{Place: &rows[1].Place}); err != nil || n != 1 {
		t.Fatalf("asked to drop %d rows, %v, want 1", n, err)
	}
	if err := parking.Refuse(ctx, &rows[0], "refused", "it is bad still"); err != nil {
		t.Fatal(err)
	}
	requests, err := parking.Asked(ctx)
	if err != nil || len(requests) != 1 || requests[0].Retry {
		t.Errorf("asked is %+v, %v, want a drop and no retry", requests, err)
	}
	if dropped, err := parking.Drop(ctx, rows[0].Aggregate); err != nil || len(dropped) != 1 || dropped[0].Place != rows[1].Place {
		t.Errorf("dropped %+v, %v, want the row in the middle", dropped, err)
	}
}
