package test

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/outboxcdc/outboxcdc/test/servers"
)

// spanCollector takes spans and notes them as name, trace and parent.
type spanCollector struct {
	mu    sync.Mutex
	spans []string
}

func (c *spanCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var export collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &export) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range export.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, fmt.Sprintf("%s %s %s", s.GetName(), hex.EncodeToString(s.GetTraceId()), hex.EncodeToString(s.GetParentSpanId())))
			}
		}
	}
}

func (c *spanCollector) seen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.spans, ", ")
}

// TestATraceGoesOnThroughTheOutbox: the record has the row's traceparent, the collector a
// span that continues it; and when the collector dies, events flow as if it were there.
func TestATraceGoesOnThroughTheOutbox(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	c := new(spanCollector)
	server := httptest.NewServer(c)
	defer server.Close()
	cmd := exec.Command(binaryPath(t), append([]string{
		"stream", "--sink", "kafka://" + strings.Join(l.kafka.Bootstrap(), ","), "--topic", l.topic, "--http", "off",
	}, l.flags...)...)
	cmd.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT="+server.URL, "OTEL_BSP_SCHEDULE_DELAY=100")
	s := begin(t, cmd)

	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	const traced = `insert into outbox (aggregate_type, aggregate_id, event_type, payload, headers)
		select 'order', 'a' || n % 7, 'raised', '{}', '{"traceparent": "00-` + trace + "-" + parent + `-01"}' from generate_series(1, $1) n`
	l.exec(t, traced, 1)
	l.insert(t, "a1", "{}") // of no trace
	records := l.kafka.AwaitRecords(t, l.topic, 2, time.Minute)
	if got, want := headerOf(t, records[0], "traceparent"), "00-"+trace+"-"+parent+"-01"; got != want {
		t.Errorf("the record's traceparent is %q, want the row's %q", got, want)
	}
	want := "send " + l.topic + " " + trace + " " + parent
	eventually(t, time.Minute, "the collector has the span", func() bool { return c.seen() == want })

	server.CloseClientConnections()
	server.Close()
	const more = 5000 // beyond what is held of spans
	l.exec(t, traced, more)
	l.kafka.AwaitRecords(t, l.topic, 2+more, time.Minute)
	if status := s.stop(t); status != 0 || strings.Contains(s.log.String(), "session ended") {
		t.Errorf("exit status %d after SIGTERM with a dead collector, want 0 and one session:\n%s", status, s.log)
	}
	if n := strings.Count(s.log.String(), "spans"); n == 0 || n > 2 {
		t.Errorf("lost spans are logged %d times, want once or twice", n)
	}
	if got := c.seen(); got != want {
		t.Errorf("the spans are %s, want only %s", got, want)
	}
}
