package pipeline

import (
	"testing"
	"time"
)

func TestLatencyCountsEachOnceInItsBucket(t *testing.T) {
	var h histogram
	h.observe(-time.Second, 1) // the server's clock is ahead of ours
	h.observe(time.Millisecond, 2)
	h.observe(time.Millisecond+1, 3)
	h.observe(time.Hour, 4)
	l := h.latency()
	if l.Counts[0] != 3 || l.Counts[1] != 6 || l.Counts[len(l.Counts)-1] != 6 || l.Count != 10 {
		t.Errorf("buckets %v of %d, want 3, 6, … 6 of 10", l.Counts, l.Count)
	}
	if want := 5*time.Millisecond + 3 + 4*time.Hour; l.Sum != want {
		t.Errorf("sum %v, want %v", l.Sum, want)
	}
}
