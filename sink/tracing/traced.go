package tracing

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

// traced is a sink whose messages of sampled traces have spans.
type traced struct {
	sink.Sink

	from   *Tracer
	common []attribute.KeyValue
}

// commonOf are the attributes of every span (OpenTelemetry's semantic conventions for
// messaging). A sink that is no messaging system has no name there.
func commonOf(system string) []attribute.KeyValue {
	common := []attribute.KeyValue{semconv.MessagingOperationTypeSend, semconv.MessagingOperationName("send")}
	switch system {
	case "kafka":
		common = append(common, semconv.MessagingSystemKafka)
	case "amqp", "amqps":
		common = append(common, semconv.MessagingSystemRabbitMQ)
	}
	return common
}

// Send is Sink's.
func (t *traced) Send(ctx context.Context, msgs []sink.Message, ack sink.Ack) error {
	from := 0
	for i := range msgs {
		parent, sampled := parentOf(&msgs[i])
		if !sampled {
			continue
		}
		if err := t.sendUntraced(ctx, msgs[from:i], ack); err != nil {
			return err
		}
		if err := t.sendTraced(ctx, msgs[i:i+1], parent, ack); err != nil {
			return err
		}
		from = i + 1
	}
	return t.sendUntraced(ctx, msgs[from:], ack)
}

func (t *traced) sendUntraced(ctx context.Context, msgs []sink.Message, ack sink.Ack) error {
	if len(msgs) == 0 {
		return nil
	}
	return t.Sink.Send(ctx, msgs, ack)
}

// sendTraced sends one message. Its span ends before its ack, behind which the message's
// bytes are another's.
func (t *traced) sendTraced(ctx context.Context, msg []sink.Message, parent trace.SpanContext, ack sink.Ack) error {
	if t.from.open.Add(1) > mostOpen {
		t.from.open.Add(-1)
		return t.Sink.Send(ctx, msg, ack)
	}
	span := t.begin(ctx, &msg[0], parent)
	var once sync.Once // a message that was not taken has no ack
	settle := func(err error) {
		once.Do(func() {
			end(span, err)
			t.from.open.Add(-1)
		})
	}
	err := t.Sink.Send(ctx, msg, func(err error) {
		settle(err)
		ack(err)
	})
	if err != nil {
		settle(err)
	}
	return err
}

func (t *traced) begin(ctx context.Context, m *sink.Message, parent trace.SpanContext) trace.Span {
	topic := text(m.Topic)
	attributes := append(slices.Clip(t.common),
		semconv.MessagingDestinationName(topic), semconv.MessagingMessageBodySize(len(m.Value)))
	for i := range m.Headers {
		switch h := &m.Headers[i]; h.Key {
		case "id", "ce_id":
			attributes = append(attributes, semconv.MessagingMessageID(text(h.Value)))
		case "outboxcdc-position":
			attributes = append(attributes, attribute.String("outboxcdc.position", text(h.Value)))
		}
	}
	_, span := t.from.tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parent), "send "+topic,
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(attributes...))
	return span
}

// longestText is as much of a row as an attribute holds.
const longestText = 255

// text is a copy of what came from a row, as a span may hold it: short, and UTF-8, without
// which a collector refuses all spans that come with it.
func text[T string | []byte](of T) string {
	return strings.ToValidUTF8(string(of[:min(len(of), longestText)]), "")
}

// end tells the class of an error only: spans leave the machine.
func end(span trace.Span, err error) {
	if err != nil {
		class := fault.Classify(err).String()
		span.SetStatus(codes.Error, class)
		span.SetAttributes(semconv.ErrorTypeKey.String(class))
	}
	span.End()
}

// parentOf reads the header traceparent, and says whether its trace is sampled.
func parentOf(m *sink.Message) (parent trace.SpanContext, sampled bool) {
	carrier := headers(m.Headers)
	if value := carrier.value("traceparent"); len(value) < traceparentBytes || !bytes.Contains(oddDigits, value[traceparentBytes-1:traceparentBytes]) {
		return parent, false // without the cost of reading it all
	}
	parent = trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
	return parent, parent.IsValid() && parent.IsSampled()
}

// oddDigits end the flags of a trace that is sampled.
var oddDigits = []byte("13579bdf") //nolint:gochecknoglobals // a constant

const (
	// traceparentBytes are those of version 00; later ones are longer.
	traceparentBytes = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

	// mostTracestate is what W3C Trace Context wants at least to be carried on. More is
	// left out of the span; the message has it all.
	mostTracestate = 512
)

// headers are those of a message as OpenTelemetry reads them.
type headers []sink.Header

// Get is propagation.TextMapCarrier's.
func (h headers) Get(name string) string {
	value := h.value(name)
	if name == "tracestate" && len(value) > mostTracestate {
		return ""
	}
	return string(value)
}

// value is that of the first header of a name.
func (h headers) value(name string) []byte {
	for i := range h {
		if h[i].Key == name {
			return h[i].Value
		}
	}
	return nil
}

// Set changes nothing: messages are sent as they are.
func (headers) Set(string, string) {}

// Keys is propagation.TextMapCarrier's; nobody asks.
func (headers) Keys() []string { return nil }

// Unreached is sink.Seeker's.
func (t *traced) Unreached() string {
	if seeker, ok := t.Sink.(sink.Seeker); ok {
		return seeker.Unreached()
	}
	return ""
}

// Stalled is sink.Staller's.
func (t *traced) Stalled() string {
	if staller, ok := t.Sink.(sink.Staller); ok {
		return staller.Stalled()
	}
	return ""
}

// Judge is sink.Judge's: where the sink has no judgement, every message is fit.
func (t *traced) Judge(ctx context.Context, msgs []sink.Message) (int, error) {
	if judge, ok := t.Sink.(sink.Judge); ok {
		return judge.Judge(ctx, msgs)
	}
	return len(msgs), nil
}

// Reconsider is sink.Judge's.
func (t *traced) Reconsider() {
	if judge, ok := t.Sink.(sink.Judge); ok {
		judge.Reconsider()
	}
}
