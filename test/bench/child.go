package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is a contestant that runs.
type child struct {
	cmd   *exec.Cmd
	out   bytes.Buffer  // its standard output; read it after ended
	log   bytes.Buffer  // its standard error; read it after ended
	ended chan struct{} // closed when it has ended
	err   error         // how; read it after ended
}

var errEnded = errors.New("it ended by itself")

// start runs cmd. The goroutine ends with it.
func start(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &c.out, &c.log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.ended)
		c.err = cmd.Wait()
	}()
	return c, nil
}

// stop asks it to end and waits. One that must be killed is an error.
func (c *child) stop(ctx context.Context) error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	select {
	case <-c.ended:
		return nil
	case <-patience.C:
	case <-ctx.Done():
	}
	c.kill()
	return errors.New("it did not end when asked to")
}

// kill ends it for sure.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it has mostly ended before
	<-c.ended
}

// cpu is the time that a process has been running on a core, with all of its threads.
func cpu(pid int) (time.Duration, error) {
	// The kernel's name for the clock of another process (posix-timers.h,
	// MAKE_PROCESS_CPUCLOCK with CPUCLOCK_SCHED).
	clock := int32(^uint32(pid)<<3 | 2)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("read the clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// memory says in bytes how much of a process was resident at most, and is now. The
// kernel's rusage would count what it shared with us before it was itself.
func memory(pid int) (peak, now int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) //nolint:gosec // the kernel's
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "VmHWM:":
			peak, err = strconv.ParseInt(fields[1], 10, 64)
		case "VmRSS:":
			now, err = strconv.ParseInt(fields[1], 10, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return peak << 10, now << 10, nil
}
