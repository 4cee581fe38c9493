package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// board is the topics of one run: a name for each aggregate type.
type board struct {
	topics *kadm.Client
	form   string // with {aggregate_type}
	names  []string
}

// newBoard makes the topics. The caller drops them.
func (b *bench) newBoard(ctx context.Context, s shape) (*board, error) {
	prefix := b.name("run") + "."
	d := &board{topics: b.topics, form: prefix + "{aggregate_type}"}
	for i := range s.types {
		d.names = append(d.names, fmt.Sprintf("%sorder%d", prefix, i))
	}
	made, err := b.topics.CreateTopics(ctx, int32(s.partitions), 1, nil, d.names...)
	if err == nil {
		err = made.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("make topics: %w", err)
	}
	err = d.settle(ctx)
	return d, err
}

// settle waits until the broker knows the topics, which it hears of from its controller.
func (d *board) settle(ctx context.Context) error {
	return until(ctx, nil, func(ctx context.Context) (float64, error) {
		_, err := d.count(ctx)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return almost, nil
		}
		return 1, err
	})
}

func (d *board) drop(ctx context.Context) error {
	gone, err := d.topics.DeleteTopics(ctx, d.names...)
	if err == nil {
		err = gone.Error()
	}
	return err
}

// count is how many records the topics hold.
func (d *board) count(ctx context.Context) (int, error) {
	ends, err := d.topics.ListEndOffsets(ctx, d.names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("count records: %w", err)
	}
	total := 0
	ends.Each(func(o kadm.ListedOffset) { total += int(o.Offset) })
	return total, nil
}

const (
	pollPause    = 5 * time.Millisecond   // where it matters when something happens
	calmPause    = 100 * time.Millisecond // where it does not
	drainTimeout = 10 * time.Minute
)

// until calls reached every few milliseconds near the end, and seldom before: to ask
// costs the servers time that belongs to the contestant. reached gives the part that
// is done, 1 at the end.
func until(ctx context.Context, ended <-chan struct{}, reached func(context.Context) (float64, error)) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	began := time.Now()
	for {
		select {
		case <-timer.C:
		case <-ended:
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		done, err := reached(ctx)
		now := time.Now()
		if err != nil || done >= 1 {
			return err
		}
		pause := calmPause
		if done > 0 { // a tenth of what seems to be left
			pause = time.Duration(float64(now.Sub(began)) * (1 - done) / done / 10)
		}
		timer.Reset(min(max(pause, pollPause), calmPause))
	}
}
