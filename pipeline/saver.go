package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
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

	halted atomic.Bool   // a bug was found: what the ledger says counts no longer
	read   atomic.Uint64 // commit of the last row that was read, sent or not: it ends behind that

	system   string // whose log this is
	timeline uint32

	delivered delivered // in terms of transactions

	shown atomic.Pointer[checkpoint.Position] // what is saved, for others

	position checkpoint.Position // what is saved
	rows     uint64              // acked up to there in this session
	at       time.Time           // of the last save
	kept     *time.Time          // of the last entry of the history, of all sessions

	interval   time.Duration // between two saves
	historic   time.Duration // between two entries of the history
	idle       time.Duration // between two saves without rows
	idleStride wal.LSN       // log between two saves without rows, in bytes
}

func newSaver(store checkpoint.Store, position checkpoint.Position, interval time.Duration) *saver {
	s := &saver{
		store: store, system: position.System, timeline: position.Timeline, position: position, interval: interval,
		historic: checkpoint.DefaultHistoryInterval, idle: idleInterval, idleStride: 1, kept: new(time.Time),
	}
	s.delivered.begin(position)
	s.show()
	if quiet, ok := store.(checkpoint.Quiet); ok {
		s.idle, s.idleStride = quiet.IdleInterval(), quietStrideBytes
	}
	return s
}

// durable is what is saved, with what is settled of what was delivered; any goroutine
// may ask.
func (s *saver) durable() checkpoint.Position { return *s.shown.Load() }

func (s *saver) show() {
	settled := s.settled()
	s.shown.Store(&settled)
}

// settled is what is saved, without what the watch has not looked behind.
func (s *saver) settled() checkpoint.Position {
	p := s.position
	p.Delivered = s.delivered.settled
	return p
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
			err := s.save(ctx)
			if err == nil {
				err = s.keep(ctx, now)
			}
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// due says whether the mark is worth a save now: rows always are, those included that
// were read and not sent, and idle log in strides. So is a snapshot that shows rows as
// delivered which what is saved does not; another one is not, because a save is a
// transaction too and makes the next snapshot another, and an idle database would be kept
// awake by itself.
func (s *saver) due(mark checkpoint.Mark, now time.Time) bool {
	lacked := s.delivered.lacks != 0
	s.delivered.pass(mark.LSN)
	stride := mark.LSN - s.position.LSN
	switch {
	case mark.LSN < s.position.LSN:
		return false
	case mark.Rows > s.rows, stride >= urgentStrideBytes:
		return true
	case stride > 0 && s.read.Load() >= uint64(s.position.LSN):
		return true
	case lacked && s.delivered.lacks == 0:
		return true
	default:
		return stride >= s.idleStride && now.Sub(s.at) >= s.idle
	}
}

// save saves and confirms the mark when it is ahead of what is saved, or a snapshot
// is.
func (s *saver) save(ctx context.Context) error {
	if s.halted.Load() {
		return nil
	}
	mark := s.tracker.Mark()
	s.delivered.pass(mark.LSN)
	next := s.position
	next.LSN, next.Time = mark.LSN, time.Now().UTC()
	next.Delivered = s.delivered.upTo(mark.LSN, next.Time)
	if mark.LSN < s.position.LSN || mark.LSN == s.position.LSN && next.Delivered.Text == s.position.Delivered.Text {
		return nil
	}
	if err := s.store.Save(ctx, next); err != nil {
		return explainSave(mark.LSN, err)
	}
	failpoint.Pass(failpoint.AfterSave)
	s.position, s.rows, s.at = next, mark.Rows, time.Now()
	s.show()
	s.seen.saved.Store(uint64(mark.LSN))
	s.confirm(mark.LSN)
	s.seen.confirmed.Store(uint64(mark.LSN))
	s.seen.confirmedAcks()
	failpoint.Pass(failpoint.AfterConfirm)
	return nil
}

// behind says whether rows are acked behind what is saved.
func (s *saver) behind() bool { return s.tracker.Mark().Rows > s.rows }

// keep adds what is saved to the history, once an interval. It is called after a save
// only, so that an idle stream has none of its own.
func (s *saver) keep(ctx context.Context, now time.Time) error {
	historian, ok := s.store.(checkpoint.Historian)
	if !ok || now.Sub(*s.kept) < s.historic {
		return nil
	}
	if err := historian.Keep(ctx, checkpoint.Entry{Position: s.settled()}); err != nil {
		return fmt.Errorf("add %v to the history: %w", s.position.LSN, err)
	}
	*s.kept = now
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
