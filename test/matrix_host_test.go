package test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// A process that gets a seventh of one processor, in slices with pauses in between,
// and collects garbage all the time, is slow and nothing else: the server hears from it
// in time, and the session goes on.
func TestAStarvedProcessIsSlowAndKeepsItsSession(t *testing.T) {
	const frozen, awake, rounds = 600 * time.Millisecond, 100 * time.Millisecond, 15
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	path, err := builtToDie() // with failpoints that nobody arms, and without the race detector
	if err != nil {
		t.Fatalf("build outboxcdc: %v", err)
	}
	cmd := exec.Command(path, append([]string{
		"stream", "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","),
		"--topic", l.topic, "--http", "off",
	}, l.flags...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=1")
	s := begin(t, cmd)
	eventually(t, time.Minute, "it streams", s.says("msg=streaming"))
	d := l.under(t, 10_000, func() {
		for range rounds {
			for _, slice := range []struct {
				signal syscall.Signal
				length time.Duration
			}{{syscall.SIGSTOP, frozen}, {syscall.SIGCONT, awake}} {
				if err := s.cmd.Process.Signal(slice.signal); err != nil {
					t.Fatal(err)
				}
				<-time.NewTimer(slice.length).C
			}
		}
	})
	if d.duplicates > 0 || s.says("another follows")() {
		t.Errorf("%d of %d events were sent again, want none and one session:\n%s", d.duplicates, d.events, s.log)
	}
	s.wantStop(t)
}
