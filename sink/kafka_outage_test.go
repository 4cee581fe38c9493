package sink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

// outage is a network that can be taken away: then there is no way to a broker, or a
// proxy in front of it that hangs up.
type outage struct {
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	proxy bool
	mu    sync.Mutex
	gone  bool
	conns []net.Conn
}

// hungUp is a connection whose other end closed it, as TCP tells of it.
type hungUp struct{ net.Conn }

func (hungUp) Write(b []byte) (int, error) { return len(b), nil }
func (hungUp) Read([]byte) (int, error)    { return 0, io.EOF }

func (o *outage) connect(ctx context.Context, network, address string) (net.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone && o.proxy {
		near, _ := net.Pipe()
		return hungUp{near}, nil
	}
	if o.gone {
		return nil, errors.New("no route to host")
	}
	conn, err := o.dial(ctx, network, address)
	if err == nil {
		o.conns = append(o.conns, conn)
	}
	return conn, err
}

func (o *outage) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone = true
	for _, conn := range o.conns {
		conn.Close()
	}
}

func (o *outage) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone = false
}

func TestAnOutageOfHoursFailsNothingAndRepeatsNothing(t *testing.T) {
	t.Run("no way", func(t *testing.T) { anOutageFailsNothing(t, false) })
	t.Run("a proxy that hangs up", func(t *testing.T) { anOutageFailsNothing(t, true) })
}

func anOutageFailsNothing(t *testing.T, proxy bool) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 3, kfake.SeedTopics(6, topic, "other"))
		network := &outage{dial: fake.network.DialContext, proxy: proxy}
		o := fake.options(topic)
		o.Dial, o.BufferBytes = network.connect, 4000
		s := fake.open(t, o)

		var sent []sink.Message
		var stop atomic.Bool
		var sending sync.WaitGroup
		sending.Go(func() {
			for n := 0; ; n++ {
				time.Sleep(10 * time.Millisecond)
				if t.Failed() || stop.Load() {
					return
				}
				m := message(fmt.Sprintf("key-%d", n%10), n)
				if err := s.Send(t.Context(), []sink.Message{m}, func(err error) {
					if err != nil {
						t.Errorf("message %d failed: %v", n, err)
					}
				}); err != nil {
					t.Errorf("Send: %v", err)
					return
				}
				sent = append(sent, m)
			}
		})
		for range 3 {
			time.Sleep(2 * time.Second)
			network.begin()
			time.Sleep(time.Hour)
			if got := unreached(t, s); !proxy && !strings.Contains(got, "no route to host") {
				t.Errorf("what kept us from the broker is %q, want the network's own words", got)
			}
			network.end()
		}
		time.Sleep(time.Minute)
		if got := unreached(t, s); got != "" {
			t.Errorf("after the outage we are kept from the broker by %q", got)
		}
		stop.Store(true)
		sending.Wait()
		flush(t, s)
		if len(sent) < 500 {
			t.Errorf("%d messages were sent, want the stream to go on after each outage", len(sent))
		}
		if diff := cmp.Diff(byKey(sent), byKey(fake.stored(t, topic))); diff != "" {
			t.Errorf("stored differs from sent (-sent +stored):\n%s", diff)
		}
	})
}

func unreached(tb testing.TB, s sink.Sink) string {
	tb.Helper()
	seeker, ok := s.(sink.Seeker)
	if !ok {
		tb.Fatal("the sink does not say what keeps it from its broker")
	}
	return seeker.Unreached()
}

func byKey(msgs []sink.Message) map[string][]string {
	values := make(map[string][]string)
	for _, m := range msgs {
		values[string(m.Key)] = append(values[string(m.Key)], string(m.Value))
	}
	return values
}

func TestALookupOfATopicOutlastsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		network := &outage{dial: fake.network.DialContext}
		o := fake.options()
		o.Dial = network.connect
		s := fake.open(t, o)
		network.begin()
		time.AfterFunc(time.Hour, network.end)
		if err := s.Send(t.Context(), []sink.Message{message("a", 1)}, ignore); err != nil {
			t.Errorf("Send during an outage: %v, want it to wait", err)
		}
		flush(t, s)

		network.begin()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		other := message("a", 2)
		other.Topic = "other"
		if err := s.Send(ctx, []sink.Message{other}, ignore); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send gives %v at the end of its context, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestCloseDuringAnOutageIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(1, topic))
		network := &outage{dial: fake.network.DialContext}
		o := fake.options(topic)
		o.Dial = network.connect
		s := fake.open(t, o)
		network.begin()
		acks := 0
		if err := s.Send(t.Context(), []sink.Message{message("a", 1), message("b", 1)}, func(err error) {
			acks++
			wantClass(t, err, fault.Transient, "closed")
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		within(t, 5*time.Second, func() { closeSink(t, s) })
		if acks != 2 {
			t.Errorf("%d acks, want 2", acks)
		}
	})
}

func TestAnOutageDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 3, kfake.SeedTopics(20, topic))
		network := &outage{dial: fake.network.DialContext}
		var log lockedBuffer
		o := fake.options(topic)
		o.Dial = network.connect
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := fake.open(t, o)
		network.begin()
		for n := range 100 {
			if err := s.Send(t.Context(), []sink.Message{message(fmt.Sprintf("key-%d", n), n)}, ignore); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		closeSink(t, s)
		if lines := strings.Count(log.String(), "\n"); lines == 0 || lines > 300 {
			t.Errorf("an outage of an hour is logged in %d lines, want some and at most 300:\n%.2000s", lines, log.String())
		}
	})
}
