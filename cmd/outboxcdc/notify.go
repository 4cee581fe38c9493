package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/outboxcdc/outboxcdc/pipeline"
)

const notifyInterval = time.Second

// tellSystemd says to a service manager that started the process (systemd's sd_notify,
// Type=notify) that it runs, what it is doing, and every second that it lives, until the
// function that it gives is called; the goroutine ends with that call. Without such a
// manager it does nothing.
//
// The service is ready as soon as its settings are sound: Postgres or a broker that is
// away is waited for, and whoever starts the service need not wait along.
func tellSystemd(ctx context.Context, stats func() pipeline.Stats, logger *slog.Logger) (end func()) {
	asked, err := daemon.SdNotify(false, daemon.SdNotifyReady)
	if err != nil {
		logger.Warn("the service manager cannot be told that we run", slog.String("error", err.Error()))
	}
	if !asked || err != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		clock := time.NewTicker(notifyInterval)
		defer clock.Stop()
		last := ""
		for {
			state := daemon.SdNotifyWatchdog
			if status := systemdStatus(stats()); status != last {
				state, last = state+"\nSTATUS="+status, status
			}
			daemon.SdNotify(false, state) //nolint:errcheck // the next one is a second away
			select {
			case <-ctx.Done():
				return
			case <-clock.C:
			}
		}
	}()
	return func() {
		cancel()
		<-told
		daemon.SdNotify(false, daemon.SdNotifyStopping) //nolint:errcheck // the manager sees the end itself
	}
}

// systemdStatus is what systemctl status shows.
func systemdStatus(s pipeline.Stats) string {
	_, text := readiness(s)
	if s.Confirmed == 0 {
		return text
	}
	return fmt.Sprintf("%s, confirmed up to %v", text, s.Confirmed)
}
