package pipeline

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

// The simulation runs real sessions, stream, tracker, saver and mapper, against a
// walsender, a broker and a store that misbehave as real ones do, on a simulated
// clock. Every choice comes from one seed. A world is checked all the time: the
// slot never passes an event that the broker does not hold, and whatever happens
// no key ever skips an event.

var (
	simSeeds = flag.Int("seeds", 300, "simulated worlds")
	simSeed  = flag.Uint64("seed", 0, "replay this world alone")
)

func TestSimulatedWorldsLoseAndReorderNothing(t *testing.T) {
	seeds := make([]uint64, 0, *simSeeds)
	for i := range *simSeeds {
		seeds = append(seeds, uint64(i)+1)
	}
	if *simSeed != 0 {
		seeds = []uint64{*simSeed}
	}
	var total tally
	for _, seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			w.live()
			total.add(w.tally)
		})
		if t.Failed() {
			t.Fatalf("world %d; replay it with: go test ./pipeline -run %s -seed %d", seed, t.Name(), seed)
		}
	}
	t.Logf("%d worlds: %+v", len(seeds), total)
	if p := total.Paces; len(seeds) >= 100 && (p.Waits == 0 || p.Pulls == 0 || p.Ends == 0) {
		t.Errorf("%d reads waited for a large piece of the log, %d pulled one, and the next did neither %d times: want some of each", p.Waits, p.Pulls, p.Ends)
	}
}

// tally is what happened.
type tally struct {
	Events, Stored, Sessions, Cuts, Crashes, Kills, Failures, SaveErrors int

	Paces waltest.Paces // of the reader
}

func (a *tally) add(b tally) {
	a.Events += b.Events
	a.Stored += b.Stored
	a.Sessions += b.Sessions
	a.Cuts += b.Cuts
	a.Crashes += b.Crashes
	a.Kills += b.Kills
	a.Failures += b.Failures
	a.SaveErrors += b.SaveErrors
	a.Paces.Add(b.Paces)
}

const (
	simPartitions = 3
	simKeys       = 7
	simOID        = 16400
)

// world is one seed's Postgres, broker and store.
type world struct {
	t      *testing.T
	random *lockedRandom
	server *waltest.Server
	tally  tally

	mu     sync.Mutex
	events []event               // committed, in commit order
	perKey [simKeys]int          // events of each key
	log    [simPartitions][]item // what the broker holds
	held   map[int]bool          // events that it holds
	saved  checkpoint.Position

	poison *poison // nil in a world without rows that cannot be sent
}

// event is one committed outbox row.
type event struct {
	end wal.LSN // of its transaction
	key int
	n   int // its place among the events of its key
}

// item is a stored message.
type item struct{ event, key, n int }

// lockedRandom makes choices from any goroutine of the bubble.
type lockedRandom struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (l *lockedRandom) n(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.IntN(n)
}

func (l *lockedRandom) oneIn(n int) bool { return l.n(n) == 0 }

func (l *lockedRandom) pause(most time.Duration) time.Duration {
	return time.Duration(l.n(int(most) + 1))
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t:      t,
		random: &lockedRandom{r: rand.New(rand.NewPCG(seed, 7))},
		server: waltest.NewServer(0x1000),
		held:   map[int]bool{},
		saved:  checkpoint.Position{Slot: "orders", System: "1", Timeline: 1, Database: "d", LSN: 0x1000},
	}
	w.server.Shape = w.shape
	w.server.Chance = func() bool { return w.random.oneIn(3) }
	w.server.OnStatus = func(s waltest.Status) { w.checkConfirmed(s.Flush) }
	return w
}

// shape gives a link on which some hundred rows take some milliseconds, so that a
// backlog is worth waiting for, or one that delivers at once.
func (w *world) shape() waltest.Shape {
	if w.random.oneIn(2) {
		return waltest.Shape{}
	}
	s := waltest.Shape{BytesPerSecond: 3_000_000 + w.random.n(3_000_000), Seed: uint64(w.random.n(1 << 30))}
	s.Narrow = s.Seed%2 == 0
	return s
}

// live writes transactions while sessions come and go, then lets the last session
// catch up in peace and checks the whole.
func (w *world) live() {
	ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
	defer cancel()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.write()
	}()
	for !closed(written) {
		w.session(ctx, true)
	}
	w.poison.mend()
	w.session(ctx, false)
	w.checkComplete()
	w.tally.Paces = w.server.Paces()
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// write commits transactions of none to many rows, with idle log in between.
func (w *world) write() {
	for range 40 + w.random.n(40) {
		time.Sleep(w.random.pause(400 * time.Millisecond)) // the bubble's clock
		if w.random.oneIn(4) {
			w.server.Idle(1 + w.random.n(1<<17))
			continue
		}
		if w.random.oneIn(5) {
			w.message()
			continue
		}
		w.transaction()
	}
}

func (w *world) transaction() {
	w.mu.Lock()
	defer w.mu.Unlock()
	messages := [][]byte{waltest.Relation(simOID, "public", "outbox", "id", "aggregate_type", "aggregate_id", "event_type", "payload", "headers")}
	first := len(w.events)
	rows := w.random.n(5)
	if w.random.oneIn(10) {
		rows = 100 + w.random.n(600)
	}
	for range rows {
		n, key := w.event()
		if w.random.oneIn(4) {
			messages = append(messages, waltest.Message(true, 0, outbox.MessagePrefix, simMessageOf(n, key)))
			continue
		}
		if w.random.oneIn(8) {
			messages = append(messages, waltest.Message(true, 0, "foreign", []byte("\x00\xff")))
		}
		messages = append(messages, waltest.Insert(simOID, fmt.Append(nil, n), []byte("order"), fmt.Append(nil, "k", key), w.poison.eventType(n), []byte("{}"), nil))
	}
	_, end := w.server.Transaction(7, messages...)
	for i := first; i < len(w.events); i++ {
		w.events[i].end = end
	}
	w.tally.Events += rows
}

// event notes another event of some key; w.mu is held.
func (w *world) event() (n, key int) {
	n, key = len(w.events), w.random.n(simKeys)
	w.events = append(w.events, event{key: key, n: w.perKey[key]})
	w.perKey[key]++
	return n, key
}

// simMessageOf is the content of a logical message that is an event.
func simMessageOf(n, key int) []byte {
	return fmt.Appendf(nil, `{"id": %d, "aggregate_type": "order", "aggregate_id": "k%d", "event_type": "e", "payload": {}}`, n, key)
}

// message logs a message outside of any transaction, ours or another's.
func (w *world) message() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.random.oneIn(3) {
		w.server.Message("foreign", []byte("heartbeat"))
		return
	}
	n, key := w.event()
	w.events[n].end = w.server.Message(outbox.MessagePrefix, simMessageOf(n, key))
	w.tally.Events++
}

// session runs one session to its end. With trouble it ends by a random fault;
// without, by a stop once everything is confirmed.
func (w *world) session(ctx context.Context, trouble bool) {
	conn, err := wal.Connect(ctx, w.config())
	if err != nil {
		w.t.Fatalf("connect: %v", err)
	}
	w.mu.Lock()
	saved := w.saved
	w.mu.Unlock()
	stream, err := conn.Start(ctx, saved.LSN)
	if err != nil {
		w.t.Fatalf("start: %v", err)
	}
	w.tally.Sessions++
	broker := newSimBroker(w, trouble)
	s := w.assemble(stream, broker, saved, trouble)

	running, kill := context.WithCancel(ctx)
	defer kill()
	w.poison.join(ctx, s, saved.LSN)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- w.poison.ended(s, s.run(running, stop)) }()
	w.poison.operate()
	if trouble {
		w.disturb(kill, stop, done)
	} else {
		w.settle(ctx, stop)
		if err := <-done; err != nil {
			w.t.Errorf("the last session, which nothing disturbed, ended with: %v", err)
		}
	}
	s.close(slog.New(slog.DiscardHandler))
}

func (w *world) config() wal.Config {
	return wal.Config{
		Database: "host=db user=u dbname=d sslmode=disable", Slot: "orders", Publication: "outboxcdc",
		Tables:    mustPlan(w.t, outbox.DefaultTopic).Tables(),
		Dial:      w.server.Dial,
		BatchRows: 1 + w.random.n(20),

		MessagePrefix: outbox.MessagePrefix,
	}
}

func (w *world) assemble(stream *wal.Stream, broker sink.Sink, saved checkpoint.Position, trouble bool) *session {
	r := &Runner{
		config: Config{
			Wal: w.config(), SaveInterval: 1 + w.random.pause(time.Second), BufferBytes: 1 + w.random.n(20_000),
			DrainTimeout: time.Minute, QueueBatches: w.random.n(5),
		},
		store: &simStore{w: w, quiet: w.random.oneIn(2), trouble: trouble},
	}
	r.config.setDefaults()
	r.plan = mustPlan(w.t, outbox.DefaultTopic)
	w.poison.prepare(r)
	s := r.newSession(stream, broker, saved)
	s.watch = nil
	return s
}

// disturb lets a session work for a while and ends it in one of the ways in which
// sessions end, unless broker or store end it first.
func (w *world) disturb(kill context.CancelFunc, stop chan<- struct{}, done <-chan error) {
	timer := time.NewTimer(w.random.pause(5 * time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
	case err := <-done:
		w.ended("the session ended by itself", err)
		return
	}
	switch w.random.n(4) {
	case 0:
		w.tally.Cuts++
		w.server.Cut()
	case 1:
		w.tally.Crashes++
		w.server.Crash(w.position() / 2)
	case 2:
		w.tally.Kills++
		kill()
	default:
		close(stop)
	}
	w.ended("the session was ended", <-done)
}

// ended takes any end but a bug.
func (w *world) ended(how string, err error) {
	if fault.Classify(err) == fault.Bug {
		w.t.Errorf("%s: %v", how, err)
	}
	w.t.Logf("%s: %v", how, err)
}

func (w *world) position() wal.LSN {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.saved.LSN
}

// settle stops the session when the slot has reached the end of the log, or stands
// where only idle log is left that is not worth a save.
func (w *world) settle(ctx context.Context, stop chan<- struct{}) {
	w.mu.Lock()
	last := wal.LSN(0)
	if n := len(w.events); n > 0 {
		last = w.events[n-1].end
	}
	w.mu.Unlock()
	if err := w.server.WaitConfirmed(ctx, last); err != nil {
		w.t.Errorf("the slot never reached the last event: %v", err)
	}
	w.poison.bringBack()
	close(stop)
}

// checkConfirmed fails the world when the slot may forget an event that the broker
// does not hold, or passes what is saved.
func (w *world) checkConfirmed(flush wal.LSN) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if flush > w.saved.LSN {
		w.t.Errorf("confirmed %v, but only %v is saved", flush, w.saved.LSN)
	}
	for i, e := range w.events {
		if e.end != 0 && e.end <= flush && !w.held[i] && !w.poison.kept(i) {
			w.t.Errorf("confirmed %v, but event %d of the transaction that ends at %v is not stored", flush, i, e.end)
			return
		}
	}
}

// checkComplete: the broker holds every event, and in no key does an event come
// before the one before it.
func (w *world) checkComplete() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.poison.settle()
	for i := range w.events {
		if !w.held[i] && !w.poison.isDropped(w.events[i].key, w.events[i].n) {
			w.t.Errorf("event %d was lost", i)
		}
	}
	for p, log := range w.log {
		var next [simKeys]int
		for _, it := range log {
			for w.poison.isDropped(it.key, next[it.key]) && it.n > next[it.key] {
				next[it.key]++
			}
			if it.n > next[it.key] {
				w.t.Errorf("partition %d: event %d of key %d came before event %d", p, it.n, it.key, next[it.key])
				return
			}
			next[it.key] = max(next[it.key], it.n+1)
		}
		w.tally.Stored += len(log)
	}
}
