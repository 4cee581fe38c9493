package nemesis

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built makes outboxcdc once, as it is shipped.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "outboxcdc-nemesis")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "outboxcdc")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/outboxcdc").CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return path, nil
})

func binary(tb testing.TB) string {
	tb.Helper()
	path, err := built()
	if err != nil {
		tb.Fatalf("build outboxcdc: %v", err)
	}
	return path
}

// streamer is a running `outboxcdc stream`.
type streamer struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{}
}

// tail keeps the end of a log.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 32 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > 2*tailBytes {
		t.text = append(t.text[:0], t.text[len(t.text)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

func startStreamer(tb testing.TB, args ...string) *streamer {
	tb.Helper()
	s := &streamer{cmd: exec.Command(binary(tb), append([]string{"stream"}, args...)...), log: &tail{}, done: make(chan struct{})}
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
	})
	return s
}

func (s *streamer) signal(tb testing.TB, sig syscall.Signal) {
	tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		tb.Fatalf("send %v to outboxcdc: %v\n%s", sig, err, s.log)
	}
}

// kill ends the streamer as a power cut would.
func (s *streamer) kill(tb testing.TB) {
	tb.Helper()
	s.signal(tb, syscall.SIGKILL)
	<-s.done
}

// await waits until the streamer has ended and gives its exit status.
func (s *streamer) await(tb testing.TB, within time.Duration) int {
	tb.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		tb.Fatalf("outboxcdc did not end within %v:\n%s", within, s.log)
	}
	return s.cmd.ProcessState.ExitCode()
}

// stop asks the streamer to end, which it must do with everything confirmed.
func (s *streamer) stop(tb testing.TB) {
	tb.Helper()
	s.signal(tb, syscall.SIGTERM)
	if status := s.await(tb, time.Minute); status != 0 {
		tb.Fatalf("exit status %d after SIGTERM, want 0:\n%s", status, s.log)
	}
}

// refuses waits until the streamer has ended with status 3 and a sentence that says
// text.
func (s *streamer) refuses(tb testing.TB, text string) {
	tb.Helper()
	status := s.await(tb, time.Minute)
	log := "\n" + s.log.String()
	if sentence := log[max(0, strings.LastIndex(log, "\noutboxcdc: ")):]; status != 3 || !strings.Contains(sentence, text) {
		tb.Fatalf("exit status %d, want 3 and a sentence that says %q:\n%s", status, text, log)
	}
}

func (s *streamer) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}
