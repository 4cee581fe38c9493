package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"
)

// profileTime is how much of a drain is looked at. Less than it takes.
const profileTime = 2 * time.Second

// measureProfile writes a profile of the CPU for each of the main shapes into the
// working directory, and prints its top.
func measureProfile(ctx context.Context, b *bench) error {
	binary, err := b.build(ctx, "profiled", "./cmd/outboxcdc", "-tags", "profiles")
	if err != nil {
		return err
	}
	profiled := *b
	profiled.binary = binary
	for i, s := range mainShapes() {
		l, err := profiled.newBacklog(ctx, s, b.events)
		if err != nil {
			return err
		}
		file := fmt.Sprintf("cpu%d.prof", i+1)
		if err := errors.Join(l.profile(ctx, file), l.drop(ctx)); err != nil {
			return err
		}
		b.printf("\n%s: %s\n\n", s.name, file)
		top := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount", "40", file) //nolint:gosec // our own file
		top.Stdout, top.Stderr = b.out, b.out
		if err := top.Run(); err != nil {
			return err
		}
	}
	return nil
}

// profile drains the backlog with ours and looks at the beginning of it.
func (l *backlog) profile(ctx context.Context, file string) error {
	h := l.newHeat(l.bench.contestants()[0])
	err := h.prepare(ctx)
	if err == nil {
		err = h.profile(ctx, file)
	}
	return errors.Join(err, h.clear(ctx))
}

func (h *heat) profile(ctx context.Context, file string) error {
	var err error
	if h.child, err = start(h.contestant.run(context.WithoutCancel(ctx), h.bench, h.entry)); err != nil {
		return err
	}
	if err := until(ctx, h.child.ended, h.active); err != nil {
		return fmt.Errorf("wait for the slot to be read: %w; it said:\n%s", err, h.child.log.String())
	}
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", h.entry.http, int(profileTime.Seconds()))
	if err := download(ctx, url, file); err != nil {
		return err
	}
	if err := until(ctx, h.child.ended, h.arrived); err != nil {
		return fmt.Errorf("wait for the last event: %w", err)
	}
	return h.child.stop(ctx)
}

// download writes what a server answers into a file.
func download(ctx context.Context, url, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody) //nolint:gosec // our own process
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request) //nolint:gosec // our own process
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, answer.Status)
	}
	file, err := os.Create(path) //nolint:gosec // named by us
	if err != nil {
		return err
	}
	_, err = io.Copy(file, answer.Body)
	return errors.Join(err, file.Close())
}
