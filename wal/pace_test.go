package wal

import (
	"testing"
	"time"
)

// waters records what a pace sets.
type waters []int

func (w *waters) set(bytes int) error {
	*w = append(*w, bytes)
	return nil
}

func TestAFastLogIsWaitedForAndASlowOneIsNot(t *testing.T) {
	for _, c := range []struct {
		name  string
		every time.Duration // between two reads
		bytes int           // of each
		want  bool
	}{
		{"one row a transaction, backlog", 20 * time.Microsecond, 300, true},
		{"large pieces, backlog", 500 * time.Microsecond, 60_000, true},
		{"a thousand rows a second", time.Millisecond / 3, 100, false},
		{"idle", time.Second, 30, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var set waters
			p := pace{water: set.set}
			now := time.Unix(0, 0)
			waited := false
			for range 200 {
				waited = waited || p.wait(now)
				now = now.Add(c.every)
				p.got(c.bytes, now)
			}
			if waited != c.want {
				t.Errorf("waited %v, want %v", waited, c.want)
			}
		})
	}
}

func TestAWaitThatBroughtLittleIsNotRepeatedSoon(t *testing.T) {
	var set waters
	p := pace{water: set.set}
	now := time.Unix(0, 0)
	burst := func() {
		for range busyReads {
			p.got(10, now)
		}
	}
	burst()
	if !p.wait(now) {
		t.Fatal("a burst is not waited for")
	}
	now = now.Add(coalesceTime)
	if err := p.relax(); err != nil {
		t.Fatal(err)
	}
	p.got(100, now)
	burst()
	if p.wait(now) {
		t.Error("the next burst is waited for at once, though the last wait brought nothing")
	}
	now = now.Add(coalescePause)
	burst()
	if !p.wait(now) {
		t.Error("the pause never ends")
	}
	if len(set) != 3 || set[0] != coalesceBytes || set[1] != immediateBytes || set[2] != coalesceBytes {
		t.Errorf("marks %v, want %d, %d, %d", set, coalesceBytes, immediateBytes, coalesceBytes)
	}
}

func TestAWaitThatBroughtMuchIsRepeatedAtOnce(t *testing.T) {
	var set waters
	p := pace{water: set.set}
	now := time.Unix(0, 0)
	for range busyReads {
		p.got(100, now)
	}
	for range 3 {
		if !p.wait(now) {
			t.Fatal("a backlog is not waited for")
		}
		now = now.Add(coalesceTime)
		if err := p.relax(); err != nil {
			t.Fatal(err)
		}
		p.got(busyBytes, now)
	}
}

func TestARowThatComesAloneAfterAWaitIsReadAtOnce(t *testing.T) {
	var set waters
	p := pace{water: set.set}
	now := time.Unix(0, 0)
	for range busyReads {
		p.got(100, now)
	}
	p.wait(now)
	if err := p.relax(); err != nil {
		t.Fatal(err)
	}
	if p.wait(now) {
		t.Error("the read after a wait waits too, before it is known what the wait brought")
	}
	p.got(100, now)
	if p.wait(now) || set[len(set)-1] != immediateBytes {
		t.Errorf("waits after a single row, marks %v", set)
	}
}

func TestAConnectionWithoutASocketIsReadAtOnce(t *testing.T) {
	p := newPace(nil)
	for range 1000 {
		p.got(1000, time.Unix(0, 0))
	}
	if p.wait(time.Unix(0, 0)) {
		t.Error("waited on what has no mark")
	}
}
