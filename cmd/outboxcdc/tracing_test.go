package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/sink"
)

func TestTracingThatCannotBeIsRemarkedAndStopsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		endpoint, remark string
		traces           bool
	}{
		"none asked for": {"", "", false},
		"asked for":      {"http://127.0.0.1:1", "", true},
		"nonsense":       {"s3cret", "OTEL_EXPORTER_OTLP_ENDPOINT", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, name := range []string{"TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"} {
				t.Setenv("OTEL_EXPORTER_OTLP_"+name, "")
			}
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.endpoint)
			var log bytes.Buffer
			var o sink.Options
			traceSends(t.Context(), &o, slog.New(slog.NewTextHandler(&log, nil)))()
			if got := o.Wrap != nil; got != c.traces || !strings.Contains(log.String(), c.remark) || strings.Contains(log.String(), "s3cret") || (log.Len() > 0) != (c.remark != "") {
				t.Errorf("sends are traced: %v, want %v; the log:\n%s", got, c.traces, &log)
			}
		})
	}
}
