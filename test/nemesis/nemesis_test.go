package nemesis

import (
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

var (
	duration       = flag.Duration("nemesis.duration", 60*time.Second, "how long to break things")
	rabbitDuration = flag.Duration("nemesis.rabbitmq", 0, "how long to break things with RabbitMQ; 0 breaks each of its own once")
	seed           = flag.Uint64("nemesis.seed", 0, "repeat the faults of this seed; 0 draws one")
)

// recoveryBound is how long the stream may take, after a fault has ended, until the
// slot is confirmed up to what was written by then. The longest pause between two
// sessions is 30 s; a server that was killed needs some seconds to come back, and the
// rest is for machines that do other work too.
const recoveryBound = 90 * time.Second

// TestNothingIsLostWhateverBreaks breaks one thing after the other under load. Now
// and then the next fault does not wait until the last one is got over.
func TestNothingIsLostWhateverBreaks(t *testing.T) {
	breakThings(t, newKafka, (*world).faults, *duration)
}

// TestNothingIsLostOnTheWayToRabbitMQ is the same with the other broker. Without a
// duration it breaks a few things that concern the broker, each once.
func TestNothingIsLostOnTheWayToRabbitMQ(t *testing.T) {
	if *rabbitDuration > 0 {
		breakThings(t, newRabbit, (*world).faults, *rabbitDuration)
		return
	}
	breakThings(t, newRabbit, func(w *world) []fault {
		faults := slices.DeleteFunc(w.broker.faults(w), func(f fault) bool { return f.slow })
		return append(faults, fault{name: "link to the broker cut", strike: w.broker.link().Cut})
	}, 0)
}

// breakThings goes through the faults in an order of chance until duration is over, and
// at least once.
func breakThings(t *testing.T, kind func(*testing.T, *servers.Proxy) broker, faults func(*world) []fault, duration time.Duration) {
	t.Helper()
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	t.Logf("seed %d: repeat with make nemesis SEED=%d", *seed, *seed)
	w := newWorld(t, rand.New(rand.NewPCG(*seed, 17)), kind)
	w.recovers("the start")
	for end := time.Now().Add(duration); ; {
		deck := faults(w)
		w.random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		for _, f := range deck {
			if duration > 0 && !time.Now().Before(end) {
				break
			}
			w.suffer(f)
		}
		if !time.Now().Before(end) {
			break
		}
	}
	w.judge()
}

// suffer lets one fault strike.
func (w *world) suffer(f fault) {
	w.t.Helper()
	began := time.Now()
	f.strike()
	w.struck[f.name]++
	if f.calm || w.random.IntN(4) > 0 {
		w.recovers(f.name)
	}
	w.t.Logf("%6.1fs  %s", time.Since(began).Seconds(), f.name)
}

// judge ends the run and says what came of it.
func (w *world) judge() {
	t := w.t
	t.Helper()
	w.recovers("the last fault")
	w.finish()
	report := w.check()

	total := 0
	for _, name := range slices.Sorted(maps.Keys(w.struck)) {
		total += w.struck[name]
		t.Logf("%4d × %s", w.struck[name], name)
	}
	t.Logf("seed %d: %d faults of %d kinds in %v", *seed, total, len(w.struck), time.Since(w.began).Round(time.Second))
	t.Logf("%d transactions: %d ok, %d failed, %d unknown of which %d had committed",
		report.ok+report.failed+report.unknown, report.ok, report.failed, report.unknown, report.committed)
	t.Logf("%d events, %d sent again; confirmed was sampled %d times", report.events, report.duplicates, report.samples)
	t.Logf("longest recovery %v after %s", w.longest.Round(10*time.Millisecond), w.longestAfter)
}
