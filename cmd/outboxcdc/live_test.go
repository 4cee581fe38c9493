package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

func TestSamplesCoverAQuarterOfAnHourAndNoMore(t *testing.T) {
	var stats pipeline.Stats
	s := newSampler("orders", func() pipeline.Stats { return stats })
	at := time.Unix(1_700_000_000, 0)
	for step := range samplesKept + 5 {
		stats.Rows = uint64(step * 100)
		stats.Confirmed, stats.Read = 1000, wal.LSN(1000+step)
		s.take(at.Add(time.Duration(step) * sampleInterval))
	}
	got := s.live(at).Samples
	if len(got) != samplesKept {
		t.Fatalf("%d samples, want %d", len(got), samplesKept)
	}
	last := got[samplesKept-1]
	if last.RowsPerSecond != 50 || last.BehindBytes != samplesKept+4 {
		t.Errorf("the last sample is %+v, want 50 rows a second and %d bytes behind", last, samplesKept+4)
	}
}

func TestEachErrorIsKeptOnceAndTheLatestAreKept(t *testing.T) {
	var stats pipeline.Stats
	s := newSampler("orders", func() pipeline.Stats { return stats })
	at := time.Unix(1_700_000_000, 0)
	for step := range errorsKept + 3 {
		stats.LastError, stats.LastErrorTime = strings.Repeat("x", step+1), at.Add(time.Duration(step)*time.Second)
		s.take(stats.LastErrorTime)
		s.take(stats.LastErrorTime.Add(time.Millisecond))
	}
	got := s.live(at).Errors
	if len(got) != errorsKept || len(got[0].Text) != errorsKept+3 || len(got[1].Text) != errorsKept+2 {
		t.Errorf("%d errors, the latest two of %d and %d letters; want %d, of %d and %d",
			len(got), len(got[0].Text), len(got[1].Text), errorsKept, errorsKept+3, errorsKept+2)
	}
}

// at is a moment of a stream whose page is looked at.
func at(tb testing.TB, stats pipeline.Stats) *httptest.Server {
	tb.Helper()
	server := httptest.NewServer(newHandler(newSampler("orders", func() pipeline.Stats { return stats })))
	tb.Cleanup(server.Close)
	return server
}

func TestTheChainOfThePageIsThatOfTheStream(t *testing.T) {
	server := at(t, pipeline.Stats{State: pipeline.Streaming, Read: 100, Sent: 90, Acked: 70, Saved: 40, Slot: wal.Slot{SafeBytes: -1}})
	response, err := http.Get(server.URL + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	var got live
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	var behind []uint64
	for _, place := range got.Positions {
		behind = append(behind, place.Behind)
	}
	if want := []uint64{0, 10, 20, 30, 0}; len(behind) != 5 || behind[1] != want[1] || behind[2] != want[2] || behind[3] != want[3] || behind[4] != 0 {
		t.Errorf("the gaps are %v, want %v: what is not known has none", behind, want)
	}
	if !got.Ready || got.SafeBytes != nil || got.LookedAt != nil || got.LastCommit != nil {
		t.Errorf("ready %v, safe %v, looked at %v, last commit %v; want true and three times nothing", got.Ready, got.SafeBytes, got.LookedAt, got.LastCommit)
	}
}

func TestThePageLoadsNothingFromElsewhere(t *testing.T) {
	server := at(t, pipeline.Stats{})
	for _, path := range []string{"/", "/page.css", "/page.js", "/icon.svg", "/status"} {
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close() //nolint:errcheck // only the head counts
		policy := response.Header.Get("Content-Security-Policy")
		if response.StatusCode != http.StatusOK || !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("GET %s: %d with policy %q", path, response.StatusCode, policy)
		}
	}
}

func TestTopShowsWhatThePageShows(t *testing.T) {
	server := at(t, pipeline.Stats{
		State: pipeline.Retrying, Reason: "connect to kafka at b1:9092: refused", Read: 0x2A_0000_1000, Sent: 0x2A_0000_1000, Acked: 0x2A_0000_0800,
		Saved: 0x2A_0000_0800, Confirmed: 0x2A_0000_0400, Rows: 12, Sessions: 3, LastError: "the link broke", LastErrorTime: time.Now(),
		Slot: wal.Slot{RetainedBytes: 3 << 20, SafeBytes: 1 << 30}, SlotLookedAt: time.Now(),
	})
	got := outboxcdc(t, nil, "top", "--once", "--http", strings.TrimPrefix(server.URL, "http://"))
	for _, text := range []string{
		"orders", "RETRYING", "connect to kafka at b1:9092: refused", "acked      2A/800", "2.0 KiB behind", "3.0 MiB, 1.0 GiB left",
		"12, in 3 sessions", "the link broke",
	} {
		if !strings.Contains(got.out, text) {
			t.Errorf("top does not say %q:\n%s%s", text, got.out, got.err)
		}
	}
}

func TestTopSaysWhatItCannotReach(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for address, want := range map[string]int{
		"127.0.0.1:1": fault.ExitTransient, strings.TrimPrefix(other.URL, "http://"): fault.ExitUsage, "off": fault.ExitUsage, "here": fault.ExitUsage,
	} {
		got := outboxcdc(t, nil, "top", "--once", "--http", address)
		if got.exit != want || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, "--http") {
			t.Errorf("top --http %s: exit %d, want %d and one line:\n%s", address, got.exit, want, got.err)
		}
	}
}

func TestSparksShowTheLargestOfEachColumn(t *testing.T) {
	samples := make([]sample, 80)
	samples[79].RowsPerSecond = 7
	if got := spark(samples, func(s sample) float64 { return s.RowsPerSecond }); got != strings.Repeat("▁", 39)+"█" {
		t.Errorf("a peak at the end is drawn as %s", got)
	}
}
