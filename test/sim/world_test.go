package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

const (
	logStart    = wal.LSN(0x1000000)
	slotName    = "orders"
	recoverable = 5 * time.Minute // from the end of all faults to the last confirmation
)

// world is one seed's Postgres and Kafka with the processes between them.
type world struct {
	t          *testing.T
	seed       uint64
	server     *waltest.Server
	kafka      *kafka
	transcript transcript
	file       string        // of the checkpoint; empty when the database keeps it
	calm       chan struct{} // closed when nothing disturbs any more
	end        chan struct{} // closed when the processes are to stop
	ledger     ledger
	latency    time.Duration
	slow       int // bytes a second of the links; 0 is unlimited

	draining atomic.Int64 // processes that were told to stop

	mu    sync.Mutex
	tally tally
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, server: waltest.NewServer(logStart),
		calm: make(chan struct{}), end: make(chan struct{}),
	}
	w.transcript.began = time.Now()
	w.ledger.w = w
	w.ledger.ends = map[wal.LSN]bool{logStart: true}
	r := w.random("world")
	w.latency = time.Duration(1+r.IntN(1<<(10+r.IntN(15)))) + time.Microsecond
	if r.IntN(10) == 0 {
		w.slow = 20_000 + r.IntN(200_000)
	}
	if r.IntN(3) == 0 {
		w.file = checkpointFile(t)
	}
	if r.IntN(4) == 0 {
		w.server.Forget()
	}
	w.server.Shape = w.shape
	w.server.ChanceOf = func(int32) func() bool {
		r := w.randomNow("chance")
		return func() bool { return r.IntN(4) == 0 }
	}
	w.server.Chance = chance(w.random("log"), 4)
	w.server.OnStatus = w.ledger.confirmed
	w.server.OnSave = w.ledger.saved
	w.server.OnTimeout = func(pid int32) {
		w.t.Errorf("connection %d was hung up on: no status for the whole of wal_sender_timeout", pid)
	}
	w.kafka = newKafka(w)
	return w
}

func chance(r *rand.Rand, n int) func() bool { return func() bool { return r.IntN(n) == 0 } }

// random makes choices for one actor, whatever the others choose.
func (w *world) random(actor string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(actor))
	return rand.New(rand.NewPCG(w.seed, h.Sum64()))
}

// randomNow is random for an actor that begins to exist now.
func (w *world) randomNow(actor string) *rand.Rand { return w.random(actor + time.Now().String()) }

// shape is what a connection is like that is made now.
func (w *world) shape() waltest.Shape {
	r := w.randomNow("shape")
	s := waltest.Shape{Latency: w.latency, Seed: r.Uint64(), BytesPerSecond: w.slow, Buffer: 4096 << r.IntN(8)}
	s.Narrow = s.Seed%2 == 0
	if s.BytesPerSecond > 0 {
		s.Buffer = 1 << 20 // never full: how fast the pieces of a write come must not depend on where it is cut
	}
	return s
}

// live lets everything happen: processes stream what a service writes while Postgres
// and Kafka fail, until all is calm; then everything must be delivered and confirmed
// within a bound, the processes must stop in order, and the whole is checked.
func (w *world) live() {
	var processes, actors sync.WaitGroup
	w.processes(&processes)
	actors.Go(w.write)
	actors.Go(w.disturbPostgres)
	actors.Go(w.disturbKafka)
	actors.Wait()
	w.heal()
	close(w.calm)
	w.transcript.add("all is calm")
	w.settle()
	close(w.end)
	processes.Wait()
	w.ledger.check(w.kafka.read())
	w.server.Close()
	w.kafka.close()
	time.Sleep(time.Minute) // what drivers still close in the background has a timeout
	w.tally.Paces.Add(w.server.Paces())
}

// heal mends what disturbances may have left behind.
func (w *world) heal() {
	w.server.SetDown(false)
	w.server.Started()
	w.kafka.heal()
}

// settle waits until the slot is confirmed up to the last event.
func (w *world) settle() {
	last := w.ledger.last()
	began := time.Now()
	for time.Since(began) < recoverable {
		if w.server.Slotted() && w.server.Confirmed() >= last {
			w.count(func(t *tally) { t.Recovery = max(t.Recovery, time.Since(began)) })
			return
		}
		time.Sleep(100 * time.Millisecond) // the bubble's clock
	}
	w.t.Errorf("%v after the last fault the slot is confirmed up to %v, the last event ends at %v", recoverable, w.server.Confirmed(), last)
}

func (w *world) count(change func(t *tally)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.tally)
}

// sleep waits at most so long, by chance.
func sleep(r *rand.Rand, most time.Duration) { time.Sleep(time.Duration(1 + r.Int64N(int64(most)))) }
