package tracing

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers are those of opentelemetry/proto/collector/trace/v1/trace_service.proto,
// trace/v1/trace.proto, resource/v1/resource.proto and common/v1/common.proto in
// https://github.com/open-telemetry/opentelemetry-proto; the tests read what is written
// here with the messages that are generated from these files.
const (
	requestResourceSpans = 1 // ExportTraceServiceRequest

	resourceSpansResource   = 1
	resourceSpansScopeSpans = 2
	resourceAttributes      = 1

	scopeSpansScope = 1
	scopeSpansSpans = 2
	scopeName       = 1
	scopeVersion    = 2

	spanTraceID      = 1
	spanID           = 2
	spanTraceState   = 3
	spanParentSpanID = 4
	spanName         = 5
	spanKind         = 6
	spanStart        = 7
	spanEnd          = 8
	spanAttributes   = 9
	spanStatus       = 15
	spanFlags        = 16

	statusMessage = 2
	statusCode    = 3

	keyValueKey   = 1
	keyValueValue = 2
	valueString   = 1
	valueInt      = 3

	responsePartialSuccess = 1 // ExportTraceServiceResponse
	partialRejectedSpans   = 1
)

// Flags of a span beside those of its trace: whether its parent is remote is known, and
// that it is.
const parentIsRemote = 0x100 | 0x200

// statusError is Status.STATUS_CODE_ERROR; OpenTelemetry's API counts them otherwise.
const statusError = 2

// appendRequest appends an ExportTraceServiceRequest. All spans are of one provider and
// one tracer, so they share a resource and a scope.
func appendRequest(b []byte, spans []sdktrace.ReadOnlySpan) []byte {
	scope := spans[0].InstrumentationScope()
	return appendMessage(b, requestResourceSpans, func(b []byte) []byte {
		b = appendMessage(b, resourceSpansResource, func(b []byte) []byte {
			return appendAttributes(b, resourceAttributes, spans[0].Resource().Attributes())
		})
		return appendMessage(b, resourceSpansScopeSpans, func(b []byte) []byte {
			b = appendMessage(b, scopeSpansScope, func(b []byte) []byte {
				return appendString(appendString(b, scopeName, scope.Name), scopeVersion, scope.Version)
			})
			for _, s := range spans {
				b = appendMessage(b, scopeSpansSpans, func(b []byte) []byte { return appendSpan(b, s) })
			}
			return b
		})
	})
}

func appendSpan(b []byte, s sdktrace.ReadOnlySpan) []byte {
	own, parent := s.SpanContext(), s.Parent()
	traceID, id, parentID := own.TraceID(), own.SpanID(), parent.SpanID()
	b = appendBytes(b, spanTraceID, traceID[:])
	b = appendBytes(b, spanID, id[:])
	b = appendString(b, spanTraceState, own.TraceState().String())
	b = appendBytes(b, spanParentSpanID, parentID[:])
	b = appendString(b, spanName, s.Name())
	b = appendVarint(b, spanKind, uint64(s.SpanKind())) // the API counts as the wire does
	b = appendFixed64(b, spanStart, uint64(s.StartTime().UnixNano()))
	b = appendFixed64(b, spanEnd, uint64(s.EndTime().UnixNano()))
	b = appendAttributes(b, spanAttributes, s.Attributes())
	if status := s.Status(); status.Code == codes.Error {
		b = appendMessage(b, spanStatus, func(b []byte) []byte {
			return appendVarint(appendString(b, statusMessage, status.Description), statusCode, statusError)
		})
	}
	b = protowire.AppendTag(b, spanFlags, protowire.Fixed32Type)
	return protowire.AppendFixed32(b, uint32(own.TraceFlags())|parentIsRemote)
}

// appendAttributes appends those of ours, which are texts and whole numbers, and of the
// environment, which are texts. Any other would be a text too.
func appendAttributes(b []byte, field protowire.Number, attributes []attribute.KeyValue) []byte {
	for _, a := range attributes {
		b = appendMessage(b, field, func(b []byte) []byte {
			b = appendString(b, keyValueKey, string(a.Key))
			return appendMessage(b, keyValueValue, func(b []byte) []byte {
				if a.Value.Type() == attribute.INT64 {
					return appendVarint(b, valueInt, uint64(a.Value.AsInt64()))
				}
				// An empty text is written, or there would be no value.
				return protowire.AppendString(protowire.AppendTag(b, valueString, protowire.BytesType), a.Value.String())
			})
		})
	}
	return b
}

// appendMessage appends what fill makes, behind its length.
func appendMessage(b []byte, field protowire.Number, fill func([]byte) []byte) []byte {
	return appendBytes(b, field, fill(nil))
}

func appendBytes(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func appendString(b []byte, field protowire.Number, value string) []byte {
	if value == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func appendVarint(b []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), value)
}

func appendFixed64(b []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), value)
}

// rejected is how many spans an ExportTraceServiceResponse says were refused. What it
// cannot read refuses none.
func rejected(response []byte) uint64 {
	partial, _ := protowire.ConsumeBytes(fieldOf(response, responsePartialSuccess, protowire.BytesType))
	n, length := protowire.ConsumeVarint(fieldOf(partial, partialRejectedSpans, protowire.VarintType))
	if length < 0 {
		return 0
	}
	return n
}

// fieldOf is b from the value of a field on, or nothing.
func fieldOf(b []byte, field protowire.Number, kind protowire.Type) []byte {
	for len(b) > 0 {
		number, of, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if number == field && of == kind {
			return b
		}
		if n = protowire.ConsumeFieldValue(number, of, b); n < 0 {
			return nil
		}
		b = b[n:]
	}
	return nil
}
