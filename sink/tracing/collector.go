package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// collector takes spans by OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/),
// and is the exporter of OpenTelemetry's batcher, which calls it on one goroutine.
//
// OpenTelemetry has an exporter of its own. It brings gRPC and generated messages, which
// register themselves when the process starts: 2.5 MiB for everybody, with spans or not.
type collector struct {
	client     *http.Client
	endpoint   string
	headers    http.Header
	timeout    time.Duration // of an export with all its tries
	compressed bool

	hangUp  context.CancelFunc                          // ends what is being exported
	onceOff func(end func()) (forget func() (off bool)) // calls end after hangUp
}

func newCollector(client *http.Client, endpoint string, headers http.Header) *collector {
	life, hangUp := context.WithCancel(context.Background())
	return &collector{
		client: client, endpoint: endpoint, headers: headers, timeout: defaultExportTimeout, hangUp: hangUp,
		onceOff: func(end func()) func() bool { return context.AfterFunc(life, end) },
	}
}

const (
	// firstPause is how long an export waits before its second try; each pause is twice
	// the one before.
	firstPause = 500 * time.Millisecond

	// longestAnswer is as much of an answer as is read.
	longestAnswer = 64 << 10
)

// ExportSpans is sdktrace.SpanExporter's. It tries until the timeout what the
// specification says may be tried again, and gives up anything else at once.
func (c *collector) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if len(spans) == 0 {
		return nil
	}
	body, err := c.pack(appendRequest(nil, spans))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	defer c.onceOff(cancel)()
	for pause := firstPause; ; pause *= 2 {
		after, err := c.post(ctx, body)
		if err == nil || !errors.Is(err, errAgain) {
			return err
		}
		if !wait(ctx, max(after, pause/2+rand.N(pause/2))) {
			return err
		}
	}
}

// Shutdown is sdktrace.SpanExporter's.
func (c *collector) Shutdown(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

func (c *collector) pack(body []byte) ([]byte, error) {
	if !c.compressed {
		return body, nil
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(body)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("compress spans: %w", err)
	}
	return packed.Bytes(), nil
}

// errAgain marks what may go well a moment later.
var errAgain = errors.New("the collector takes nothing now")

// post sends body once. after is how long the collector asks to be left alone.
func (c *collector) post(ctx context.Context, body []byte) (after time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, errors.New("the endpoint for spans is no URL")
	}
	request.Header = c.headers.Clone()
	answer, err := c.client.Do(request)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the URL may hold a token
		}
		return 0, fmt.Errorf("%w: %w", errAgain, err)
	}
	defer answer.Body.Close() //nolint:errcheck // it is read as far as we want
	text, readErr := io.ReadAll(io.LimitReader(answer.Body, longestAnswer))
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After")) // none, or a date, is 0
		return time.Duration(max(seconds, 0)) * time.Second, fmt.Errorf("%w: it answers %d", errAgain, answer.StatusCode)
	}
	if answer.StatusCode/100 != 2 {
		return 0, fmt.Errorf("the collector answers %d", answer.StatusCode)
	}
	if n := rejected(text); readErr == nil && n > 0 {
		return 0, fmt.Errorf("the collector refused %d spans", n)
	}
	return 0, nil
}

// wait says whether the pause is over before ctx is. It does not begin one that would not be.
func wait(ctx context.Context, pause time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
