package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stream is one `outboxcdc stream`: a slot of the database, and where its events go.
type stream struct {
	binary, database string
	slot, sink       string

	cmd   *exec.Cmd
	ended chan struct{}
}

// command is outboxcdc with the database's URL in its environment, where it belongs.
func (s *stream) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.binary, append(args, "--slot", s.slot)...) //nolint:gosec // what to run is the user's choice
	cmd.Env = append(os.Environ(), "OUTBOXCDC_DATABASE_URL="+s.database, "OUTBOXCDC_SINK="+s.sink)
	cmd.Stderr = os.Stderr
	return cmd
}

// init makes what the stream needs in the database.
func (s *stream) init(ctx context.Context) error {
	if err := s.command(ctx, "init").Run(); err != nil {
		return fmt.Errorf("outboxcdc init --slot %s: %w", s.slot, err)
	}
	return nil
}

// start begins to stream. The goroutine ends with the process.
func (s *stream) start(ctx context.Context) error {
	s.cmd = s.command(context.WithoutCancel(ctx), "stream", "--http", "off", "--log-level", "error")
	s.ended = make(chan struct{})
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start outboxcdc: %w", err)
	}
	go func(cmd *exec.Cmd, ended chan struct{}) {
		defer close(ended)
		cmd.Wait() //nolint:errcheck // the exit code says it
	}(s.cmd, s.ended)
	return nil
}

// kill ends the process as a power cut would.
func (s *stream) kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-s.ended
}

// stop asks the process to end, which drains it.
func (s *stream) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop outboxcdc: %w", err)
	}
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	select {
	case <-s.ended:
	case <-patience.C:
		return errors.New("outboxcdc did not end within a minute of SIGTERM")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("outboxcdc of slot %s exited with %d after SIGTERM, want 0", s.slot, code)
	}
	return nil
}
