//go:build chromium

package main

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/wal"
)

// These tests show the status page in a real browser: make test-page.

var screens = flag.String("screens", "", "keep screenshots of the page in this directory")

// chromium runs the browser without a window and gives what it prints.
func chromium(tb testing.TB, args ...string) string {
	tb.Helper()
	path, err := exec.LookPath("chromium")
	if errors.Is(err, exec.ErrNotFound) {
		tb.Fatal("the status page is tested in Chromium, which is not on the PATH: install Debian's package chromium")
	}
	ctx, cancel := context.WithTimeout(tb.Context(), 90*time.Second)
	defer cancel()
	common := []string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir=" + tb.TempDir(), "--virtual-time-budget=3000", "--timezone=UTC",
	}
	cmd := exec.CommandContext(ctx, path, append(common, args...)...)
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("chromium: %v", err)
	}
	return string(out)
}

// scene is a stream as the page shows it.
type scene struct {
	stats func(step int) pipeline.Stats // at each sample
	says  []string                      // texts that must be on the page
}

func scenes() map[string]scene {
	at := time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)
	streaming := func(step int) pipeline.Stats {
		end := wal.LSN(0x2A_1000_0000 + step*40_000)
		return pipeline.Stats{
			State: pipeline.Streaming, Read: end, Sent: end - 1200, Acked: end - 9000, Saved: end - 30_000, Confirmed: end - 30_000,
			Rows: uint64(step*1000 + step%7*150), Sessions: 1, LastCommit: time.Now(), Waiting: 4 * time.Millisecond,
			Slot: wal.Slot{Name: "orders", RetainedBytes: 33 << 20, SafeBytes: 9 << 30}, SlotLookedAt: at,
		}
	}
	return map[string]scene{
		"streaming": {stats: streaming, says: []string{"streaming", "Events flow.", "confirmed", "2A/", "33 MiB", "None since the process began."}},
		"broker-away": {
			stats: func(step int) pipeline.Stats {
				s := streaming(min(step, 200))
				if step > 200 {
					s.Waiting = time.Duration(step-200) * sampleInterval
					s.Slot.RetainedBytes, s.Slot.SafeBytes = 7<<30, 1<<30
				}
				return s
			},
			says: []string{"no acks", "Events do not flow:", "the broker has not acked for", "outboxcdc check says", "raise max_slot_wal_keep_size now", "7.0 GiB", "1.0 GiB"},
		},
		"gap": {
			stats: func(int) pipeline.Stats {
				return pipeline.Stats{
					State:     pipeline.Failed,
					Reason:    "slot orders was moved or made anew by someone else: it stands at 2A/1000F000, but only what is before 2A/10000000 was sent: run outboxcdc recover --slot orders",
					LastError: "slot orders was moved or made anew by someone else", LastErrorTime: at, Slot: wal.Slot{SafeBytes: -1}, SlotLookedAt: at,
				}
			},
			says: []string{"failed", "outboxcdc recover --slot orders", "no limit is set", "not known yet"},
		},
		"parked": {
			stats: func(step int) pipeline.Stats {
				s := streaming(step)
				s.ParkedRows, s.ParkedAggregates = 1204, 3
				return s
			},
			says: []string{"streaming", "Events flow, but:", "rows parked", ", of 3 aggregates", "outboxcdc dlq list"},
		},
		"hostile": {
			stats: func(int) pipeline.Stats {
				return pipeline.Stats{State: pipeline.Retrying, Reason: "<img src=x onerror=document.title=1>", LastError: "<b id=planted>", LastErrorTime: at}
			},
			says: []string{"retrying", "&lt;img src=x", "&lt;b id=planted&gt;"},
		},
	}
}

// page serves a scene after a quarter of an hour of it.
func page(tb testing.TB, s scene) (url string) {
	tb.Helper()
	step := 0
	sampler := newSampler("orders", func() pipeline.Stats { return s.stats(step) })
	began := time.Now().Add(-samplesKept * sampleInterval)
	for ; step < samplesKept; step++ {
		sampler.take(began.Add(time.Duration(step) * sampleInterval))
	}
	server := httptest.NewServer(newHandler(sampler))
	tb.Cleanup(server.Close)
	return server.URL
}

func TestThePageSaysWhatTheStreamIsDoing(t *testing.T) {
	if *screens != "" {
		if err := os.MkdirAll(*screens, 0o755); err != nil { //nolint:gosec // pictures, for everybody
			t.Fatal(err)
		}
	}
	for name, s := range scenes() {
		t.Run(name, func(t *testing.T) {
			url := page(t, s)
			dom := chromium(t, "--dump-dom", url)
			for _, text := range s.says {
				if !strings.Contains(dom, text) {
					t.Errorf("the page does not say %q:\n%s", text, dom)
				}
			}
			if *screens == "" {
				return
			}
			for view, args := range map[string][]string{
				"light": {"--window-size=1200,900"},
				"dark":  {"--window-size=1200,900", "--force-dark-mode", "--blink-settings=preferredColorScheme=0"},
				"phone": {"--window-size=500,1500"},
			} {
				path := filepath.Join(*screens, name+"-"+view+".png")
				chromium(t, append(args, "--screenshot="+path, url)...)
				if info, err := os.Stat(path); err != nil || info.Size() == 0 {
					t.Errorf("no screenshot: %v", err)
				}
			}
		})
	}
}

func TestThePageSaysThatTheProcessIsGone(t *testing.T) {
	// The page itself comes from a server that does not know the stream.
	files := httptest.NewServer(http.FileServerFS(os.DirFS("page")))
	defer files.Close()
	dom := chromium(t, "--dump-dom", files.URL)
	if !strings.Contains(dom, "no answer") || !strings.Contains(dom, "has not answered for") {
		t.Errorf("the page does not say that nobody answers:\n%s", dom)
	}
}
