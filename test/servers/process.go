package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// process is a machine: a child of this process, that dies with it.
//
// Each start is one goroutine that forks the child, waits for it and ends with it.
// The child writes its log into a pipe that its own children inherit, so the end
// of the pipe is the end of them all: after a kill -9 of a postmaster its backends
// live on for a moment and keep the data directory busy, and wait includes them.
type process struct {
	command  func() *exec.Cmd // a new one for each start
	farewell syscall.Signal   // what it gets when this process dies
	tail     *tail
	place    *place

	mu   sync.Mutex
	cmd  *exec.Cmd     // of the last start
	gone chan struct{} // closed when it and its children have ended
}

// newProcess is a server that is not started yet. It lives in place.
func newProcess(place *place, farewell syscall.Signal, command func() *exec.Cmd) *process {
	return &process{command: command, farewell: farewell, tail: &tail{}, place: place}
}

func (p *process) start(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil && !closed(p.gone) {
		return errors.New("start the server: it is running")
	}
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = p.tail, p.tail
	leash(cmd, p.farewell)
	forked, gone := make(chan error), make(chan struct{})
	go func() {
		defer close(gone)
		// The kernel sends the farewell when the thread that forked ends, not the
		// process (prctl(2), PR_SET_PDEATHSIG), so that thread waits here.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		forked <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-forked; err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	p.cmd, p.gone = cmd, gone
	return nil
}

// last gives the command of the last start and its end, nil before the first.
func (p *process) last() (cmd *exec.Cmd, gone <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.gone
}

func (p *process) signal(_ context.Context, sig syscall.Signal) error {
	cmd, gone := p.last()
	if cmd == nil || closed(gone) {
		return fmt.Errorf("send %v to the server: it is not running", sig)
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to the server: %w", sig, err)
	}
	return nil
}

func (p *process) wait(ctx context.Context) error {
	_, gone := p.last()
	if gone == nil {
		return nil
	}
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *process) ended(context.Context) bool {
	_, gone := p.last()
	return gone == nil || closed(gone)
}

func (p *process) pid(ctx context.Context) int {
	if p.ended(ctx) {
		return 0
	}
	cmd, _ := p.last()
	return cmd.Process.Pid
}

func (p *process) log() string { return p.tail.String() }

func (p *process) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var err error
	if !p.ended(ctx) {
		// First the signal that lets a server take its own children and shared
		// memory along.
		err = down(ctx, p, p.farewell)
	}
	if !p.ended(ctx) {
		err = errors.Join(err, down(context.WithoutCancel(ctx), p, syscall.SIGKILL))
	}
	return errors.Join(err, p.place.remove())
}

// closed says whether c is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// tailBytes is how much of a server's log is kept for the error that shows it.
const tailBytes = 16 << 10

// tail keeps the end of what is written to it. Any goroutine may use it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write takes all of b.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if len(t.text) > 2*tailBytes {
		t.text = append(t.text[:0], t.text[len(t.text)-tailBytes:]...)
	}
	return len(b), nil
}

// String is the end of what was written, from the beginning of a line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := string(t.text)
	if len(text) > tailBytes {
		_, text, _ = strings.Cut(text[len(text)-tailBytes:], "\n")
	}
	if text == "" {
		return "(nothing)\n"
	}
	return text
}
