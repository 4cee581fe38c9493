package pipeline

import (
	"sync/atomic"
	"time"
)

// latencyBounds are the upper bounds of a Latency's buckets: 1, 2.5 and 5 in each decade
// from a millisecond to ten minutes.
//
//nolint:gochecknoglobals // a constant
var latencyBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second, time.Minute, 10 * time.Minute,
}

// Latency is how long something took, counted in buckets since the process began.
type Latency struct {
	Bounds []time.Duration // upper bound of each bucket
	Counts []uint64        // how many took at most as long, the smaller ones included
	Count  uint64          // of all
	Sum    time.Duration   // of all
}

// histogram counts durations. Any goroutine may observe; a reader may see one that is
// counted and not yet summed.
type histogram struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64 // the last one: longer than all bounds
	sum     atomic.Int64                          // nanoseconds
}

// observe counts n that took d. A clock that is behind the other one's gives less than
// nothing, which counts as nothing.
func (h *histogram) observe(d time.Duration, n int) {
	d = max(d, 0)
	bucket := 0
	for bucket < len(latencyBounds) && d > latencyBounds[bucket] {
		bucket++
	}
	h.buckets[bucket].Add(uint64(n))
	h.sum.Add(int64(d) * int64(n))
}

func (h *histogram) latency() Latency {
	l := Latency{Bounds: latencyBounds[:], Counts: make([]uint64, len(latencyBounds)), Sum: time.Duration(h.sum.Load())}
	for i := range h.buckets {
		l.Count += h.buckets[i].Load()
		if i < len(l.Counts) {
			l.Counts[i] = l.Count
		}
	}
	return l
}
