package main

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/wal"
)

const (
	sampleInterval = 2 * time.Second
	samplesKept    = 450 // a quarter of an hour
	errorsKept     = 10
)

// live is what the status page and top show: the stream now, and what was seen of it in
// the last quarter of an hour. It decides nothing.
type live struct {
	Slot      string             `json:"slot"`
	Version   string             `json:"version"`
	Now       time.Time          `json:"now"`
	Began     time.Time          `json:"began"` // of the process
	State     string             `json:"state"`
	Ready     bool               `json:"ready"`
	Reason    string             `json:"reason"`    // of the state, one sentence
	Troubles  []pipeline.Trouble `json:"troubles"`  // of a stream that streams
	Positions []place            `json:"positions"` // along the chain: read, sent, acked, saved, confirmed

	WaitingSeconds float64    `json:"waiting_seconds"` // for the broker's oldest ack
	Rows           uint64     `json:"rows"`
	Bytes          uint64     `json:"bytes"`
	Sessions       uint64     `json:"sessions"`
	SkippedRows    uint64     `json:"skipped_rows"`
	ParkedRows     int        `json:"parked_rows"`
	ParkedKeys     int        `json:"parked_aggregates"`
	LastCommit     *time.Time `json:"last_commit"` // null before the first row

	LookedAt      *time.Time `json:"looked_at"` // when the slot was looked at last; null before
	RetainedBytes int64      `json:"retained_bytes"`
	SafeBytes     *int64     `json:"safe_bytes"` // null without a limit

	Errors  []pastError `json:"errors"`  // that ended sessions, latest first
	Samples []sample    `json:"samples"` // oldest first
}

// place is one position of the chain.
type place struct {
	Of     string `json:"of"`
	LSN    string `json:"lsn"`
	Bytes  uint64 `json:"bytes"`  // the same as a number; 0 until it is known
	Behind uint64 `json:"behind"` // bytes of log to the one before it in the chain
}

type pastError struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// sample is the stream at one moment.
type sample struct {
	At             time.Time `json:"at"`
	RowsPerSecond  float64   `json:"rows_per_second"` // since the sample before
	BehindBytes    uint64    `json:"behind_bytes"`    // log between what was read and what is confirmed
	WaitingSeconds float64   `json:"waiting_seconds"`
}

// sampler remembers the last quarter of an hour.
type sampler struct {
	slot  string
	stats func() pipeline.Stats
	began time.Time

	mu      sync.Mutex
	samples []sample
	errors  []pastError
	rows    uint64
	at      time.Time
}

func newSampler(slot string, stats func() pipeline.Stats) *sampler {
	return &sampler{slot: slot, stats: stats, began: time.Now()}
}

// run takes samples until ctx ends.
func (s *sampler) run(ctx context.Context) {
	clock := time.NewTicker(sampleInterval)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-clock.C:
			s.take(now)
		}
	}
}

// take adds one sample, and the error that ended a session since the last one.
func (s *sampler) take(now time.Time) {
	stats := s.stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	if elapsed := now.Sub(s.at).Seconds(); !s.at.IsZero() && elapsed > 0 {
		s.samples = append(s.samples, sample{
			At:             now,
			RowsPerSecond:  float64(stats.Rows-s.rows) / elapsed,
			BehindBytes:    distance(stats.Confirmed, stats.Read),
			WaitingSeconds: stats.Waiting.Seconds(),
		})
		if extra := len(s.samples) - samplesKept; extra > 0 {
			s.samples = slices.Delete(s.samples, 0, extra)
		}
	}
	s.rows, s.at = stats.Rows, now
	s.remember(stats)
}

// remember keeps the latest error if it is a new one. s.mu is held.
func (s *sampler) remember(stats pipeline.Stats) {
	if stats.LastErrorTime.IsZero() || len(s.errors) > 0 && !stats.LastErrorTime.After(s.errors[0].At) {
		return
	}
	s.errors = slices.Insert(s.errors, 0, pastError{At: stats.LastErrorTime, Text: stats.LastError})
	s.errors = s.errors[:min(len(s.errors), errorsKept)]
}

// live is the stream as it is now.
func (s *sampler) live(now time.Time) live {
	stats := s.stats()
	ready, reason := readiness(stats)
	l := live{
		Slot: s.slot, Version: version(), Now: now, Began: s.began,
		State: string(stats.State), Ready: ready == http.StatusOK, Reason: reason,
		Troubles:       stats.Troubles(),
		Positions:      chain(stats),
		WaitingSeconds: stats.Waiting.Seconds(),
		Rows:           stats.Rows, Bytes: stats.Bytes, Sessions: stats.Sessions, SkippedRows: stats.Skipped, ParkedRows: stats.ParkedRows, ParkedKeys: stats.ParkedAggregates,
		LastCommit: known(stats.LastCommit), LookedAt: known(stats.SlotLookedAt),
		RetainedBytes: stats.Slot.RetainedBytes,
	}
	if l.LookedAt != nil && stats.Slot.SafeBytes >= 0 {
		l.SafeBytes = &stats.Slot.SafeBytes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remember(stats)
	l.Errors, l.Samples = slices.Clone(s.errors), slices.Clone(s.samples)
	return l
}

// chain is the way of an event, from the server's log to its slot.
func chain(stats pipeline.Stats) []place {
	positions := []place{}
	before := wal.LSN(0)
	for _, p := range []struct {
		of string
		at wal.LSN
	}{{"read", stats.Read}, {"sent", stats.Sent}, {"acked", stats.Acked}, {"saved", stats.Saved}, {"confirmed", stats.Confirmed}} {
		positions = append(positions, place{Of: p.of, LSN: p.at.String(), Bytes: uint64(p.at), Behind: distance(p.at, before)})
		before = p.at
	}
	return positions
}

// distance is the log between two positions, 0 when either is not known.
func distance(from, to wal.LSN) uint64 {
	if from == 0 || to < from {
		return 0
	}
	return uint64(to - from)
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
