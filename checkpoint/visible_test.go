package checkpoint

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func visible(t *testing.T, text string) Visible {
	t.Helper()
	v, err := ParseVisible(text)
	if err != nil {
		t.Fatalf("ParseVisible(%q) = %v", text, err)
	}
	return v
}

func TestASnapshotReadsBackAsItWasWritten(t *testing.T) {
	for _, text := range []string{"3:3:", "100:100:", "100:107:100,103,106", "4294967299:4294967301:4294967299"} {
		v := visible(t, text)
		if got := v.Text(); got != text {
			t.Errorf("%q reads back as %q", text, got)
		}
	}
	for _, text := range []string{
		"", "1", "1:2", "0:1:", "2:1:", "1:2:3", "5:9:4", "5:9:7,6", "5:9:7,7", "5:9:9", "5:9:x", "5:9:6,", "-1:2:", "1:2:1:1", "1:99999999999999999999:",
	} {
		if v, err := ParseVisible(text); err == nil {
			t.Errorf("ParseVisible(%q) = %q, want an error", text, v.Text())
		}
	}
	var none Visible
	if none.Known() || none.Text() != "" || none.Has(1) || none.Add(7) || none.Known() {
		t.Error("an empty set knows something")
	}
}

func TestATransactionIsAddedAndNoOther(t *testing.T) {
	v := visible(t, "100:107:100,103,106")
	for _, step := range []struct {
		xid  uint32
		want string
	}{
		{50, "100:107:100,103,106"},
		{101, "100:107:100,103,106"},
		{103, "100:107:100,106"},
		{107, "100:108:100,106"},
		{110, "100:111:100,106,108,109"},
		{100, "106:111:106,108,109"},
		{109, "106:111:106,108"},
		{106, "108:111:108"},
		{108, "111:111:"},
	} {
		if !v.Add(step.xid) {
			t.Fatalf("Add(%d) is refused", step.xid)
		}
		if got := v.Text(); got != step.want {
			t.Fatalf("after Add(%d): %q, want %q", step.xid, got, step.want)
		}
	}
}

func TestNumbersWrapWithTheEpoch(t *testing.T) {
	v := visible(t, "4294967290:4294967295:4294967290")
	for _, xid := range []uint32{4294967290, 3, 1} { // 3 and 1 are of the next epoch
		if !v.Add(xid) {
			t.Fatalf("Add(%d) is refused", xid)
		}
	}
	want := "4294967295:4294967300:4294967295,4294967296,4294967298"
	if got := v.Text(); got != want {
		t.Errorf("across the epoch: %q, want %q", got, want)
	}
}

func TestASetStaysSmall(t *testing.T) {
	v := visible(t, "100:100:")
	if v.Add(100 + MaxOpen + 1) {
		t.Fatal("a transaction is added behind more than MaxOpen others")
	}
	if got := v.Text(); got != "100:100:" {
		t.Fatalf("a refused transaction changed the set to %q", got)
	}
	if !v.Add(100+MaxOpen) || v.Add(100+MaxOpen+2) || !v.Add(100+MaxOpen+1) {
		t.Error("the bound is not MaxOpen")
	}
	if !v.Add(100) || !v.Add(100+MaxOpen+3) {
		t.Error("what was closed makes no room")
	}
}

// A set is compared with a plain one through random joins and additions.
func TestTheSetIsWhatWasJoinedAndAdded(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		const first, last = 1000, 1200
		all := map[uint64]bool{}
		var v Visible
		for range 30 {
			if v.Known() && random.IntN(3) > 0 {
				xid := first + random.Uint64N(last-first)
				if !v.Add(uint32(xid)) {
					t.Fatalf("seed %d: Add(%d) is refused", seed, xid)
				}
				all[xid] = true
				continue
			}
			other, theirs := randomVisible(t, random, first, last)
			v.Join(other)
			maps.Copy(all, theirs)
		}
		again := visible(t, v.Text())
		for xid := uint64(first); xid < last; xid++ {
			if v.Has(xid) != all[xid] || again.Has(xid) != all[xid] {
				t.Fatalf("seed %d: transaction %d is in it: %v, read back %v, want %v", seed, xid, v.Has(xid), again.Has(xid), all[xid])
			}
		}
	}
}

func randomVisible(t *testing.T, random *rand.Rand, first, last uint64) (v Visible, all map[uint64]bool) {
	t.Helper()
	end := first + random.Uint64N(last-first)
	var open []uint64
	all = map[uint64]bool{}
	for xid := first; xid < end; xid++ {
		if random.IntN(4) == 0 {
			open = append(open, xid)
		} else {
			all[xid] = true
		}
	}
	begin := append(slices.Clone(open), end)[0]
	text := fmt.Sprintf("%d:%d:", begin, end)
	for i, xid := range open {
		text += []string{",", ""}[min(1, max(0, 1-i))] + fmt.Sprint(xid)
	}
	return visible(t, text), all
}
