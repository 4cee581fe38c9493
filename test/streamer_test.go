package test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built makes outboxcdc once for all tests of the package, with the race
// detector, and gives its path.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "outboxcdc-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "outboxcdc")
	out, err := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", path, "../cmd/outboxcdc").CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return path, nil
})

func binaryPath(tb testing.TB) string {
	tb.Helper()
	path, err := built()
	if err != nil {
		tb.Fatalf("build outboxcdc: %v", err)
	}
	return path
}

// outboxcdc runs the command to its end and gives what it printed and its exit
// status.
func outboxcdc(tb testing.TB, args ...string) (output string, status int) {
	tb.Helper()
	path := binaryPath(tb) // the first to ask builds it, which may take longer than a run
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatalf("run outboxcdc %q: %v", args, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// mustRun runs the command and wants status 0.
func mustRun(tb testing.TB, args ...string) string {
	tb.Helper()
	out, status := outboxcdc(tb, args...)
	if status != 0 {
		tb.Fatalf("outboxcdc %q ended with %d:\n%s", args, status, out)
	}
	return out
}

// streamer is a running `outboxcdc stream`.
type streamer struct {
	cmd  *exec.Cmd
	log  *syncBuffer
	done chan struct{}
}

// syncBuffer is what the streamer logged so far.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// stream starts the streamer; it is killed with the test when it still runs.
func stream(tb testing.TB, args ...string) *streamer {
	tb.Helper()
	return start(tb, append([]string{"stream"}, args...)...)
}

// start starts the command as stream does.
func start(tb testing.TB, args ...string) *streamer {
	tb.Helper()
	return begin(tb, exec.Command(binaryPath(tb), args...))
}

// begin starts a command that is or becomes the streamer.
func begin(tb testing.TB, cmd *exec.Cmd) *streamer {
	tb.Helper()
	s := &streamer{cmd: cmd, log: &syncBuffer{}, done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		tb.Fatalf("start outboxcdc: %v", err)
	}
	go func() {
		s.cmd.Wait() //nolint:errcheck // the state is read from the process
		close(s.done)
	}()
	tb.Cleanup(func() {
		s.cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-s.done
		if tb.Failed() {
			tb.Logf("outboxcdc logged:\n%s", s.log)
		}
	})
	return s
}

// over says whether the streamer has ended.
func (s *streamer) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// address waits until the streamer has said where its HTTP interface is.
func (s *streamer) address(tb testing.TB) (at string) {
	tb.Helper()
	eventually(tb, time.Minute, "it says where its HTTP interface is", func() bool {
		if said := servedAt.FindStringSubmatch(s.log.String()); said != nil {
			at = said[1]
		}
		return at != ""
	})
	return at
}

// kill ends the streamer as a power cut would.
func (s *streamer) kill(tb testing.TB) {
	tb.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		tb.Fatalf("kill outboxcdc: %v\n%s", err, s.log)
	}
	<-s.done
}

// stop asks the streamer to end and gives its exit status.
func (s *streamer) stop(tb testing.TB) int {
	tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		tb.Fatalf("stop outboxcdc: %v\n%s", err, s.log)
	}
	return s.await(tb)
}

// wantStop stops the streamer, which must have nothing to complain of.
func (s *streamer) wantStop(tb testing.TB) {
	tb.Helper()
	if status := s.stop(tb); status != 0 {
		tb.Errorf("exit status %d after SIGTERM, want 0:\n%s", status, s.log)
	}
}

// await waits for the streamer to end by itself and gives its exit status.
func (s *streamer) await(tb testing.TB) int {
	tb.Helper()
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		tb.Fatalf("outboxcdc did not end within a minute:\n%s", s.log)
	}
	return s.cmd.ProcessState.ExitCode()
}

// eventually waits until what says that it is so.
func eventually(tb testing.TB, within time.Duration, what string, so func() bool) {
	tb.Helper()
	deadline := time.Now().Add(within)
	clock := time.NewTicker(50 * time.Millisecond)
	defer clock.Stop()
	for !so() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %s", within, what)
		}
		<-clock.C
	}
}
