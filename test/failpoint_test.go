package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

const failpointVariable = "OUTBOXCDC_FAILPOINT"

// builtToDie makes outboxcdc with its failpoints, once for all tests of the
// package.
var builtToDie = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "outboxcdc-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "outboxcdc")
	out, err := exec.Command("go", "build", "-tags", "failpoints", "-o", path, "../cmd/outboxcdc").CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return path, nil
})

// mortal is a streamer that dies when it passes a point.
type mortal struct {
	*streamer

	trap string
}

// streamTo starts a streamer that dies at its nth pass of the point.
func (l *line) streamTo(tb testing.TB, point failpoint.Point, n int) *mortal {
	tb.Helper()
	return l.streamInto(tb, fmt.Sprintf("%s:%d", point, n))
}

// streamInto starts a streamer with a trap, as failpoint names them.
func (l *line) streamInto(tb testing.TB, trap string) *mortal {
	tb.Helper()
	return mortalCommand(tb, trap, append([]string{
		"stream", "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","),
		"--topic", l.topic, "--http", "off",
	}, l.flags...))
}

// dying starts a command that dies when it first passes the point.
func dying(tb testing.TB, point failpoint.Point, args []string) *mortal {
	tb.Helper()
	return mortalCommand(tb, fmt.Sprintf("%s:1", point), args)
}

func mortalCommand(tb testing.TB, trap string, args []string) *mortal {
	tb.Helper()
	path, err := builtToDie()
	if err != nil {
		tb.Fatalf("build outboxcdc: %v", err)
	}
	m := &mortal{trap: trap}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), failpointVariable+"="+m.trap)
	m.streamer = begin(tb, cmd)
	return m
}

// dies waits for the death that the trap brings, and accepts no other.
func (m *mortal) dies(tb testing.TB) {
	tb.Helper()
	m.await(tb)
	status, ok := m.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		tb.Fatalf("the streamer with %s ended with %v, want SIGKILL:\n%s", m.trap, m.cmd.ProcessState, m.log)
	}
}

// TestADeathAtEachPointLosesNothing kills the streamer at each point of the chain,
// at several passes, under load. The first passes are the interesting ones: a save
// that is the first of its session, an ack before any save.
func TestADeathAtEachPointLosesNothing(t *testing.T) {
	t.Parallel()
	for point, passes := range map[failpoint.Point][]int{
		failpoint.AfterReceive: {1, 7, 60},
		failpoint.AfterSend:    {1, 7, 60},
		failpoint.AfterAck:     {1, 7, 60},
		failpoint.AfterSave:    {1, 2, 6},
		failpoint.AfterConfirm: {1, 2, 6},
	} {
		t.Run(string(point), func(t *testing.T) {
			l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
			stopWriting := l.write(t)
			for _, n := range passes {
				l.streamTo(t, point, n).dies(t)
			}
			stopWriting()
			l.survives(t)
		})
	}
}

// TestADeathInAStopLosesNothing kills the streamer while it drains.
func TestADeathInAStopLosesNothing(t *testing.T) {
	t.Parallel()
	for _, point := range []failpoint.Point{failpoint.StopFlushed, failpoint.StopSaved} {
		t.Run(string(point), func(t *testing.T) {
			l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
			stopWriting := l.write(t)
			for range 3 {
				s := l.streamTo(t, point, 1)
				eventually(t, time.Minute, "it streams", func() bool { return strings.Contains(s.log.String(), "msg=streaming") })
				before := l.w.written.Load()
				eventually(t, time.Minute, "the service goes on writing", func() bool { return l.w.written.Load() > before+200 })
				if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				s.dies(t)
			}
			stopWriting()
			l.survives(t)
		})
	}
}

// TestABugEndsTheProcessWithASentenceAndLosesNothing panics at each point of the chain,
// which are on as many goroutines: of the publisher, of Kafka's client, of the saver
// and of the session.
func TestABugEndsTheProcessWithASentenceAndLosesNothing(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	stopWriting := l.write(t)
	for point, stops := range map[failpoint.Point]bool{
		failpoint.AfterReceive: false, failpoint.AfterSend: false, failpoint.AfterAck: false,
		failpoint.AfterSave: false, failpoint.AfterConfirm: false,
		failpoint.StopFlushed: true, failpoint.StopSaved: true,
	} {
		m := l.streamInto(t, string(point)+":1:panic")
		if stops {
			eventually(t, time.Minute, "it streams", m.says("msg=streaming"))
			if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		if status := m.await(t); status != fault.ExitBug {
			t.Errorf("%s: exit status %d, want %d:\n%s", point, status, fault.ExitBug, m.log)
		}
		wantSentence(t, m, "bug: planted "+string(point), "read ", "sent ", "acked ", "saved ", "confirmed ", "outboxcdc version")
	}
	stopWriting()
	l.survives(t)
}

// wantSentence wants the last line of the log to say all of it, and no stack anywhere.
func wantSentence(t *testing.T, m *mortal, texts ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(m.log.String()), "\n")
	last := lines[len(lines)-1]
	for _, text := range texts {
		if !strings.Contains(last, text) {
			t.Errorf("%s: the last line does not say %q:\n%s", m.trap, text, m.log)
		}
	}
	if strings.Contains(m.log.String(), "goroutine ") {
		t.Errorf("%s: a stack is shown:\n%s", m.trap, m.log)
	}
}

// write lets the service work until stop is called.
func (l *line) write(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	written := make(chan error, 1)
	enough := make(chan struct{})
	go func() {
		for {
			if err := l.w.write(ctx, 100, 2); err != nil {
				written <- err
				return
			}
			select {
			case <-enough:
				written <- nil
				return
			default:
			}
		}
	}()
	return func() {
		t.Helper()
		defer cancel()
		close(enough)
		if err := <-written; err != nil {
			t.Fatalf("the workload: %v", err)
		}
	}
}

// survives lets a successor deliver the rest, and wants everything on the topic.
func (l *line) survives(t *testing.T) {
	t.Helper()
	s := l.stream(t)
	d := l.delivered(t)
	t.Logf("%d events, %d sent again", d.events, d.duplicates)
	s.wantStop(t)
}

func TestTheShippedBinaryHasNoFailpoints(t *testing.T) {
	holds := func(path string, err error) bool {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		binary, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(binary, []byte(failpointVariable))
	}
	if !holds(builtToDie()) {
		t.Error("a binary with failpoints does not hold the variable's name: the test proves nothing")
	}
	if holds(built()) {
		t.Error("the binary that is shipped reads the variable")
	}
}
