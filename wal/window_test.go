package wal

import (
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// gulps is a connection on which so much comes each time that somebody waits for it, and
// at last a message that is alone.
type gulps struct {
	net.Conn

	sizes []int
	mark  int
	marks []int
	here  int
	alone int
	every time.Duration // what each takes
	err   error
}

func (c *gulps) SetReadDeadline(time.Time) error { return nil }

func (c *gulps) SetLowWater(bytes int) error {
	c.mark, c.marks = bytes, append(c.marks, bytes)
	return nil
}

func (c *gulps) Ready(patience time.Duration) bool {
	switch {
	case c.mark == 1:
		c.here, c.alone = c.here+c.alone, 0
		return c.here > 0 || c.err != nil
	case len(c.sizes) == 0:
		time.Sleep(patience)
		return false
	default:
		time.Sleep(c.every)
		c.here, c.sizes = c.sizes[0], c.sizes[1:]
		return true
	}
}

func (c *gulps) Read(p []byte) (int, error) {
	switch {
	case c.here > 0:
		n := min(c.here, len(p))
		copy(p, []byte{'d', 0, 0x40, 0, 0}) // of a message of 4 MiB
		c.here -= n
		return n, nil
	case c.err != nil:
		return 0, c.err
	default:
		return 0, os.ErrDeadlineExceeded
	}
}

// inBacklog is a stream of a connection with a small window that has a backlog.
func inBacklog(conn net.Conn) *Stream {
	s := newStream(conn, newFrameReader(conn), Config{}, 0)
	s.pace = pace{await: func(int) error { return nil }, waited: true, windows: busyWindows, since: time.Now(), messages: 1 << 20}
	return s
}

func TestAPullRestsAndThenTakesWhatIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		gulps []int
		alone int
		every time.Duration
		err   error
		full  bool // the pull before
		want  int
		some  bool
		took  time.Duration
	}{
		"nothing":                 {took: restTime + pullPatience},
		"a message":               {alone: 100, want: 100, some: true, took: restTime + pullPatience},
		"much":                    {gulps: []int{20_000, 16_384}, want: 36_384, some: true, took: restTime + pullPatience},
		"much and a message":      {gulps: []int{20_000, 16_384}, alone: 100, want: 36_484, some: true, took: restTime + pullPatience},
		"more than there is room": {gulps: []int{100_000, 92_000, 30_000, 50_000}, want: 222_000, some: true, took: restTime},
		"a trickle":               {gulps: slices.Repeat([]int{100}, 1000), every: pullTime / 20, want: 2000, some: true, took: restTime + pullTime},
		"behind a full one":       {gulps: []int{20_000}, full: true, want: 20_000, some: true, took: pullPatience},
		"the end":                 {gulps: []int{20_000, 0}, err: io.EOF, want: 20_000, some: true, took: restTime},
		"a late deadline":         {gulps: []int{20_000, 0}, want: 20_000, some: true, took: restTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := &gulps{sizes: c.gulps, alone: c.alone, every: c.every, err: c.err}
				s := inBacklog(conn)
				s.full = c.full
				began := time.Now()
				if some, err := s.gather(began); err != nil || some != c.some {
					t.Errorf("it has read something: %v (%v), want %v", some, err, c.some)
				}
				if got := s.frames.buffered(); got != c.want {
					t.Errorf("%d bytes, want %d", got, c.want)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				if len(conn.marks) != 2 || conn.marks[0] != pullBytes || conn.mark != 1 {
					t.Errorf("low-water marks %d, want %d and then 1: a row would wait for company", conn.marks, pullBytes)
				}
			})
		})
	}
}

func TestWhatPullsBringIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &gulps{sizes: []int{200_000, 20_000}}
		s := inBacklog(conn)
		for range 2 {
			if some := s.pull(); !some {
				t.Fatal("a pull brought nothing")
			}
			s.frames.start, s.frames.end = 0, 0 // taken
		}
		if s.rest.bytes != 220_000 {
			t.Errorf("%d bytes since the last rest, want 220000", s.rest.bytes)
		}
	})
}

// TestAMessageLargerThanTheBufferIsPulled: where nothing can be taken out of a full
// buffer, the next fill makes it larger.
func TestAMessageLargerThanTheBufferIsPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &gulps{sizes: []int{readBufferBytes}}
		s := inBacklog(conn)
		if some, err := s.gather(time.Now()); !some || err != nil {
			t.Fatalf("it has read something: %v (%v), want a full buffer", some, err)
		}
		conn.sizes = []int{1000}
		s.pace.messages = 1 << 20
		if some, err := s.gather(time.Now()); some || err != nil {
			t.Errorf("it has read something: %v (%v), want that the next fill does", some, err)
		}
	})
}

func TestAPullTakesWhatWasReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &gulps{}
		s := inBacklog(conn)
		s.ahead = &readAhead{Conn: conn, ahead: true, buf: append([]byte{'d', 0, 0x40, 0, 0}, make([]byte, 95)...), end: 100}
		s.frames.r = s.ahead
		if some, err := s.gather(time.Now()); !some || err != nil || s.frames.buffered() != 100 {
			t.Errorf("it has read something: %v (%v), %d bytes, want the 100 that wait for nobody", some, err, s.frames.buffered())
		}
	})
}

func TestRestsAreTheShorterTheMoreThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rest{time: restTime}
		rested := func(brought int) time.Duration {
			r.bytes = brought
			began := time.Now()
			r.again()
			return time.Since(began)
		}
		for range 10 {
			if took := rested(restBytes); took != restTime {
				t.Fatalf("a rest of %v, want %v", took, restTime)
			}
		}
		if took := rested(2 * restBytes); took != restTime/2 {
			t.Errorf("a rest of %v where twice as much comes as is good, want %v", took, restTime/2)
		}
		if took := rested(100 * restBytes); took != shortRest {
			t.Errorf("a rest of %v where much comes, want %v", took, shortRest)
		}
		for n := 2; n <= 8; n++ {
			if took := rested(0); took != time.Duration(n)*shortRest {
				t.Errorf("a rest of %v where little comes again, want %v", took, time.Duration(n)*shortRest)
			}
		}
	})
}

func TestALiveLogIsNotPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &gulps{sizes: []int{1000}}
		s := inBacklog(conn)
		s.pace.late = true
		s.pace.sent(0)
		if some, err := s.gather(time.Now()); some || err != nil || len(conn.marks) > 0 {
			t.Errorf("it has read something: %v (%v), low-water marks %d, want none", some, err, conn.marks)
		}
	})
}
