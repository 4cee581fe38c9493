// Package tracing tells OpenTelemetry of messages on their way to a broker. It knows
// messages and spans. It does not know rows, brokers or positions, and nothing waits for
// it: a span that cannot be exported is lost, and the message goes on.
//
// A message whose header traceparent (W3C Trace Context) says that its trace is sampled
// gets a span from when it is handed to the sink to when the broker holds it. Any other
// gets none. Headers are sent as they are. A span never holds a key or a payload.
package tracing

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/outboxcdc/outboxcdc/sink"
)

// ours names who makes the spans.
const ours = "github.com/outboxcdc/outboxcdc"

// lastExport bounds how long Close exports what is left.
const lastExport = 3 * time.Second

// mostOpen is how many spans wait for acks at a time; what is sent beyond that has none.
// A broker that is away would otherwise let as many gather as there are small messages
// in the sink's buffer, and a span takes several times what such a message does.
const mostOpen = 2048

// Tracer makes spans and exports them in the background. It is used by any goroutine.
//
// What it holds is bounded: mostOpen spans whose messages are not acked, and the queue of
// OpenTelemetry's batcher (OTEL_BSP_MAX_QUEUE_SIZE, 2048), which takes a span without
// waiting or drops it. What a span takes of a row is cut to a few hundred bytes.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	to       *collector
	logger   *slog.Logger
	open     atomic.Int64 // spans whose messages are not acked
}

// New makes a Tracer, or none when the environment does not ask for one. getenv reads the
// environment. Where to, with which headers and certificates, and how much at once, is
// taken from there under the names of OpenTelemetry's specification
// (OTEL_EXPORTER_OTLP_…; the SDK itself reads OTEL_BSP_…, OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES). It connects to nothing yet. An error means that the
// environment makes no sense, and repeats no value of it.
func New(ctx context.Context, getenv func(string) string, version string, logger *slog.Logger) (*Tracer, error) {
	if !wanted(getenv) {
		return nil, nil
	}
	to, err := readCollector(getenv, version)
	if err != nil {
		return nil, err
	}
	return start(ctx, to, version, logger)
}

// start makes a Tracer that exports to a collector.
func start(ctx context.Context, to *collector, version string, logger *slog.Logger) (*Tracer, error) {
	described, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName("outboxcdc"), semconv.ServiceVersion(version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, errors.New("OTEL_RESOURCE_ATTRIBUTES is no list of name=value, with commas in between and values escaped as in a URL")
	}
	otel.SetErrorHandler(&complaints{logger: logger})
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(to), // which drops what it cannot hold
		sdktrace.WithResource(described),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	return &Tracer{
		provider: provider,
		tracer:   provider.Tracer(ours, trace.WithInstrumentationVersion(version)),
		to:       to,
		logger:   logger,
	}, nil
}

// Wrap makes spans for what goes to s, which is a sink of system, the scheme of its URL.
// Messages with a span go to s in calls of Send of their own, because an ack does not
// say which message it is for.
func (t *Tracer) Wrap(s sink.Sink, system string) sink.Sink {
	return &traced{Sink: s, from: t, common: commonOf(system)}
}

// Close exports what is left, for three seconds at the most.
func (t *Tracer) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastExport)
	defer cancel()
	defer t.to.hangUp()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.logger.WarnContext(ctx, "spans were lost", slog.String("error", err.Error()))
	}
}

// complaints logs what goes wrong with spans, once a minute.
type complaints struct {
	logger *slog.Logger

	mu   sync.Mutex
	last time.Time
}

const complainEvery = time.Minute

// Handle is otel.ErrorHandler's.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	quiet := time.Since(c.last) < complainEvery
	if !quiet {
		c.last = time.Now()
	}
	c.mu.Unlock()
	if !quiet {
		c.logger.Warn("spans are lost; the stream goes on", slog.String("error", err.Error()))
	}
}
