package tracing

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/outboxcdc/outboxcdc/sink"
)

// answers is a collector that gives one answer after the other; the last one for ever.
// The answer 0 is none.
type answers struct {
	codes  []int
	header http.Header
	body   []byte
	asked  []time.Duration // when
	began  time.Time
}

func (a *answers) RoundTrip(request *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, time.Since(a.began).Round(time.Second))
	code := a.codes[0]
	if len(a.codes) > 1 {
		a.codes = a.codes[1:]
	}
	if code == 0 {
		<-request.Context().Done()
		return nil, request.Context().Err()
	}
	return &http.Response{StatusCode: code, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)), Request: request}, nil
}

func collectorOf(a *answers) *collector {
	a.began = time.Now()
	client := clientOf(nil)
	client.Transport = a
	return newCollector(client, "http://collector/s3cret", http.Header{})
}

func TestAnExportIsTriedAgainOnlyWhereThatHelps(t *testing.T) {
	refused, err := proto.Marshal(&v1.ExportTraceServiceResponse{PartialSuccess: &v1.ExportTracePartialSuccess{ErrorMessage: "s3cret", RejectedSpans: 7}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		codes  []int
		header http.Header
		body   []byte
		tries  int
		within time.Duration
		want   string
	}{
		"it takes them":          {[]int{200}, nil, nil, 1, 0, ""},
		"it was busy":            {[]int{503, 429, 200}, nil, nil, 3, 3 * time.Second, ""},
		"it says when":           {[]int{503, 200}, http.Header{"Retry-After": {"4"}}, nil, 2, 5 * time.Second, ""},
		"it says when, too late": {[]int{503, 200}, http.Header{"Retry-After": {"4000000000"}}, nil, 1, 0, "answers 503"},
		"it stays busy":          {[]int{503}, nil, nil, 5, 10 * time.Second, "answers 503"},
		"it wants none":          {[]int{400, 200}, nil, nil, 1, 0, "answers 400"},
		"it sends us elsewhere":  {[]int{307, 200}, http.Header{"Location": {"http://elsewhere/"}}, nil, 1, 0, "answers 307"},
		"it wants fewer":         {[]int{200}, nil, refused, 1, 0, "refused 7 spans"},
		"its answer is nonsense": {[]int{200}, nil, []byte("ok"), 1, 0, ""},
		"it says nothing":        {[]int{0}, nil, nil, 1, 10 * time.Second, context.DeadlineExceeded.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{codes: c.codes, header: c.header, body: c.body}
				err := collectorOf(a).ExportSpans(t.Context(), tracetest.SpanStubs{{Name: "one"}}.Snapshots())
				if len(a.asked) != c.tries || time.Since(a.began) > c.within {
					t.Errorf("%d tries in %v, at %v; want %d within %v", len(a.asked), time.Since(a.began), a.asked, c.tries, c.within)
				}
				if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret")) {
					t.Errorf("it says %v, want %q and nothing of URL or answer", err, c.want)
				}
			})
		})
	}
}

// lazy is a sink that acks at once.
type lazy struct{ sent int }

func (l *lazy) Send(_ context.Context, msgs []sink.Message, ack sink.Ack) error {
	for range msgs {
		l.sent++
		ack(nil)
	}
	return nil
}
func (*lazy) Flush(context.Context) error { return nil }
func (*lazy) Close() error                { return nil }

// In simulated time, waiting for the collector would show.
func TestNothingWaitsForACollectorThatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracer, err := start(t.Context(), collectorOf(&answers{codes: []int{0}}), "v1", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		began, under := time.Now(), &lazy{}
		s := tracer.Wrap(under, "kafka")
		const all = 10_000
		for range all {
			m := sink.Message{Topic: "orders", Headers: []sink.Header{{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}}}
			if err := s.Send(t.Context(), []sink.Message{m}, func(error) {}); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(began); waited != 0 || under.sent != all {
			t.Errorf("%d of %d messages were sent after %v, want all at once", under.sent, all, waited)
		}
		tracer.Close(t.Context())
		if took := time.Since(began); took > lastExport {
			t.Errorf("the end took %v, want %v at the most", took, lastExport)
		}
		synctest.Wait()
	})
}

// FuzzAnswer: whatever a collector answers is read without harm.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0x0a, 0x02, 0x08, 0x07})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, body []byte) {
		n := rejected(body)
		var answer v1.ExportTraceServiceResponse
		if proto.Unmarshal(body, &answer) == nil && n > 0 && answer.GetPartialSuccess() == nil {
			t.Errorf("%d spans are refused by %s", n, cmp.Diff("", answer.String()))
		}
	})
}

var _ sdktrace.SpanExporter = (*collector)(nil)
