package pipeline

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestAWindowIsATimeASizeOrBoth(t *testing.T) {
	for text, want := range map[string]Window{
		"":           {},
		"24h":        {Age: 24 * time.Hour, Bytes: DefaultWindowBytes},
		"50GB":       {Bytes: 50 << 30},
		"90m,512 MB": {Age: 90 * time.Minute, Bytes: 512 << 20},
		"1TB, 168h":  {Age: 168 * time.Hour, Bytes: 1 << 40},
	} {
		if got, err := ParseWindow(text); err != nil || got != want {
			t.Errorf("ParseWindow(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"a day", "-1h", "0s", "0GB", "-1GB", "1h,2h", "1GB,2GB", "24h,", "50", "99999999999GB"} {
		if got, err := ParseWindow(text); fault.Classify(err) != fault.Usage {
			t.Errorf("ParseWindow(%q) = %v, %v, want a usage error", text, got, err)
		}
	}
}

func TestTheTrailingSlotFollowsWithTheLagOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := trail{window: Window{Age: 3 * time.Minute, Bytes: 1 << 20}}
		slot := wal.Slot{Restart: 0x1000, Confirmed: 0x1000}
		for minute := range 10 {
			live := wal.Slot{Confirmed: wal.LSN(0x1000 * (minute + 1))}
			tr.marks = append(tr.marks, mark{live.Confirmed, time.Now()})
			slot.RetainedBytes = int64(live.Confirmed - slot.Restart)
			want := wal.LSN(0)
			if minute >= 3 {
				want = wal.LSN(0x1000 * (minute - 2))
			}
			if got := tr.target(live, slot); got != want {
				t.Errorf("minute %d: the target is %v, want %v", minute, got, want)
			}
			time.Sleep(time.Minute)
		}
		slot.RetainedBytes = 5 << 20 // now the size is the tighter bound
		if got, want := tr.target(wal.Slot{Confirmed: 1 << 40}, slot), slot.Restart+4<<20; got != want {
			t.Errorf("the target is %v, want %v, a window's size before the end", got, want)
		}
		if got := tr.target(wal.Slot{Confirmed: 0x2000}, slot); got != 0x2000 {
			t.Errorf("the target is %v, ahead of the stream at 0/2000", got)
		}
	})
}

func TestASlotThatEndangersTheDiskIsTold(t *testing.T) {
	tr := trail{window: Window{Bytes: 1 << 30}, keep: -1}
	for retained, danger := range map[int64]bool{1 << 30: false, 2 << 30: false, 3 << 30: true} {
		if got := tr.endangers(wal.Slot{RetainedBytes: retained}); (got != "") != danger {
			t.Errorf("%d bytes kept by a window of 1 GiB: %q, want danger: %v", retained, got, danger)
		}
	}
	tr.keep = 400 << 20
	for retained, danger := range map[int64]bool{299 << 20: false, 301 << 20: true} {
		if got := tr.endangers(wal.Slot{RetainedBytes: retained}); (got != "") != danger {
			t.Errorf("%d bytes kept where the server keeps 400 MiB: %q, want danger: %v", retained, got, danger)
		}
	}
	if tr.endangers(wal.Slot{WALStatus: "unreserved"}) == "" {
		t.Error("a slot that the server is about to give up is no danger")
	}
}
