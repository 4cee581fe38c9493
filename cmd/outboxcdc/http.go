package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// newHandler answers GET and nothing else:
//
//   - /livez as long as the process lives. Postgres and the broker do not matter
//     to it, or an orchestrator would answer their outage with restarts.
//   - /readyz with 200 while events flow or another instance holds the slot, else
//     with 503; the body says the state, and why.
//   - /metrics for Prometheus.
//   - / with the status page for people, and /status with the same for programs.
func newHandler(s *sampler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status, text := readiness(s.stats())
		answer(w, status, text)
	})
	mux.Handle("GET /metrics", newMetrics(s.slot, s.stats))
	servePage(mux, s)
	serveProfiles(mux)
	return mux
}

func readiness(s pipeline.Stats) (status int, text string) {
	status, text = http.StatusServiceUnavailable, string(s.State)
	if s.State == pipeline.Streaming || s.State == pipeline.Standby {
		status = http.StatusOK
	}
	for _, t := range s.Troubles() {
		text += ", but " + t.Problem + ": " + t.Fix
		if t.Subject == pipeline.TroubleBroker {
			return http.StatusServiceUnavailable, text
		}
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return status, text
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n") //nolint:errcheck // the client has gone
}

// serve answers on address about the stream, and samples it, until the function that it
// gives is called.
func serve(ctx context.Context, address string, s *sampler, logger *slog.Logger) (hangUp func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	hangUpListener, err := listen(ctx, address, newHandler(s), logger)
	if err != nil {
		cancel()
		return nil, err
	}
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		s.run(ctx)
	}()
	return func() {
		hangUpListener()
		cancel()
		<-sampled
	}, nil
}

// listen serves handler on address until the function that it gives is called. The
// goroutine ends with that call. A listener that breaks later is logged and ends
// nothing: the stream matters more.
func listen(ctx context.Context, address string, handler http.Handler, logger *slog.Logger) (hangUp func(), err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fault.NewOperator(fmt.Errorf("listen on %s: %w", address, reason(err)),
			"free the address, or choose another one with --http, or off")
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("health and metrics are not served any more", slog.String("error", err.Error()))
		}
	}()
	logger.Info("serving health and metrics", slog.String("http", listener.Addr().String()))
	return func() {
		server.Close() //nolint:errcheck // nothing is owed to a scraper at the end
		<-served
	}, nil
}

// reason is what the system says, without the address that net puts before it.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
