package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// ask gives what the handler answers for these stats.
func ask(tb testing.TB, s pipeline.Stats, method, path string) (status int, body string) {
	tb.Helper()
	handler := newHandler(newSampler("orders", func() pipeline.Stats { return s }))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(method, path, http.NoBody))
	return w.Code, w.Body.String()
}

func TestReadyMeansStreamingOrStandingBy(t *testing.T) {
	for state, want := range map[pipeline.State]int{
		pipeline.Starting:  http.StatusServiceUnavailable,
		pipeline.Standby:   http.StatusOK,
		pipeline.Streaming: http.StatusOK,
		pipeline.Retrying:  http.StatusServiceUnavailable,
		pipeline.Draining:  http.StatusServiceUnavailable,
		pipeline.Stopped:   http.StatusServiceUnavailable,
		pipeline.Failed:    http.StatusServiceUnavailable,
		"":                 http.StatusServiceUnavailable,
	} {
		got, body := ask(t, pipeline.Stats{State: state, Reason: "because"}, http.MethodGet, "/readyz")
		if got != want || body != string(state)+": because\n" {
			t.Errorf("%q: %d %q, want %d with the state and its reason", state, got, body, want)
		}
	}
}

func TestABrokerThatAsksToWaitIsNotReady(t *testing.T) {
	got, body := ask(t, pipeline.Stats{State: pipeline.Streaming, Stalled: "the broker takes nothing for now: low on memory"}, http.MethodGet, "/readyz")
	if got != http.StatusServiceUnavailable || !strings.Contains(body, "low on memory") {
		t.Errorf("%d %q, want 503 with the reason", got, body)
	}
}

func TestAliveMeansTheProcessOnly(t *testing.T) {
	for _, state := range states() {
		if got, _ := ask(t, pipeline.Stats{State: state}, http.MethodGet, "/livez"); got != http.StatusOK {
			t.Errorf("%s: %d, want 200: an outage of Postgres or the broker is no reason for a restart", state, got)
		}
	}
}

func TestNothingButGetIsAnswered(t *testing.T) {
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/", "/status", "/page.js"} {
		if got, _ := ask(t, pipeline.Stats{}, http.MethodGet, path); got == http.StatusNotFound {
			t.Errorf("GET %s: %d", path, got)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			if got, _ := ask(t, pipeline.Stats{}, method, path); got != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want 405", method, path, got)
			}
		}
	}
	for _, path := range []string{"/debug/pprof/", "/metrics/x", "/index.htm", "/page"} {
		if got, _ := ask(t, pipeline.Stats{}, http.MethodGet, path); got != http.StatusNotFound {
			t.Errorf("GET %s: %d, want 404", path, got)
		}
	}
}

func TestMetricsSayWhatStatsSays(t *testing.T) {
	at := time.Unix(4_000_000_000, 250_000_000) // ahead, so that the lag is what an event has waited
	stats := pipeline.Stats{
		State: pipeline.Streaming,
		Read:  0x1_0000_0050, Sent: 0x1_0000_0040, Acked: 0x1_0000_0030, Saved: 0x1_0000_0020, Confirmed: 0x1_0000_0010,
		Rows: 7, Bytes: 900, Sessions: 2, Skipped: 4, ParkedRows: 6, ParkedAggregates: 2,
		LastCommit: at, LastErrorTime: at,
		Waiting: 1500 * time.Millisecond, InFlightBytes: 4711, InFlightRows: 12, LogEnd: 0x1_0000_1010,
		Topics: []pipeline.TopicCount{{Topic: "outbox.event.order", Messages: 5, Bytes: 600}, {Messages: 2, Bytes: 200}},
		Broken: map[fault.Class]uint64{fault.Transient: 3},
		CommitToAck: pipeline.Latency{
			Bounds: []time.Duration{time.Millisecond, time.Second}, Counts: []uint64{2, 5}, Count: 7, Sum: 3 * time.Second,
		},
		Slot: wal.Slot{RetainedBytes: 4096, SafeBytes: 8192}, SlotLookedAt: at,
	}
	golden(t, "metrics.txt", exposition(t, stats))
	problems, err := testutil.CollectAndLint(newCollector("orders", func() pipeline.Stats { return stats }))
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestWhatIsNotKnownIsAbsentFromMetrics(t *testing.T) {
	text := exposition(t, pipeline.Stats{State: pipeline.Starting, Slot: wal.Slot{SafeBytes: -1}})
	for _, name := range []string{"position_bytes", "slot_retained", "slot_safe", "slot_look", "last_commit", "last_error", "lag_", "topic_"} {
		if strings.Contains(text, "outboxcdc_"+name) {
			t.Errorf("%s is given although it is not known:\n%s", name, text)
		}
	}
}

// exposition is what a scrape gives of ours, but for the version.
func exposition(tb testing.TB, s pipeline.Stats) string {
	tb.Helper()
	_, body := ask(tb, s, http.MethodGet, "/metrics")
	var ours strings.Builder
	for line := range strings.Lines(body) {
		if strings.Contains(line, "outboxcdc_") && !strings.Contains(line, "outboxcdc_build_info") {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

func TestASlotWithoutALimitIsNotInDanger(t *testing.T) {
	text := exposition(t, pipeline.Stats{SlotLookedAt: time.Unix(1, 0), Slot: wal.Slot{RetainedBytes: 5, SafeBytes: -1}})
	if !strings.Contains(text, "outboxcdc_slot_retained_bytes") || strings.Contains(text, "outboxcdc_slot_safe_bytes") {
		t.Errorf("a slot without a limit is given as:\n%s", text)
	}
}

func TestATakenPortIsNamedWithTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // nobody connected
	address := taken.Addr().String()
	got := outboxcdc(t, nil, "stream", "--slot", "orders", "--sink", "stdout://", "--http", address)
	if got.exit != fault.ExitOperator || strings.Count(got.err, "\n") != 1 ||
		!strings.Contains(got.err, address) || !strings.Contains(got.err, "--http") {
		t.Errorf("exit %d, stderr:\n%s", got.exit, got.err)
	}
}

func TestTheListenerAnswersUntilItIsHungUp(t *testing.T) {
	handler := newHandler(newSampler("orders", func() pipeline.Stats { return pipeline.Stats{State: pipeline.Streaming} }))
	var address string
	logger := slog.New(slog.NewTextHandler(writer(func(line string) {
		_, address, _ = strings.Cut(strings.TrimSpace(line), "http=")
	}), nil))
	hangUp, err := listen(t.Context(), "127.0.0.1:0", handler, logger)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp()
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), `outboxcdc_state{slot="orders",state="streaming"} 1`) ||
		!strings.Contains(string(body), "go_goroutines") {
		t.Errorf("/metrics gave %v:\n%s", err, body)
	}
	hangUp()
	if conn, err := net.Dial("tcp", address); err == nil {
		t.Error("the listener answers after it was hung up")
		conn.Close()
	}
}

// writer gives each line to a function.
type writer func(line string)

func (w writer) Write(b []byte) (int, error) {
	w(string(b))
	return len(b), nil
}

func TestAddressesAreCheckedBeforeTheyAreUsed(t *testing.T) {
	got := outboxcdc(t, nil, "stream", "--slot", "orders", "--sink", "stdout://", "--http", "9180")
	want := "outboxcdc: --http is not an address: write host:port such as 127.0.0.1:9180, :port for all interfaces, or off\n"
	if diff := cmp.Diff(want, got.err); diff != "" || got.exit != fault.ExitUsage {
		t.Errorf("exit %d (-want +got):\n%s", got.exit, diff)
	}
}
