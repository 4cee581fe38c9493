package wal

import "time"

const (
	restTime     = 3 * time.Millisecond  // before a pull; 1 and 2 ms were slower, 4 ms no faster
	shortRest    = restTime / 8          // where much comes
	restBytes    = 256 << 10             // what should be joined in a rest at the most
	pullBytes    = 16 << 10              // what there must be for a pull to go on
	pullPatience = 50 * time.Microsecond // and how soon
	pullTime     = 2 * time.Millisecond  // what a pull takes at the most
	pullRoom     = 64 << 10              // in our buffer
)

// gather lets a large piece come together in the kernel, or in the walsender, while there
// is a backlog, and says whether it has read something already.
func (s *Stream) gather(now time.Time) (some bool, err error) {
	if !s.pace.wants(now) {
		s.full = false
		return false, nil
	}
	if s.window != nil {
		if err := s.setDeadline(now.Add(s.tick)); err != nil {
			return false, err
		}
		return s.pull(), nil
	}
	until := now.Add(coalesceTime)
	if err := s.setDeadline(until); err != nil {
		return false, err
	}
	s.pace.wait()
	return s.pace.naps && s.pile(until), nil
}

// pile gathers in the buffer what the kernel cannot be asked to gather, and says whether
// that is anything: it must not wait for more. What is wrong with the connection the next
// fill finds.
func (s *Stream) pile(until time.Time) (some bool) {
	before := s.frames.buffered()
	for s.frames.room() && s.frames.buffered() < coalesceBytes && time.Now().Before(until) {
		if s.fill() != nil {
			break
		}
		s.pace.wait()
	}
	return s.frames.buffered() > before
}

// pull rests, reads for as long as there is much and then what is left, and says whether
// it has read anything: that must not wait for more. What is wrong with the connection the
// next fill finds. Like a wait it ends after some time, whatever comes, and leaves no
// low-water mark behind.
func (s *Stream) pull() (some bool) {
	if s.window.SetLowWater(pullBytes) != nil {
		return false
	}
	if !s.full {
		s.rest.again()
	}
	before, until := s.frames.buffered(), time.Now().Add(pullTime)
	s.full = false
	for s.frames.spare() >= pullRoom && time.Now().Before(until) && s.fillReady(pullPatience) {
		s.full = s.frames.spare() < pullRoom
	}
	s.window.SetLowWater(1) //nolint:errcheck // it was set a moment ago
	if !s.full && s.frames.room() {
		s.fillReady(0)
	}
	brought := s.frames.buffered() - before
	s.rest.bytes += brought
	return brought > 0
}

// rest is how long a reader rests before it pulls, and what its pulls have brought since.
// The walsender's queue holds some hundreds of KiB, and it should not fill it and fall
// asleep over it: of large rows, more comes in restTime than that.
type rest struct {
	time  time.Duration
	bytes int
}

// again rests.
func (r *rest) again() {
	if r.bytes > restBytes {
		r.time = max(shortRest, time.Duration(int64(r.time)*restBytes/int64(r.bytes)))
	} else {
		r.time = min(restTime, r.time+shortRest)
	}
	r.bytes = 0
	time.Sleep(r.time)
}

// fillReady takes what is ready, and says whether there was something. It does not wait
// for the rest of a record.
func (s *Stream) fillReady(patience time.Duration) bool {
	if !s.ahead.holds() && !s.window.Ready(patience) {
		return false
	}
	if s.ahead == nil {
		before := s.frames.buffered()
		return s.fill() == nil && s.frames.buffered() > before
	}
	if s.ahead.refill() != nil {
		return false
	}
	s.heard = time.Now()
	s.drain()
	return true
}
