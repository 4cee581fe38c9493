package sim

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Two instances that are started at once, the first time of all, make publication, slot
// and saved position beside each other: one streams and the other stands by, however
// their steps fall between each other's.
func TestTwoFirstStartsAtOnceEndInOneStreamAndOneStandby(t *testing.T) {
	const latency = time.Millisecond
	for step := range 60 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, uint64(step))
			w.server.Forget()
			w.latency, w.slow, w.file = latency, 0, ""
			var group sync.WaitGroup
			for i, name := range []string{"first", "second"} {
				group.Go(func() {
					time.Sleep(time.Duration(i*step) * latency / 4)
					p := &process{w: w, name: name}
					p.live(w.random(name))
				})
			}
			close(w.calm)
			time.Sleep(10 * time.Second)
			close(w.end)
			group.Wait()
			w.server.Close()
			w.kafka.close()
			time.Sleep(time.Minute)
		})
	}
}
