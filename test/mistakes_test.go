package test

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// ground is a stream's surroundings, for a mistake to be made in.
type ground struct {
	*walFixture

	url   string // of the database, as outboxcdc has it
	topic string
	sink  string
	more  []string // further settings of the stream
}

func newGround(tb testing.TB, db *servers.Database) *ground {
	tb.Helper()
	f := newWalFixture(tb, db)
	kafka := servers.SharedKafka(tb)
	g := &ground{walFixture: f, url: db.URL, topic: kafka.Topic(tb, 1), sink: sinkURL(kafka)}
	f.run(tb, "drop table outbox")
	mustRun(tb, "init", "--slot", g.config.Slot, "--database-url", db.URL)
	return g
}

// settings is a command with those of the database.
func (g *ground) settings(command string) []string {
	return []string{command, "--slot", g.config.Slot, "--database-url", g.url}
}

// toSink is a command with all that the stream has.
func (g *ground) toSink(command string) []string {
	return slices.Concat(g.settings(command), []string{"--sink", g.sink, "--topic", g.topic}, g.more)
}

func (g *ground) begin(tb testing.TB) *streamer {
	tb.Helper()
	return start(tb, append(g.toSink("stream"), "--http", "127.0.0.1:0")...)
}

func (g *ground) insert(tb testing.TB, aggregate string) {
	tb.Helper()
	g.run(tb, "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('order', '"+aggregate+"', 'OrderPlaced', '{}')")
}

// views are what a person has before them who was called.
type views struct {
	exit                     int // -1 while the stream runs
	log, page, status, check string
}

// stillRuns is the exit of what has not ended.
const stillRuns = -1

var servedAt = regexp.MustCompile(`http=(127\.0\.0\.1:\d+)`)

// shownBy is the text of a running stream's status page; empty when there is none.
func shownBy(tb testing.TB, s *streamer) string {
	tb.Helper()
	at := servedAt.FindStringSubmatch(s.log.String())
	if at == nil || s.over() {
		return ""
	}
	response, err := http.Get("http://" + at[1] + "/status")
	if err != nil {
		return ""
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	var shown struct {
		State, Reason string
		Errors        []struct{ Text string }
		Troubles      []struct{ Problem, Fix string }
	}
	if err := json.NewDecoder(response.Body).Decode(&shown); err != nil {
		tb.Fatalf("what the page asks for: %v", err)
	}
	return fmt.Sprint(shown)
}

func (g *ground) look(tb testing.TB, s *streamer) views {
	tb.Helper()
	v := views{exit: stillRuns, page: shownBy(tb, s), log: s.log.String()}
	if s.over() {
		v.exit = s.cmd.ProcessState.ExitCode()
	}
	status, check := command(tb, nil, g.settings("status")...), command(tb, nil, g.toSink("check")...)
	v.status, v.check = status.out+status.errors, check.out+check.errors
	return v
}

// want is what each view must say, SLOT being the slot's name; empty texts are not
// looked for.
func (v views) want(tb testing.TB, slot string, exit int, want map[string][]string) {
	tb.Helper()
	if v.exit != exit {
		tb.Errorf("exit %d, want %d", v.exit, exit)
	}
	for name, text := range map[string]string{"log": v.log, "page": v.page, "status": v.status, "check": v.check} {
		for _, say := range want[name] {
			if say = strings.ReplaceAll(say, "SLOT", slot); !strings.Contains(text, say) {
				tb.Errorf("%s does not say %q:\n%s", name, say, text)
			}
		}
		if strings.Contains(text, "s3cret") {
			tb.Errorf("%s shows what is secret:\n%s", name, text)
		}
	}
}

// slip is a mistake, or a misfortune, of those who run a stream: how it comes about, and
// what must be said of it. A view that is not named says nothing of it.
type slip struct {
	make func(tb testing.TB, g *ground) *streamer // until it can be seen
	exit int
	says map[string][]string
}

// passing is a row that is fine.
const passing = "1"

func slips() map[string]slip {
	ends := func(tb testing.TB, g *ground) *streamer {
		tb.Helper()
		s := g.begin(tb)
		s.await(tb)
		return s
	}
	const nobody = "a stream that ended has said why in its log, and check and peek look for the cause"
	return map[string]slip{
		"wrong password": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				g.url = g.at(tb, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "s3cret-wrong") })
				return ends(tb, g)
			},
			exit: fault.ExitOperator,
			says: map[string][]string{
				"log":    {"password authentication failed", "check the user and the password in the database URL"},
				"status": {"password authentication failed", "check the user and the password in the database URL"},
				"check":  {"password authentication failed", "fix: check the user and the password"},
			},
		},
		"wrong topic": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				g.topic = "nobody.made.{aggregate_type}"
				g.insert(tb, passing)
				return ends(tb, g)
			},
			exit: fault.ExitOperator,
			says: map[string][]string{
				"log":    {"topic nobody.made.order does not exist", "--create-topics", "correct --topic"},
				"status": {nobody},
				"check":  {"topics nobody.made.{aggregate_type}", "named by rows", "--create-topics"},
			},
		},
		"slot taken": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				g.takenBy(tb, "another-program")
				return g.standsBy(tb)
			},
			exit: stillRuns,
			says: map[string][]string{
				"log":    {"SLOT is held by pid", "another-program", "when it should not stream, stop it"},
				"page":   {"standby", "SLOT is held by pid", "another-program", "when it should not stream, stop it"},
				"status": {"SLOT, held by pid", "another-program"},
				"check":  {"another-program", "streams from it", "fix: stop the other one"},
			},
		},
		"two instances": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				g.streams(tb, g.begin(tb))
				return g.standsBy(tb)
			},
			exit: stillRuns,
			says: map[string][]string{
				"log":    {"standby", "SLOT is held by pid", "(outboxcdc SLOT", "takes over when that one ends"},
				"page":   {"standby", "(outboxcdc SLOT", "takes over when that one ends"},
				"status": {"SLOT, held by pid", "(outboxcdc SLOT"},
				"check":  {"a second stream stands by"},
			},
		},
		"broker away at the start": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				g.sink = "kafka://127.0.0.1:1"
				s := g.begin(tb)
				eventually(tb, time.Minute, "it tries again", func() bool { return strings.Contains(shownBy(tb, s), "retrying") })
				return s
			},
			exit: stillRuns,
			says: map[string][]string{
				"log":   {"connect to kafka at 127.0.0.1:1", "refused", "check that the brokers run", "another follows"},
				"page":  {"retrying", "connect to kafka at 127.0.0.1:1", "check that the brokers run"},
				"check": {"kafka at 127.0.0.1:1", "refused", "fix: check that the brokers run"},
			},
		},
		"broker gone": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				kafka := servers.Kafka(tb)
				g.sink, g.topic = sinkURL(kafka), kafka.Topic(tb, 1)
				s := g.streams(tb, g.begin(tb))
				kafka.Kill9(tb)
				g.insert(tb, passing)
				eventually(tb, time.Minute, "it is told in the log", func() bool { return strings.Contains(s.log.String(), "msg=trouble subject=broker") })
				return s
			},
			exit: stillRuns,
			says: map[string][]string{
				"log":    {"the broker has not acked for", "refused", "nothing is lost", "outboxcdc check says"},
				"page":   {"the broker has not acked for", "refused", "nothing is lost", "outboxcdc check says"},
				"status": {"public.outbox: 1 wait", "held by pid"},
				"check":  {"refused", "fix: check that the brokers run"},
			},
		},
		"poison row": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				g.insert(tb, "")
				return ends(tb, g)
			},
			exit: fault.ExitData,
			says: map[string][]string{
				"log":    {"aggregate_id: it is null or empty", "nothing of it is lost", "says how to pass it"},
				"status": {nobody},
			},
		},
		"clock off": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				g.run(tb, "alter table outbox add at timestamptz default now() + interval '2 hours'")
				g.more = []string{"--timestamp-column", "at"}
				g.insert(tb, passing)
				return ends(tb, g)
			},
			exit: fault.ExitOperator,
			says: map[string][]string{
				"log":    {"the broker refuses the time of an event", "compare the clocks of Postgres and Kafka"},
				"status": {nobody},
			},
		},
		"table left out of the publication": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				g.run(tb, "create table other ()", "alter publication outboxcdc set table other")
				return ends(tb, g)
			},
			exit: fault.ExitOperator,
			says: map[string][]string{
				"log":   {"publication outboxcdc", "public.outbox", "ALTER PUBLICATION"},
				"check": {"publication outboxcdc", "fix: ", "ALTER PUBLICATION"},
			},
		},
		"misspelt setting": {
			make: func(tb testing.TB, g *ground) *streamer {
				tb.Helper()
				path := filepath.Join(tb.TempDir(), "outboxcdc.yaml")
				if err := os.WriteFile(path, []byte("drain-timout: 10s\n"), 0o600); err != nil {
					tb.Fatal(err)
				}
				g.more = []string{"--config", path}
				return ends(tb, g)
			},
			exit: fault.ExitUsage,
			says: map[string][]string{"log": {"drain-timout", "drain-timeout"}, "check": {"drain-timout", "drain-timeout"}},
		},
	}
}

// takenBy lets a program of this name stream from the slot.
func (g *ground) takenBy(tb testing.TB, name string) {
	tb.Helper()
	config, err := pgconn.ParseConfig(g.url)
	if err != nil {
		tb.Fatal("the database's URL does not parse")
	}
	config.RuntimeParams["replication"], config.RuntimeParams["application_name"] = "database", name
	config.RuntimeParams["wal_sender_timeout"] = "0" // it answers no keepalive
	pg, err := pgconn.ConnectConfig(walContext(tb), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { pg.Close(walContext(tb)) }) //nolint:errcheck // it has done its part
	options := pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'outboxcdc'"}}
	if err := pglogrepl.StartReplication(walContext(tb), pg, g.config.Slot, 0, options); err != nil {
		tb.Fatal(err)
	}
}

// streams waits until s does.
func (*ground) streams(tb testing.TB, s *streamer) *streamer {
	tb.Helper()
	eventually(tb, time.Minute, "it streams", func() bool { return strings.Contains(s.log.String(), "msg=streaming") })
	return s
}

// standsBy begins a stream and waits until it waits for the slot.
func (g *ground) standsBy(tb testing.TB) *streamer {
	tb.Helper()
	s := g.begin(tb)
	eventually(tb, time.Minute, "it stands by", func() bool { return strings.Contains(s.log.String(), "standby: ") })
	return s
}

// Each is recognised from what an operator looks at, and says the way out.
func TestMistakesOfOperatorsNameTheThingAndTheWayOut(t *testing.T) {
	for name, m := range slips() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGround(t, servers.SharedPostgres(t))
			s := m.make(t, g)
			g.look(t, s).want(t, g.config.Slot, m.exit, m.says)
		})
	}
}

// The same for what needs a server of its own: log that is kept until the slot is lost,
// and a certificate that has expired.
func TestMisfortunesOfTheServerNameTheThingAndTheWayOut(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t, servers.Setting("max_slot_wal_keep_size", "64MB"), servers.Setting("min_wal_size", "32MB"), servers.Setting("max_wal_size", "32MB"))
	g := newGround(t, server.Database(t))
	s := g.streams(t, g.begin(t))
	g.logPilesUp(t)
	eventually(t, time.Minute, "it is told in the log", func() bool { return strings.Contains(s.log.String(), "msg=trouble subject=slot") })
	g.look(t, s).want(t, g.config.Slot, stillRuns, map[string][]string{
		"log":    {"of log are kept for slot SLOT, and it is lost when", "raise max_slot_wal_keep_size now"},
		"page":   {"of log are kept for slot SLOT, and it is lost when", "raise max_slot_wal_keep_size now", "outboxcdc status names"},
		"status": {"max_slot_wal_keep_size), lost when", "open ", "which holds the log"},
		"check":  {"it is lost when", "or raise max_slot_wal_keep_size"},
	})
	(&line{db: g.db, slot: g.config.Slot, sql: g.sql}).loseSlot(t)
	s.await(t)
	g.look(t, s).want(t, g.config.Slot, fault.ExitOperator, map[string][]string{
		"log":    {"slot SLOT was invalidated", "run outboxcdc recover --slot SLOT"},
		"status": {"gap: slot SLOT was invalidated", "fix: run outboxcdc recover --slot SLOT"},
		"check":  {"it was invalidated", "fix: run outboxcdc recover --slot SLOT"},
	})
	ours := newAuthority(t)
	ours.present(t, server, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	g.url = g.at(t, func(u *url.URL) { u.RawQuery = "sslmode=verify-full&sslrootcert=" + url.QueryEscape(ours.file) })
	s = g.begin(t)
	s.await(t)
	expired := []string{"expired", "renew the server's certificate"}
	g.look(t, s).want(t, g.config.Slot, fault.ExitOperator, map[string][]string{"log": expired, "status": expired, "check": expired})
}

// logPilesUp writes log that a transaction keeps, until less may be written than is kept.
func (g *ground) logPilesUp(tb testing.TB) {
	tb.Helper()
	g.run(tb, "create table filler (x text)")
	held := g.db.Server.Conn(tb, g.db.Name)
	if _, err := held.Exec(walContext(tb), "begin; insert into filler values ('held')"); err != nil {
		tb.Fatal(err)
	}
	for range 3 {
		g.run(tb, "insert into filler values ('a segment has something in it, or is not switched')", "select pg_switch_wal()")
	}
}
