package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// TestParkedRowsComeAlongToAnotherCluster has the rows of a database that was upgraded,
// whose log goes on behind that of the old cluster, and of one that was restored into a
// new cluster, whose log begins anew: positions of the old one are ahead of it.
func TestParkedRowsComeAlongToAnotherCluster(t *testing.T) {
	t.Parallel()
	for name, moved := range map[string]string{
		"upgraded": "update outboxcdc.parked set system = '7' where slot = $1",
		"restored": "update outboxcdc.parked set system = '7', commit_lsn = commit_lsn + 281470681743360 where slot = $1",
	} {
		t.Run(name, func(t *testing.T) {
			p := newParkLine(t)
			s := p.stream(t)
			p.events(t, true)
			p.settled(t)
			if status := s.stop(t); status != 0 {
				t.Fatalf("exit status %d, want 0:\n%s", status, s.log)
			}
			p.exec(t, moved, p.slot)
			if out := p.dlq(t, "list"); !strings.Contains(out, "8 rows of 4 aggregates are parked") {
				t.Errorf("dlq list prints\n%s\nwant the rows of the other cluster", out)
			}
			halting := stream(t, slices.Concat([]string{"--sink", "stdout://", "--http", "off"}, p.base)...)
			if status := halting.await(t); status != fault.ExitOperator || !halting.says("would overtake them")() {
				t.Errorf("a stream that halts ended with %d, want that it refuses to overtake what is parked:\n%s", status, halting.log)
			}
			p.flags = append(p.flags, "--column", mended)
			s = p.stream(t)
			p.events(t, false) // behind what is parked
			p.settled(t)
			p.dlq(t, "retry", "--all", "--wait", "1m")
			eventually(t, time.Minute, "nothing is parked any more", func() bool { return p.parked(t) == 0 })
			p.events(t, false)
			p.settled(t)
			p.wantAll(t)
			if status := s.stop(t); status != 0 {
				t.Errorf("exit status %d after SIGTERM, want 0:\n%s", status, s.log)
			}
		})
	}
}
