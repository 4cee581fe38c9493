package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// transcript is what happened in a world and when.
type transcript struct {
	began time.Time

	mu    sync.Mutex
	lines []string
}

func (t *transcript) add(format string, args ...any) {
	line := fmt.Sprintf("%14.9f  %s", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
}

// sorted gives the lines in an order in which those of one moment do not depend on
// which goroutine ran first.
func (t *transcript) sorted() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := slices.Clone(t.lines)
	slices.Sort(lines)
	return lines
}

// tell logs the end of the transcript.
func (t *transcript) tell(tb testing.TB) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	tb.Logf("%s", strings.Join(t.lines[max(0, len(t.lines)-500):], "\n"))
}

// difference is the first line that is not the same in both.
func difference(a, b []string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d of %d and %d\n%s\nor\n%s", i, len(a), len(b),
				strings.Join(a[max(0, i-3):i+1], "\n"), strings.Join(b[i:min(len(b), i+2)], "\n"))
		}
	}
	return fmt.Sprintf("%d lines and %d", len(a), len(b))
}

// logger writes into the transcript what a process logs while it is alive. It leaves out
// which of several brokers that are down the client asked first: that is the choice of
// its goroutines, and of no consequence.
func (t *transcript) logger(process string, alive func() bool) *slog.Logger {
	h := &transcriptHandler{t: t, process: process, alive: alive}
	h.text = slog.NewTextHandler(&h.line, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "addr" || a.Key == "broker" {
			return slog.Attr{}
		}
		return a
	}})
	return slog.New(h)
}

type transcriptHandler struct {
	t       *transcript
	process string
	alive   func() bool

	mu   sync.Mutex
	line bytes.Buffer
	text slog.Handler
}

func (h *transcriptHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && h.alive()
}
func (h *transcriptHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *transcriptHandler) WithGroup(string) slog.Handler      { return h }

func (h *transcriptHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	err := h.text.Handle(ctx, r)
	h.t.add("%s: %s", h.process, strings.TrimSpace(h.line.String()))
	return err
}
