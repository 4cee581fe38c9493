package pipeline

import (
	"strings"
	"testing"

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

func TestAStreamGoesOnFromWhatIsSaved(t *testing.T) {
	got, err := judge(sound())
	if err != nil || got.from != 0x5000 || got.first || got.warning != "" {
		t.Errorf("verdict %+v, %v; want to go on from 0/5000", got, err)
	}
}

func TestAFirstStartLeavesThePlaceToTheSlot(t *testing.T) {
	e := sound()
	e.saved = nil
	if got, err := judge(e); err != nil || !got.first || got.from != 0 {
		t.Errorf("verdict %+v, %v; want a first start", got, err)
	}
	e.slot = nil
	if got, err := judge(e); err != nil || !got.first {
		t.Errorf("verdict without a slot %+v, %v; want a first start", got, err)
	}
}

func TestGapsAreRefusedWithTheirRange(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*evidence)
		say    []string
	}{
		"slot missing":            {func(e *evidence) { e.slot = nil }, []string{"orders", "0/5000", "delete the saved position"}},
		"slot made anew or moved": {func(e *evidence) { e.slot.Confirmed = 0x5001 }, []string{"0/5000", "0/5001"}},
		"slot beyond the log":     {func(e *evidence) { e.slot.Confirmed, e.saved.LSN = 0x9001, 0x9001 }, []string{"0/9001", "0/9000"}},
		"moved beyond the log":    {func(e *evidence) { e.slot.Confirmed = 0x9001 }, []string{"0/9001", "beyond the end of the log at 0/9000"}},
		"first, slot beyond":      {func(e *evidence) { e.slot.Confirmed, e.saved = 0x9001, nil }, []string{"0/9001", "0/9000"}},
		"another cluster":         {func(e *evidence) { e.identity.System = "8" }, []string{"7", "8", "--database-url"}},
		"another database":        {func(e *evidence) { e.identity.Database = "other" }, []string{"shop", "other"}},
		"former primary":          {func(e *evidence) { e.identity.Timeline = 1 }, []string{"timeline 1", "timeline 2"}},
		"restored to earlier":     {func(e *evidence) { e.identity.Flush = 0x4800 }, []string{"0/5000", "0/4800"}},
		"another past":            {func(e *evidence) { e.identity.Timeline = 9; e.saved.Timeline = 3 }, []string{"timeline 9", "timeline 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := sound()
			c.change(&e)
			_, err := judge(e)
			if err == nil || fault.Classify(err) != fault.Operator {
				t.Fatalf("error %v, want an operator error", err)
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
	e := sound()
	e.identity.Timeline = 3
	if got, err := judge(e); err != nil || got.from != 0x5000 || got.warning != "" {
		t.Errorf("saved before the switch: %+v, %v; want to go on from 0/5000", got, err)
	}
	e.saved.LSN = 0x6001
	got, err := judge(e)
	if err != nil || got.from != 0 || !strings.Contains(got.warning, "0/6000") || !strings.Contains(got.warning, "0/6001") {
		t.Errorf("saved after the switch: %+v, %v; want the slot's own position and a warning with the window", got, err)
	}
}
