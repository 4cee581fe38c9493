package test

import (
	"strings"
	"testing"
	"time"
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
			s.wantStop(t)
			p.exec(t, moved, p.slot)
			if out := p.dlq(t, "list"); !strings.Contains(out, "8 rows of 4 aggregates are parked") {
				t.Errorf("dlq list prints\n%s\nwant the rows of the other cluster", out)
			}
			p.wantNoOvertaking(t)
			p.flags = append(p.flags, "--column", mended)
			s = p.stream(t)
			p.events(t, false) // behind what is parked
			p.settled(t)
			p.dlq(t, "retry", "--all", "--wait", "1m")
			eventually(t, time.Minute, "nothing is parked any more", func() bool { return p.parked(t) == 0 })
			p.events(t, false)
			p.settled(t)
			p.wantAll(t)
			s.wantStop(t)
		})
	}
}
