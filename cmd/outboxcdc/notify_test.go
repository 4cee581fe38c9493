package main

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline"
)

// manager listens as systemd does and gives what it is told.
func manager(tb testing.TB) (heard func() string) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { socket.Close() }) //nolint:errcheck // the test is over
	tb.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		buffer := make([]byte, 4096)
		if err := socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			tb.Fatal(err)
		}
		n, err := socket.Read(buffer)
		if err != nil {
			tb.Fatalf("the manager is told nothing: %v", err)
		}
		return string(buffer[:n])
	}
}

func TestSystemdIsToldThatWeRunWhatWeDoAndThatWeStop(t *testing.T) {
	heard := manager(t)
	stats := pipeline.Stats{State: pipeline.Retrying, Reason: "connect to kafka: refused", Confirmed: 0x2A_0000_0010}
	end := tellSystemd(t.Context(), func() pipeline.Stats { return stats }, slog.New(slog.DiscardHandler))
	if got := heard(); got != "READY=1" {
		t.Errorf("told first: %q, want READY=1: who starts us does not wait for Postgres", got)
	}
	if got := heard(); got != "WATCHDOG=1\nSTATUS=retrying: connect to kafka: refused, confirmed up to 2A/10" {
		t.Errorf("told of the state: %q", got)
	}
	end()
	got := heard()
	for strings.HasPrefix(got, "WATCHDOG=1") {
		got = heard()
	}
	if got != "STOPPING=1" {
		t.Errorf("told last: %q, want STOPPING=1", got)
	}
}

func TestWithoutAManagerNobodyIsTold(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	tellSystemd(t.Context(), func() pipeline.Stats { t.Error("stats are asked for"); return pipeline.Stats{} }, slog.New(slog.DiscardHandler))()
}
