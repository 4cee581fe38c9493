package sim

import (
	"flag"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds   = flag.Int("seeds", 400, "simulated worlds")
	replays = flag.Uint64("replays", 10, "worlds that live twice")
	first   = flag.Uint64("first", 1, "seed of the first world")
	oneSeed = flag.Uint64("seed", 0, "replay this world alone, and say what happens in it")
)

func TestSimulatedRunnersLoseAndReorderNothing(t *testing.T) {
	if *oneSeed != 0 {
		w := simulate(t, *oneSeed)
		t.Logf("world %d: %+v", *oneSeed, &w.tally)
		return
	}
	var total tally
	began := time.Now()
	for seed := *first; seed < *first+uint64(*seeds) && !t.Failed(); seed++ {
		total.add(simulate(t, seed).tally)
	}
	t.Logf("%d worlds in %v: %v", *seeds, time.Since(began).Round(time.Second), &total)
}

// TestMain leaves one processor to the worlds: then the scheduler's choices are almost
// all the same each time, and what is left of them the worlds make harmless.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	m.Run()
}

// TestAWorldReplaysExactly wants the same world twice. Where something else wants the
// processor, the scheduler takes a goroutine from it after ten milliseconds of real time,
// wherever it is; a world in which that mattered is simulated again.
func TestAWorldReplaysExactly(t *testing.T) {
	const tries = 5
	for seed := *first; seed < *first+*replays; seed++ {
		var worlds [][]string
		again := func(a []string) bool {
			return slices.ContainsFunc(worlds, func(b []string) bool { return slices.Equal(a, b) })
		}
		for range tries {
			lines := simulate(t, seed).transcript.sorted()
			if again(lines) {
				worlds = nil
				break
			}
			worlds = append(worlds, lines)
		}
		if len(worlds) > 0 {
			t.Errorf("world %d was another one each time: %s", seed, difference(worlds[0], worlds[1]))
		}
	}
}

// simulate lets one world live. A world that fails tells what happened in it and how to
// see it again.
func simulate(t *testing.T, seed uint64) *world {
	t.Helper()
	var w *world
	failed := t.Failed()
	defer func() { // a bubble that fails does not return
		if t.Failed() != failed || *oneSeed != 0 {
			w.transcript.tell(t)
			t.Logf("replay world %d with: go test ./test/sim -tags synctests -run TestSimulated -v -seed %d", seed, seed)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, seed)
		w.live()
	})
	return w
}
