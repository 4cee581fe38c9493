package pipeline

import (
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// sound is evidence of a stream that may go on from 0/5000.
func sound() evidence {
	return evidence{
		saved:    &checkpoint.Position{Slot: "orders", System: "7", Timeline: 2, Database: "shop", LSN: 0x5000},
		identity: wal.Identity{System: "7", Timeline: 2, Database: "shop", Flush: 0x9000},
		slot:     &wal.Slot{Name: "orders", Confirmed: 0x4000},
		history: func() ([]wal.TimelineSwitch, error) {
			return []wal.TimelineSwitch{{Timeline: 1, At: 0x1000}, {Timeline: 2, At: 0x6000}}, nil
		},
	}
}

// verdictOn judges what a change made of the sound evidence.
func verdictOn(t *testing.T, change func(*evidence)) Verdict {
	t.Helper()
	e := sound()
	change(&e)
	v, err := judge(e)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAStreamGoesOnFromWhatIsSaved(t *testing.T) {
	got := verdictOn(t, func(*evidence) {})
	if got.Kind != Resumable || got.start != 0x5000 || got.err() != nil {
		t.Errorf("verdict %+v; want to go on from 0/5000", got)
	}
}

func TestAFirstStartLeavesThePlaceToTheSlot(t *testing.T) {
	for name, change := range map[string]func(*evidence){
		"with a slot":    func(e *evidence) { e.saved = nil },
		"without a slot": func(e *evidence) { e.saved, e.slot = nil, nil },
	} {
		if got := verdictOn(t, change); got.Kind != FirstStart || got.start != 0 || !got.Begins() {
			t.Errorf("%s: verdict %+v; want a first start", name, got)
		}
	}
}

// A file or a topic of positions that was lost does not make a first start of the next.
func TestASavedPositionThatIsGoneIsNoFirstStart(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*evidence)
		want   Kind
		to     wal.LSN
	}{
		"nobody streamed from the slot":          {func(*evidence) {}, FirstStart, 0},
		"the slot stands where it was made":      {func(e *evidence) { e.streamed = 0x4000 }, FirstStart, 0},
		"the slot has moved":                     {func(e *evidence) { e.streamed = 0x3000 }, PositionGone, 0x4000},
		"the slot was made anew behind the loss": {func(e *evidence) { e.streamed, e.slot.Confirmed = 0x3000, 0x8000 }, PositionGone, 0x8000},
		"the slot is gone, too":                  {func(e *evidence) { e.streamed, e.slot = 0x3000, nil }, PositionGone, 0},
		"the slot is gone, and was never known":  {func(e *evidence) { e.slot = nil }, FirstStart, 0},
		"the slot is ahead of the log":           {func(e *evidence) { e.streamed, e.slot.Confirmed = 0x3000, 0xA000 }, SlotAhead, 0xA000},
	} {
		got := verdictOn(t, func(e *evidence) { e.saved = nil; c.change(e) })
		if got.Kind != c.want || got.To != c.to || got.Begins() != (c.want == FirstStart) {
			t.Errorf("%s: verdict %+v, want %s up to %v", name, got, c.want, c.to)
		}
		if got.Kind == PositionGone && (got.From != 0x3000 || fault.Classify(got.err()) != fault.Operator || got.Advice == "") {
			t.Errorf("%s: verdict %+v, want one that says from where and what to do", name, got)
		}
	}
	e := sound()
	e.saved, e.streamed = nil, 0x3000
	v, err := judge(e)
	if err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[wal.LSN]bool{0: false, 0x3000: false, 0x4000: true, 0x5000: false} {
		if got := (&Runner{config: Config{AcceptGap: flag}}).accepts(e, v); got != want {
			t.Errorf("--accept-gap %v is accepted: %v, want %v", flag, got, want)
		}
	}
	e.slot = nil
	if v, err = judge(e); err != nil || (&Runner{}).accepts(e, v) {
		t.Errorf("without a slot and a flag it is accepted, %v", err)
	}
}

func TestGapsAreRefusedWithTheirRange(t *testing.T) {
	const mend, accept = "outboxcdc recover --slot orders", "--accept-gap 0/5000"
	switched := func(confirmed wal.LSN) func(*evidence) {
		return func(e *evidence) { e.identity.Timeline, e.saved.LSN, e.slot.Confirmed = 3, 0x8000, confirmed }
	}
	for name, c := range map[string]struct {
		change   func(*evidence)
		kind     Kind
		from, to wal.LSN
		say      []string
	}{
		"slot missing": {func(e *evidence) { e.slot = nil }, GapFound, 0x5000, 0, []string{"orders", "0/5000", mend, accept}},
		"slot made anew or moved": {
			func(e *evidence) { e.slot.Confirmed = 0x5001 }, GapFound, 0x5000, 0x5001,
			[]string{"between 0/5000 and 0/5001", mend, accept},
		},
		"slot invalidated": {
			func(e *evidence) { e.slot.WALStatus = "lost" }, GapFound, 0x5000, 0,
			[]string{"invalidated (log that it needs was removed)", "after 0/5000", mend, accept},
		},
		"slot invalidated and why": {
			func(e *evidence) { e.slot.Reason = "idle_timeout" }, GapFound, 0x5000, 0,
			[]string{"invalidated (idle_timeout)", mend, accept},
		},
		"slot beyond the log": {
			func(e *evidence) { e.slot.Confirmed, e.saved.LSN = 0x9001, 0x9000 }, SlotAhead, 0x9000, 0x9001,
			[]string{"0/9001", "0/9000", mend, "--accept-gap 0/9000"},
		},
		"moved beyond the log": {
			func(e *evidence) { e.slot.Confirmed = 0x9001 }, SlotAhead, 0x5000, 0x9001,
			[]string{"0/9001", "beyond the end of the log at 0/9000", mend, accept},
		},
		"first, slot beyond": {
			func(e *evidence) { e.slot.Confirmed, e.saved = 0x9001, nil }, SlotAhead, 0x9000, 0x9001,
			[]string{"0/9001", "0/9000", "outboxcdc drop --slot orders"},
		},
		"another cluster":     {func(e *evidence) { e.identity.System = "8" }, OtherLog, 0x5000, 0, []string{"7", "8", "--database-url", accept}},
		"another database":    {func(e *evidence) { e.identity.Database = "other" }, OtherLog, 0, 0, []string{"shop", "other"}},
		"former primary":      {func(e *evidence) { e.identity.Timeline = 1 }, OtherLog, 0, 0, []string{"timeline 1", "timeline 2"}},
		"restored to earlier": {func(e *evidence) { e.identity.Flush = 0x4800 }, RestoredBack, 0x4800, 0x5000, []string{"0/5000", "0/4800", accept}},
		"another past": {
			func(e *evidence) { e.identity.Timeline = 9; e.saved.Timeline = 3 }, OtherLog, 0x5000, 0,
			[]string{"timeline 9", "timeline 3"},
		},
		"made anew behind a switch": {
			switched(0x6001), GapFound, 0x6000, 0x6001,
			[]string{"between 0/6000 and 0/6001", mend, "--accept-gap 0/8000"},
		},
		"missing behind a switch": {
			func(e *evidence) { switched(0)(e); e.slot = nil }, GapFound, 0x6000, 0,
			[]string{"up to 0/6000", mend},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := verdictOn(t, c.change)
			err := v.err()
			if v.Begins() || err == nil || fault.Classify(err) != fault.Operator {
				t.Fatalf("error %v, want an operator error", err)
			}
			if v.Kind != c.kind || v.From != c.from || v.To != c.to {
				t.Errorf("verdict is %s from %v to %v, want %s from %v to %v", v.Kind, v.From, v.To, c.kind, c.from, c.to)
			}
			for _, word := range c.say {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("error %q does not say %q", err, word)
				}
			}
		})
	}
}

func TestAPromotedStandbyIsFollowedFromWhereBothTimelinesAgree(t *testing.T) {
	if got := verdictOn(t, func(e *evidence) { e.identity.Timeline = 3 }); got.Kind != Resumable || got.start != 0x5000 {
		t.Errorf("saved before the switch: %+v; want to go on from 0/5000", got)
	}
	got := verdictOn(t, func(e *evidence) { e.identity.Timeline, e.saved.LSN = 3, 0x6001 })
	if got.Kind != Redelivery || got.start != 0 || got.From != 0x6000 || got.To != 0x6001 || !got.Begins() {
		t.Errorf("saved after the switch: %+v; want the slot's own position and the window", got)
	}
	for _, word := range []string{"0/6000", "0/6001", "0/4000", "lost by the database"} {
		if !strings.Contains(got.Sentence, word) {
			t.Errorf("the window is told as %q, without %q", got.Sentence, word)
		}
	}
}

// A flag that stays in a start script must not accept what comes later.
func TestOnlyTheGapThatWasNamedIsAccepted(t *testing.T) {
	for name, c := range map[string]struct {
		flag   wal.LSN
		change func(*evidence)
		want   bool
	}{
		"the one that was named":     {0x5000, func(e *evidence) { e.slot = nil }, true},
		"another one":                {0x4000, func(e *evidence) { e.slot = nil }, false},
		"none":                       {0, func(e *evidence) { e.slot = nil }, false},
		"nothing is wrong":           {0x5000, func(*evidence) {}, false},
		"a move to a cluster":        {0x5000, func(e *evidence) { e.identity.System, e.identity.Timeline = "8", 1 }, true},
		"another database":           {0x5000, func(e *evidence) { e.identity.Database = "other" }, false},
		"a former primary":           {0x5000, func(e *evidence) { e.identity.Timeline = 1 }, false},
		"a server that was set back": {0x5000, func(e *evidence) { e.identity.Flush = 0x4800 }, true},
	} {
		e := sound()
		c.change(&e)
		v, err := judge(e)
		if err != nil {
			t.Fatal(err)
		}
		r := &Runner{config: Config{AcceptGap: c.flag}}
		if got := r.accepts(e, v); got != c.want {
			t.Errorf("%s: accepted is %v, want %v", name, got, c.want)
		}
	}
}

// Behind a switch of timelines numbers of transactions are given out again.
func TestASnapshotIsCarriedOnlyWhereItStillHolds(t *testing.T) {
	at := func(lsn wal.LSN) checkpoint.Snapshot { return checkpoint.Snapshot{Text: "3:3:", At: lsn} }
	for name, c := range map[string]struct {
		change func(*evidence)
		want   wal.LSN
	}{
		"nothing changed":       {func(*evidence) {}, 0x4F00},
		"switch behind it":      {func(e *evidence) { e.identity.Timeline = 3 }, 0x4F00},
		"switch before it":      {func(e *evidence) { e.identity.Timeline, e.saved.LSN, e.saved.Delivered = 3, 0x8000, at(0x7000) }, 0x4100},
		"switch before all":     {func(e *evidence) { e.identity.Timeline, e.saved.Timeline, e.saved.LSN = 3, 1, 0x8000 }, 0},
		"another cluster":       {func(e *evidence) { e.identity.System = "8" }, 0},
		"set back":              {func(e *evidence) { e.identity.Flush = 0x4FFF }, 0},
		"set back to before it": {func(e *evidence) { e.identity.Flush = 0x4800 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			store := checkpoint.NewMemory("orders")
			e := sound()
			e.saved.Delivered = at(0x4F00)
			for i, lsn := range []wal.LSN{0x4000, 0x4100, 0x6100} {
				past := *e.saved
				past.LSN, past.Delivered, past.Time = lsn, at(lsn), time.Unix(int64(i+1), 0)
				if err := store.Keep(t.Context(), checkpoint.Entry{Position: past}); err != nil {
					t.Fatal(err)
				}
			}
			c.change(&e)
			r := &Runner{store: store}
			got, err := r.carry(t.Context(), e, 0x9000)
			if err != nil || got.At != c.want {
				t.Errorf("the snapshot of %v is carried, %v, want %v", got.At, err, c.want)
			}
		})
	}
}

// What a table does not hold cannot be recovered from it.
func TestTheWayOutOfAGapIsOneForWhatIsStreamed(t *testing.T) {
	const recovery, gone = "run outboxcdc recover", "logical messages are in no table"
	for name, c := range map[string]struct {
		messages, only  bool
		recovered, lost bool
	}{
		"tables":   {false, false, true, false},
		"both":     {true, false, true, true},
		"no table": {true, true, false, true},
	} {
		for kind, change := range map[string]func(*evidence){
			"no slot":     func(e *evidence) { e.slot = nil },
			"a moved one": func(e *evidence) { e.slot.Confirmed = 0x5800 },
			"one ahead":   func(e *evidence) { e.slot.Confirmed = 0xa000 },
		} {
			got := verdictOn(t, func(e *evidence) {
				change(e)
				e.messages, e.messagesOnly = c.messages, c.only
			})
			if strings.Contains(got.Advice, recovery) != c.recovered || strings.Contains(got.Advice, gone) != c.lost || !strings.Contains(got.Advice, "--accept-gap 0/5000") {
				t.Errorf("%s, %s: the advice is %q", name, kind, got.Advice)
			}
		}
	}
}
