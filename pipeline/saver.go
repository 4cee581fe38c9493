package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/failpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Idle log is saved in strides. A save to the database writes log itself, some
// hundred bytes and up to a few pages, and must not call for the next one.
const (
	quietStrideBytes  = 64 << 10
	urgentStrideBytes = 16 << 20 // one segment: enough log to free to be worth it at once
	idleInterval      = time.Second
)

// saver makes the mark durable and only then confirms it. Saved before confirmed
// is what makes a slot that someone else moved visible at the next start: it can
// then be ahead of what is saved, and in no other way.
type saver struct {
	store   checkpoint.Store
	tracker *checkpoint.Tracker
	confirm func(wal.LSN)
	seen    *counters

	position checkpoint.Position // what is saved
	rows     uint64              // acked up to there in this session
	at       time.Time           // of the last save

	interval   time.Duration // between two saves
	idle       time.Duration // between two saves without rows
	idleStride wal.LSN       // log between two saves without rows, in bytes
}

func newSaver(store checkpoint.Store, position checkpoint.Position, interval time.Duration) *saver {
	s := &saver{store: store, position: position, interval: interval, idle: idleInterval, idleStride: 1}
	if quiet, ok := store.(checkpoint.Quiet); ok {
		s.idle, s.idleStride = quiet.IdleInterval(), quietStrideBytes
	}
	return s
}

// run saves in the rhythm of interval until ctx ends, which is no error.
func (s *saver) run(ctx context.Context) error {
	s.at = time.Now()
	clock := time.NewTicker(s.interval)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-clock.C:
			if !s.due(s.tracker.Mark(), now) {
				continue
			}
			if err := s.save(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// due says whether the mark is worth a save now: rows always are, idle log in
// strides.
func (s *saver) due(mark checkpoint.Mark, now time.Time) bool {
	stride := mark.LSN - s.position.LSN
	switch {
	case mark.LSN <= s.position.LSN:
		return false
	case mark.Rows > s.rows, stride >= urgentStrideBytes:
		return true
	default:
		return stride >= s.idleStride && now.Sub(s.at) >= s.idle
	}
}

// save saves and confirms the mark when it is ahead of what is saved.
func (s *saver) save(ctx context.Context) error {
	mark := s.tracker.Mark()
	if mark.LSN <= s.position.LSN {
		return nil
	}
	next := s.position
	next.LSN, next.Time = mark.LSN, time.Now().UTC()
	if err := s.store.Save(ctx, next); err != nil {
		return explainSave(mark.LSN, err)
	}
	failpoint.Pass(failpoint.AfterSave)
	s.position, s.rows, s.at = next, mark.Rows, time.Now()
	s.seen.saved.Store(uint64(mark.LSN))
	s.confirm(mark.LSN)
	s.seen.confirmed.Store(uint64(mark.LSN))
	failpoint.Pass(failpoint.AfterConfirm)
	return nil
}

// explainSave gives an error of the store what we were doing. That a later position is
// saved already happens to an instance that was frozen, by the machine or a debugger,
// until its connection was given up and a successor took the slot. Nothing is wrong
// then but this session: the next one finds the slot busy and stands by, or free and
// goes on from what the successor saved.
func explainSave(lsn wal.LSN, err error) error {
	if errors.Is(err, checkpoint.ErrBackwards) {
		return &fault.Error{Class: fault.Transient, Err: fmt.Errorf("save %v: another instance has taken over: %w", lsn, err)}
	}
	return fmt.Errorf("save %v: %w", lsn, err)
}
