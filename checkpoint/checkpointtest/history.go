package checkpointtest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// manyOpen is a snapshot beside which a thousand transactions were open.
func manyOpen() string {
	open := make([]string, 1000)
	for i := range open {
		open[i] = fmt.Sprint(4294968000 + 3*i)
	}
	return open[0] + ":4294972000:" + strings.Join(open, ",")
}

// historian opens the store as one that remembers.
func (p place) historian() checkpoint.Historian {
	p.t.Helper()
	h, ok := p.store().(checkpoint.Historian)
	if !ok {
		p.t.Fatal("the store keeps no history")
	}
	return h
}

// entry is one that was saved so many minutes after position's time.
func entry(minutes int) checkpoint.Entry {
	e := checkpoint.Entry{Position: position()}
	e.Time = e.Time.Add(time.Duration(minutes) * time.Minute)
	e.LSN += 0x100 * 1 << 10
	return e
}

func gap() checkpoint.Gap {
	return checkpoint.Gap{
		From: 0x1000, To: 0x2000, Before: snapshot(0x900), After: snapshot(0x2100),
		Reason: "the slot was dropped, \"it's said\" <&>",
	}
}

func (p place) keep(h checkpoint.Historian, e checkpoint.Entry) {
	p.t.Helper()
	if err := h.Keep(p.t.Context(), e); err != nil {
		p.t.Fatalf("Keep(%+v) = %v", e, err)
	}
}

// remembers fails the test unless a new store tells these entries.
func (p place) remembers(want ...checkpoint.Entry) {
	p.t.Helper()
	got, err := p.historian().History(p.t.Context())
	if err != nil {
		p.t.Fatalf("History = %v", err)
	}
	if len(want)+len(got) == 0 {
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Fatalf("History (-want +got):\n%s", diff)
	}
}

func historyInOrder(_ *testing.T, p place) {
	h := p.historian()
	p.remembers()
	first, second, third := entry(1), entry(2), entry(3)
	second.Gap = gap()
	second.Gap.Before = checkpoint.Snapshot{}
	third.Delivered = checkpoint.Snapshot{}
	p.keep(h, first)
	p.keep(h, third)
	p.remembers(first, third)
	p.keep(p.historian(), second)
	p.remembers(first, second, third)
	third.LSN++
	p.keep(h, third) // the same minute again
	p.remembers(first, second, third)
}

func historyBounded(_ *testing.T, p place) {
	h := p.historian()
	week := int(checkpoint.DefaultHistoryAge / time.Minute)
	old, accepted, young, last := entry(0), entry(1), entry(2), entry(week+2)
	accepted.Gap = gap()
	p.keep(h, old)
	p.keep(h, accepted)
	p.keep(h, young)
	p.remembers(old, accepted, young)
	p.keep(h, last)
	p.remembers(accepted, young, last)
	end := entry(3 * week)
	p.keep(h, end)
	p.remembers(accepted, end)
}

func replaces(_ *testing.T, p place) {
	h := p.historian()
	next := entry(5)
	next.Gap = gap()
	if err := h.Replace(p.t.Context(), next); err != nil { // where there is nothing
		p.t.Fatal(err)
	}
	p.holds(next.Position)
	other := entry(6)
	other.System, other.Database, other.Timeline, other.LSN, other.Delivered = "1", "other", 1, 0x10, checkpoint.Snapshot{}
	other.Gap = gap()
	if err := h.Replace(p.t.Context(), other); err != nil {
		p.t.Fatal(err)
	}
	p.holds(other.Position)
	p.remembers(next, other)
	other.LSN++
	p.save(p.store(), other.Position)
	p.holds(other.Position)
}

func incompleteEntry(t *testing.T, p place) {
	h := p.historian()
	for name, change := range map[string]func(*checkpoint.Entry){
		"another slot":         func(e *checkpoint.Entry) { e.Slot = "other" },
		"no LSN":               func(e *checkpoint.Entry) { e.LSN = 0 },
		"no time":              func(e *checkpoint.Entry) { e.Time = time.Time{} },
		"gap without a reason": func(e *checkpoint.Entry) { e.Gap.From = 1 },
	} {
		bad := entry(1)
		change(&bad)
		for doing, err := range map[string]error{"Keep": h.Keep(t.Context(), bad), "Replace": h.Replace(t.Context(), bad)} {
			if fault.Classify(err) != fault.Bug {
				t.Errorf("%s: %s = %v, want an error of class bug", name, doing, err)
			}
		}
	}
	p.remembers()
}

func deletes(t *testing.T, p place) {
	h := p.historian()
	if err := h.Delete(t.Context()); err != nil {
		t.Fatalf("Delete of nothing = %v", err)
	}
	last := entry(1)
	last.Gap = gap()
	p.save(p.store(), last.Position)
	p.keep(h, last)
	if err := h.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := p.store().Load(t.Context()); !errors.Is(err, checkpoint.ErrNone) {
		t.Fatalf("Load after Delete = %+v, %v, want ErrNone", got, err)
	}
	p.remembers()
	first := position()
	first.LSN, first.Delivered = 1, checkpoint.Snapshot{}
	p.save(p.store(), first)
	p.holds(first)
}
