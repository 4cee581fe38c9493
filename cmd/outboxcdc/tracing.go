package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/sink/tracing"
)

// traceSends makes spans of what is sent, when the environment says where they are to go;
// done exports what is left. Whatever is wrong with tracing is logged and stops nothing.
func traceSends(ctx context.Context, o *sink.Options, logger *slog.Logger) (done func()) {
	tracer, err := tracing.New(ctx, os.Getenv, version(), logger)
	if err != nil {
		logger.Warn("there are no spans", slog.String("error", err.Error()))
	}
	if tracer == nil {
		return func() {}
	}
	o.Wrap = tracer.Wrap
	return func() { tracer.Close(ctx) }
}
