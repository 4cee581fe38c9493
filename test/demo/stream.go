package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// outboxcdc is a run of the command, with the database in its environment as a
// user would have it.
func (d *demo) outboxcdc(ctx context.Context, args ...string) *exec.Cmd {
	d.out.printf("  $ outboxcdc %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, d.binary, args...) //nolint:gosec // what to run is the user's choice
	cmd.Env = append(os.Environ(), "OUTBOXCDC_DATABASE_URL="+d.shop.url)
	cmd.Stdout, cmd.Stderr = d.out, d.out
	return cmd
}

// stream is outboxcdc streaming.
type stream struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended; read it after ended is closed
}

// stream starts outboxcdc. The goroutine ends with it.
func (d *demo) stream(ctx context.Context) (*stream, error) {
	// An interrupt reaches it through the terminal too; without the context it
	// may drain.
	cmd := d.outboxcdc(context.WithoutCancel(ctx), "stream", "--slot", slotName,
		"--sink", "kafka://"+strings.Join(d.broker.ListenAddrs(), ","), "--http", "off")
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start outboxcdc: %w", err)
	}
	s := &stream{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.err = cmd.Wait()
	}()
	return s, nil
}

// stop asks it to end and gives its exit code.
func (s *stream) stop() (exit int, err error) {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stop outboxcdc: %w", err)
	}
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	select {
	case <-s.ended:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-patience.C:
		return 0, errors.New("outboxcdc did not end within a minute of SIGTERM")
	}
}

// kill ends it for sure.
func (s *stream) kill() {
	_ = s.cmd.Process.Kill() // it has mostly ended before
	<-s.ended
}
