package tracing

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The variables of https://opentelemetry.io/docs/specs/otel/protocol/exporter/: one for
// all signals, and one for traces, which wins.
const (
	prefixAll    = "OTEL_EXPORTER_OTLP_"
	prefixTraces = "OTEL_EXPORTER_OTLP_TRACES_"
)

// defaultExportTimeout is what the specification says for OTEL_EXPORTER_OTLP_TIMEOUT.
const defaultExportTimeout = 10 * time.Second

// setting is the value of OTEL_EXPORTER_OTLP_TRACES_name or else OTEL_EXPORTER_OTLP_name,
// and which of them it is.
func setting(getenv func(string) string, name string) (value, variable string) {
	for _, variable := range []string{prefixTraces + name, prefixAll + name} {
		if value := strings.TrimSpace(getenv(variable)); value != "" {
			return value, variable
		}
	}
	return "", ""
}

// wanted says whether there is to be tracing at all: where an endpoint is set, and nothing
// turns it off.
func wanted(getenv func(string) string) bool {
	clean := func(name string) string { return strings.ToLower(strings.TrimSpace(getenv(name))) }
	endpoint, _ := setting(getenv, "ENDPOINT")
	exporters := clean("OTEL_TRACES_EXPORTER")
	return endpoint != "" && clean("OTEL_SDK_DISABLED") != "true" &&
		(exporters == "" || slices.Contains(strings.Split(exporters, ","), "otlp"))
}

// readCollector understands where spans go. Values may be secrets, so that errors name
// variables only.
func readCollector(getenv func(string) string, version string) (*collector, error) {
	if protocol, variable := setting(getenv, "PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return nil, fmt.Errorf("%s names a protocol that is not spoken: set it to http/protobuf, and the endpoint to the port for that, usually 4318", variable)
	}
	endpoint, err := readEndpoint(getenv)
	if err != nil {
		return nil, err
	}
	headers, err := readHeaders(getenv)
	if err != nil {
		return nil, err
	}
	headers.Set("Content-Type", "application/x-protobuf")
	headers.Set("User-Agent", "outboxcdc/"+version)
	secure, err := readCertificates(getenv)
	if err != nil {
		return nil, err
	}
	c := newCollector(clientOf(secure), endpoint, headers)
	if text, variable := setting(getenv, "TIMEOUT"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil || ms <= 0 {
			return nil, fmt.Errorf("%s is no number of milliseconds", variable)
		}
		c.timeout = time.Duration(ms) * time.Millisecond
	}
	switch text, variable := setting(getenv, "COMPRESSION"); text {
	case "", "none":
	case "gzip":
		c.compressed = true
		headers.Set("Content-Encoding", "gzip")
	default:
		return nil, fmt.Errorf("%s is neither gzip nor none", variable)
	}
	return c, nil
}

func clientOf(secure *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     secure,
			TLSHandshakeTimeout: defaultExportTimeout,
			IdleConnTimeout:     90 * time.Second,
			MaxIdleConns:        1,
			ForceAttemptHTTP2:   true,
		},
		// Another host has no business with the headers.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// readEndpoint gives the URL to post to: the one for traces as it is, the other with the
// path that the specification appends.
func readEndpoint(getenv func(string) string) (string, error) {
	text, variable := setting(getenv, "ENDPOINT")
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
		return "", fmt.Errorf("%s is no URL such as http://collector:4318", variable)
	}
	if variable == prefixAll+"ENDPOINT" {
		parsed = parsed.JoinPath("v1", "traces")
	}
	return parsed.String(), nil
}

// readHeaders reads name=value,name=value, where values are escaped as in a URL.
func readHeaders(getenv func(string) string) (http.Header, error) {
	headers := http.Header{}
	text, variable := setting(getenv, "HEADERS")
	for entry := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		name, escaped, found := strings.Cut(entry, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(escaped))
		if err != nil || !found || name == "" || strings.ContainsAny(name+value, "\r\n") {
			return nil, fmt.Errorf("%s is no list of name=value, with commas in between and values escaped as in a URL", variable)
		}
		headers.Set(name, value)
	}
	return headers, nil
}

// readCertificates reads the files once; nil means the system's authorities.
func readCertificates(getenv func(string) string) (*tls.Config, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if path, variable := setting(getenv, "CERTIFICATE"); path != "" {
		pem, err := os.ReadFile(path) //nolint:gosec // the operator says which
		if err != nil {
			return nil, fmt.Errorf("read the file of %s: %w", variable, err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the file of %s holds no certificate in PEM", variable)
		}
	}
	certificate, _ := setting(getenv, "CLIENT_CERTIFICATE")
	key, _ := setting(getenv, "CLIENT_KEY")
	switch {
	case certificate == "" && key == "":
		return secure, nil
	case certificate == "" || key == "":
		return nil, errors.New("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY go together: set both or neither")
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("read the files of OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: %w", err)
	}
	secure.Certificates = []tls.Certificate{pair}
	return secure, nil
}
