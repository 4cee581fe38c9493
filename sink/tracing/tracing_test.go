package tracing_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	wire "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/sink/tracing"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	parent  = "b7ad6b7169203331"
	sampled = "00-" + traceID + "-" + parent + "-01"
	not     = "00-" + traceID + "-" + parent + "-00"
)

// receiver takes spans as a collector does, by OTLP over HTTP.
type receiver struct {
	mu     sync.Mutex
	status int
	spans  []*wire.Span
	names  []string // of services
	raw    bytes.Buffer
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(request.Body)
	var export collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &export)
	}
	if err != nil || request.URL.Path != "/v1/traces" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if r.status != 0 {
		w.WriteHeader(r.status)
		return
	}
	r.raw.Write(body)
	for _, of := range export.GetResourceSpans() {
		for _, a := range of.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				r.names = append(r.names, a.GetValue().GetStringValue())
			}
		}
		for _, scope := range of.GetScopeSpans() {
			r.spans = append(r.spans, scope.GetSpans()...)
		}
	}
}

// broker is a sink that acks when the test says so.
type broker struct {
	sent []sink.Message
	acks []sink.Ack
	err  error
}

func (b *broker) Send(_ context.Context, msgs []sink.Message, ack sink.Ack) error {
	if b.err != nil {
		return b.err
	}
	b.sent = append(b.sent, msgs...)
	for range msgs {
		b.acks = append(b.acks, ack)
	}
	return nil
}
func (b *broker) Flush(context.Context) error { return nil }
func (b *broker) Close() error                { return nil }
func (b *broker) Stalled() string             { return "the disk is full" }
func (b *broker) Unreached() string           { return "nobody is there" }

func messageOf(key, traceparent string) sink.Message {
	m := sink.Message{Topic: "orders", Key: []byte(key), Value: []byte("s3cret"), Headers: []sink.Header{{Key: "id", Value: []byte("e-" + key)}}}
	if traceparent != "" {
		m.Headers = append(m.Headers, sink.Header{Key: "tracestate", Value: []byte("a=b")}, sink.Header{Key: "traceparent", Value: []byte(traceparent)})
	}
	m.Headers = append(m.Headers, sink.Header{Key: "outboxcdc-position", Value: []byte("00000000016B3748/3")})
	return m
}

func tracerTo(t *testing.T, r *receiver) (*tracing.Tracer, *bytes.Buffer) {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	t.Setenv("OTEL_SERVICE_NAME", "")
	var log bytes.Buffer
	tracer, err := tracing.New(t.Context(), environment(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL}),
		"v1", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return tracer, &log
}

func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

func textOf(s *wire.Span) map[string]string {
	attributes := map[string]string{}
	for _, a := range s.GetAttributes() {
		attributes[a.GetKey()] = a.GetValue().GetStringValue()
	}
	delete(attributes, "messaging.message.body.size")
	return attributes
}

func TestASampledTraceGoesOnInASpanThatEndsWithTheAck(t *testing.T) {
	r, under := &receiver{}, &broker{}
	tracer, _ := tracerTo(t, r)
	s := tracer.Wrap(under, "kafka")
	msgs := []sink.Message{messageOf("s3cret-1", ""), messageOf("s3cret-2", sampled), messageOf("s3cret-3", not), messageOf("s3cret-4", "no trace at all"), messageOf("s3cret-5", sampled)}
	acked := 0
	if err := s.Send(t.Context(), msgs, func(error) { acked++ }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(msgs, under.sent); diff != "" {
		t.Errorf("messages on their way (-want +got):\n%s", diff)
	}
	for i, ack := range under.acks {
		ack([]error{nil, nil, nil, nil, fault.NewOperator(errors.New("s3cret"), "")}[i])
	}
	tracer.Close(t.Context())
	if acked != len(msgs) || len(r.spans) != 2 {
		t.Fatalf("%d acks and %d spans, want %d and 2", acked, len(r.spans), len(msgs))
	}
	want := map[string]string{
		"messaging.system": "kafka", "messaging.operation.type": "send", "messaging.operation.name": "send",
		"messaging.destination.name": "orders", "messaging.message.id": "e-s3cret-2", "outboxcdc.position": "00000000016B3748/3",
	}
	good, bad := r.spans[0], r.spans[1]
	if diff := cmp.Diff(want, textOf(good)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if id := hexOf(good.GetTraceId()) + "/" + hexOf(good.GetParentSpanId()); id != traceID+"/"+parent || good.GetTraceState() != "a=b" {
		t.Errorf("the span continues %s with state %q", id, good.GetTraceState())
	}
	if good.GetFlags() != 0x301 || good.GetStartTimeUnixNano() == 0 || good.GetEndTimeUnixNano() < good.GetStartTimeUnixNano() {
		t.Errorf("the span has flags %#x and goes from %d to %d", good.GetFlags(), good.GetStartTimeUnixNano(), good.GetEndTimeUnixNano())
	}
	if good.GetKind() != wire.Span_SPAN_KIND_PRODUCER || good.GetName() != "send orders" || good.GetStatus().GetCode() != wire.Status_STATUS_CODE_UNSET {
		t.Errorf("the span is %v", good)
	}
	if bad.GetStatus().GetCode() != wire.Status_STATUS_CODE_ERROR || textOf(bad)["error.type"] != "operator" {
		t.Errorf("the span of a failure is %v", bad)
	}
	if raw := bytes.ReplaceAll(r.raw.Bytes(), []byte("e-s3cret"), nil); bytes.Contains(raw, []byte("s3cret")) {
		t.Error("a key, a payload or an error's text was exported")
	}
	if len(r.names) == 0 || r.names[0] != "outboxcdc" {
		t.Errorf("the service is %q", r.names)
	}
}

func hexOf(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteString(string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15]))
	}
	return s.String()
}

// An exporter that fails stops and delays nothing, and says so without a flood.
func TestACollectorThatFailsNeverTouchesTheStream(t *testing.T) {
	r, under := &receiver{status: http.StatusBadRequest}, &broker{}
	tracer, log := tracerTo(t, r)
	s := tracer.Wrap(under, "amqp")
	const all = 5000 // more than is held of spans
	acked := 0
	for range all {
		if err := s.Send(t.Context(), []sink.Message{messageOf("k", sampled)}, func(error) { acked++ }); err != nil {
			t.Fatal(err)
		}
	}
	for _, ack := range under.acks {
		ack(nil)
	}
	tracer.Close(t.Context())
	if len(under.sent) != all || acked != all {
		t.Errorf("%d messages were sent and %d acked, want all %d", len(under.sent), acked, all)
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 2 {
		t.Errorf("%d lines are logged, want one or two:\n%s", n, log)
	}
}

func TestASendThatFailsEndsItsSpan(t *testing.T) {
	r, under := &receiver{}, &broker{err: fault.NewOperator(errors.New("closed"), "")}
	tracer, _ := tracerTo(t, r)
	s := tracer.Wrap(under, "stdout")
	if err := s.Send(t.Context(), []sink.Message{messageOf("k", sampled)}, func(error) {}); !errors.Is(err, under.err) {
		t.Errorf("Send gives %v, want the sink's own error", err)
	}
	tracer.Close(t.Context())
	if len(r.spans) != 1 || r.spans[0].GetStatus().GetCode() != wire.Status_STATUS_CODE_ERROR {
		t.Errorf("spans %v, want one that failed", r.spans)
	}
}

// While the broker is away, messages gather by the thousand; their spans do not. When it
// is back, there are spans again.
func TestSpansDoNotGatherWhileTheBrokerIsAway(t *testing.T) {
	r, under := &receiver{}, &broker{}
	tracer, _ := tracerTo(t, r)
	s := tracer.Wrap(under, "kafka")
	const most, all = 2048, 5000
	msgs := make([]sink.Message, all)
	for i := range msgs {
		msgs[i] = messageOf("k", sampled)
	}
	acked := 0
	for _, each := range [][]sink.Message{msgs, msgs[:1]} {
		if err := s.Send(t.Context(), each, func(error) { acked++ }); err != nil {
			t.Fatal(err)
		}
		for _, ack := range under.acks {
			ack(nil)
		}
		under.acks = nil
	}
	tracer.Close(t.Context())
	if len(under.sent) != all+1 || acked != all+1 {
		t.Errorf("%d messages were sent and %d acked, want %d", len(under.sent), acked, all+1)
	}
	if len(r.spans) == 0 || len(r.spans) > most+1 {
		t.Errorf("%d spans were made, want %d at the most", len(r.spans), most+1)
	}
}

// One row cannot spoil the spans of others, or make them large.
func TestASpanTakesLittleOfARow(t *testing.T) {
	r, under := &receiver{}, &broker{}
	tracer, _ := tracerTo(t, r)
	m := messageOf("k", sampled)
	m.Topic = "orders\xff"
	m.Headers[0].Value = bytes.Repeat([]byte("ü"), 1000)
	m.Headers[1].Value = []byte("a=" + strings.Repeat("b", 250) + ",c=" + strings.Repeat("d", 250) + ",e=" + strings.Repeat("f", 250))
	if err := tracer.Wrap(under, "kafka").Send(t.Context(), []sink.Message{m}, func(error) {}); err != nil {
		t.Fatal(err)
	}
	under.acks[0](nil)
	tracer.Close(t.Context())
	if len(r.spans) != 1 {
		t.Fatalf("%d spans, want one", len(r.spans))
	}
	got := textOf(r.spans[0])
	if id := got["messaging.message.id"]; id != strings.Repeat("ü", 127) || r.spans[0].GetName() != "send orders" || r.spans[0].GetTraceState() != "" {
		t.Errorf("the span has a name of %q, %d bytes of id and %d of state", r.spans[0].GetName(), len(id), len(r.spans[0].GetTraceState()))
	}
	if diff := cmp.Diff([]sink.Message{m}, under.sent); diff != "" {
		t.Errorf("the message on its way (-want +got):\n%s", diff)
	}
}

func TestATracedSinkStillSaysThatItIsStalled(t *testing.T) {
	tracer, _ := tracerTo(t, &receiver{})
	defer tracer.Close(t.Context())
	s := tracer.Wrap(&broker{}, "amqp")
	staller, ok := s.(sink.Staller)
	if !ok || staller.Stalled() != "the disk is full" {
		t.Error("why the broker takes nothing is not passed on")
	}
	seeker, ok := s.(sink.Seeker)
	if !ok || seeker.Unreached() != "nobody is there" {
		t.Error("that no broker is reached is not passed on")
	}
	judge, ok := s.(sink.Judge)
	if !ok {
		t.Fatal("it judges nothing")
	}
	if n, err := judge.Judge(t.Context(), make([]sink.Message, 3)); n != 3 || err != nil {
		t.Errorf("a sink without judgement takes %d, %v", n, err)
	}
}
