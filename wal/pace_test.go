package wal

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// log comes in at a pace, on a clock of its own.
type log struct {
	pace
	now   time.Time
	waits int
}

func newLog() *log {
	l := &log{now: time.Unix(1000, 0)}
	l.await = func(int) error { l.waits++; return nil }
	return l
}

// read is one round of the reader: messages come within the time it takes.
func (l *log) read(messages int, takes time.Duration) (waited bool) {
	if waited = l.wants(l.now); waited {
		l.wait()
		takes = coalesceTime
	}
	l.now = l.now.Add(takes)
	l.got(messages)
	return waited
}

func TestABacklogIsWaitedForAndALiveLogIsNot(t *testing.T) {
	for _, c := range []struct {
		name     string
		messages int           // of each read
		every    time.Duration // between two reads
		want     bool
	}{
		{"one row a transaction, backlog", 1, 5 * time.Microsecond, true},
		{"large pieces, backlog", 800, 3 * time.Millisecond, true},
		{"a slow reader, backlog", 3000, 50 * time.Millisecond, true},
		{"a thousand rows a second", 3, time.Millisecond, false},
		{"five thousand rows a second", 3, 200 * time.Microsecond, false},
		{"a hundred rows every ten milliseconds", 102, 10 * time.Millisecond, false},
		{"idle", 1, time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog()
			for range 2000 {
				l.read(c.messages, c.every)
			}
			if (l.waits > 0) != c.want {
				t.Errorf("waited %d times, want waits: %v", l.waits, c.want)
			}
		})
	}
}

func TestABurstIsNotWaitedFor(t *testing.T) {
	l := newLog()
	for range 100 {
		l.read(1, time.Second)
		for range 100 {
			l.read(2, 10*time.Microsecond)
		}
	}
	if l.waits > 0 {
		t.Errorf("waited %d times in bursts of a millisecond", l.waits)
	}
}

// backlog brings a log to the point where it is waited for.
func backlog(t *testing.T) *log {
	t.Helper()
	l := newLog()
	for range 1000 {
		if l.read(1, 10*time.Microsecond) {
			return l
		}
	}
	t.Fatal("a backlog is not waited for")
	return nil
}

func TestAWaitThatBroughtMuchIsRepeatedAtOnce(t *testing.T) {
	l := backlog(t)
	l.got(500)
	for range 100 {
		if !l.read(500, 0) {
			t.Fatal("a backlog is not waited for any more")
		}
	}
}

func TestWaitsThatBringLittleEndTheWaiting(t *testing.T) {
	l := backlog(t)
	l.waits = 0
	for range 1000 {
		l.read(3, time.Millisecond)
	}
	if l.waits > poorWaits {
		t.Errorf("%d reads after the backlog wait for company, want %d at the most", l.waits, poorWaits)
	}
}

func TestAPauseInABacklogDoesNotEndTheWaiting(t *testing.T) {
	l := backlog(t)
	for range 100 {
		if !l.read(500, 0) || !l.read(0, 0) || !l.read(1, 0) {
			t.Fatal("a backlog with pauses is not waited for any more")
		}
	}
}

func TestASystemWithoutTheMarkIsAskedOnce(t *testing.T) {
	l := backlog(t)
	l.await = func(int) error { l.waits++; return errors.Join(syscall.ENOPROTOOPT) }
	l.waits = 0
	for range 1000 {
		l.read(1000, time.Millisecond)
	}
	if l.waits != 1 {
		t.Errorf("asked %d times for what the system refuses, want once", l.waits)
	}
}

func TestALogThatIsLateIsWaitedForUntilItIsNot(t *testing.T) {
	l := newLog()
	for range 1000 {
		l.sent(time.Millisecond)
		l.read(3, time.Millisecond)
	}
	if l.waits > 0 {
		t.Fatalf("%d waits for a log that comes in time", l.waits)
	}
	l.sent(lateTime)
	for range 100 { // which is busy once it need not wake us
		if !l.read(60, time.Millisecond) {
			t.Fatal("a log that is late is not waited for")
		}
		l.sent(20 * time.Millisecond)
	}
	l.sent(time.Millisecond)
	if l.read(60, time.Millisecond) {
		t.Error("a log that comes in time again is waited for")
	}
}

func TestAFastLogThatComesInTimeIsNotWaitedFor(t *testing.T) {
	l := newLog()
	for range 1000 {
		l.sent(time.Millisecond)
		l.read(100, time.Millisecond)
	}
	if l.waits > 0 {
		t.Errorf("%d waits for a log of 100,000 messages a second that comes in time", l.waits)
	}
	for range 10 { // sent before it was committed: another clock
		l.sent(-time.Second)
		l.read(100, time.Millisecond)
	}
	if l.waits == 0 {
		t.Error("no waits for a log that is as fast as a backlog, and nobody knows whether it is one")
	}
}

func TestALogThatIsLateForEverIsNotWaitedForForEver(t *testing.T) {
	l := newLog()
	for range 1000 {
		l.sent(time.Hour)
		l.read(3, time.Millisecond)
	}
	if l.waits == 0 || l.waits > poorWaits+1 {
		t.Errorf("%d waits, want %d at the most and some", l.waits, poorWaits+1)
	}
}

// trickle is a connection on which a message comes with each read, at once.
type trickle struct {
	net.Conn

	reads int
}

func (c *trickle) SetReadDeadline(time.Time) error { return nil }

func (c *trickle) Read(p []byte) (int, error) {
	c.reads++
	if c.reads > 1000 {
		return 0, io.EOF
	}
	return copy(p, []byte{'d', 0, 0, 0, 9, 1, 2, 3, 4, 5}), nil
}

func TestWhereTheKernelDoesNotGatherTheReaderDoesForTwoMilliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &trickle{}
		s := newStream(conn, newFrameReader(conn), Config{}, 0)
		s.pace = pace{await: nap, naps: true, waited: true, windows: busyWindows, since: time.Now(), messages: 1 << 20}
		began := time.Now()
		if some, err := s.gather(began); !some || err != nil {
			t.Errorf("it has read something: %v (%v); the next read would wait for more", some, err)
		}
		if took := time.Since(began); took < coalesceTime || took > coalesceTime+napTime {
			t.Errorf("gathered for %v, want %v", took, coalesceTime)
		}
		if got, want := s.frames.buffered()/10, int(coalesceTime/napTime)-1; got != want {
			t.Errorf("%d messages in one piece, want the %d that came meanwhile", got, want)
		}
		conn.reads = 1000
		if some, err := s.gather(began.Add(time.Hour)); some || err != nil {
			t.Errorf("the end of the connection is %v and %v while gathering, want that the next read finds it", some, err)
		}
		if s.fill() == nil {
			t.Error("the end of the connection is not found")
		}
	})
}
