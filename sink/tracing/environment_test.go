package tracing_test

import (
	"compress/gzip"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/sink/tracing"
)

func TestThereIsTracingOnlyWhereTheEnvironmentAsksForIt(t *testing.T) {
	const endpoint, traces = "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1/v1/traces"
	for name, c := range map[string]struct {
		env    []string
		traces bool
		remark string
	}{
		"nothing is set":           {nil, false, ""},
		"an endpoint":              {[]string{endpoint}, true, ""},
		"an endpoint of traces":    {[]string{traces}, true, ""},
		"it is off":                {[]string{endpoint, "OTEL_SDK_DISABLED=true"}, false, ""},
		"another exporter":         {[]string{endpoint, "OTEL_TRACES_EXPORTER=none"}, false, ""},
		"among other exporters":    {[]string{endpoint, "OTEL_TRACES_EXPORTER=otlp,console"}, true, ""},
		"our protocol":             {[]string{endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}, true, ""},
		"another protocol":         {[]string{endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, false, "OTEL_EXPORTER_OTLP_PROTOCOL names a protocol"},
		"another one for metrics":  {[]string{endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"}, true, ""},
		"no URL":                   {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=s3cret:4318"}, false, "OTEL_EXPORTER_OTLP_ENDPOINT is no URL"},
		"a time of words":          {[]string{endpoint, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=s3cret"}, false, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT is no number"},
		"an unknown compression":   {[]string{endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION=s3cret"}, false, "neither gzip nor none"},
		"headers that are none":    {[]string{endpoint, "OTEL_EXPORTER_OTLP_HEADERS=s3cret"}, false, "OTEL_EXPORTER_OTLP_HEADERS is no list"},
		"headers of two lines":     {[]string{endpoint, "OTEL_EXPORTER_OTLP_HEADERS=key=s3cret%0d%0a"}, false, "OTEL_EXPORTER_OTLP_HEADERS is no list"},
		"a certificate that lacks": {[]string{endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE=/nowhere"}, false, "read the file of OTEL_EXPORTER_OTLP_CERTIFICATE"},
		"half of a pair":           {[]string{endpoint, "OTEL_EXPORTER_OTLP_CLIENT_KEY=/nowhere"}, false, "go together"},
	} {
		t.Run(name, func(t *testing.T) {
			variables := map[string]string{}
			for _, setting := range c.env {
				name, value, _ := strings.Cut(setting, "=")
				variables[name] = value
			}
			tracer, err := tracing.New(t.Context(), environment(variables), "v1", slog.New(slog.DiscardHandler))
			if tracer != nil {
				tracer.Close(t.Context())
			}
			if (tracer != nil) != c.traces || (err != nil) != (c.remark != "") {
				t.Fatalf("there is tracing: %v, want %v; %v", tracer != nil, c.traces, err)
			}
			if err != nil && (!strings.Contains(err.Error(), c.remark) || strings.Contains(err.Error(), "s3cret")) {
				t.Errorf("it says %q, want %q and no value", err, c.remark)
			}
		})
	}
}

// What the environment says of an export reaches the collector, by TLS too.
func TestAnExportIsAsTheEnvironmentSays(t *testing.T) {
	var got *http.Request
	r := &receiver{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		got = request
		body, err := gzip.NewReader(request.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		request.Body, request.URL.Path = io.NopCloser(body), strings.TrimPrefix(request.URL.Path, "/a")
		r.ServeHTTP(w, request)
	}))
	defer server.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, authority, server.Certificate())
	under := &broker{}
	tracer, err := tracing.New(t.Context(), environment(map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL + "/a", "OTEL_EXPORTER_OTLP_CERTIFICATE": authority,
		"OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b, other=c", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
	}), "v1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := tracer.Wrap(under, "kafka").Send(t.Context(), []sink.Message{messageOf("k", sampled)}, func(error) {}); err != nil {
		t.Fatal(err)
	}
	under.acks[0](nil)
	tracer.Close(t.Context())
	if len(r.spans) != 1 || got.Header.Get("Api-Key") != "a b" || got.Header.Get("Other") != "c" || got.Header.Get("User-Agent") != "outboxcdc/v1" {
		t.Errorf("%d spans came with headers %v", len(r.spans), got.Header)
	}
}

func writePEM(tb testing.TB, path string, certificate *x509.Certificate) {
	tb.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		tb.Fatal(err)
	}
}
