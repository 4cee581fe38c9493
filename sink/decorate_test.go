package sink_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/sink"
)

// taker takes everything at once and remembers when.
type taker struct {
	messages []sink.Message
	times    []time.Time
}

func (k *taker) Send(_ context.Context, msgs []sink.Message, ack sink.Ack) error {
	for i := range msgs {
		k.messages = append(k.messages, msgs[i])
		k.times = append(k.times, time.Now())
		ack(nil)
	}
	return nil
}
func (k *taker) Flush(context.Context) error { return nil }
func (k *taker) Close() error                { return nil }

func someMessages(n int) []sink.Message {
	msgs := make([]sink.Message, n)
	for i := range msgs {
		msgs[i] = sink.Message{Key: []byte(strconv.Itoa(i))}
	}
	return msgs
}

func TestATaggedMessageHasOneMoreHeaderAndTheCallersIsAsItWas(t *testing.T) {
	under := &taker{}
	shared := []sink.Header{{Key: "a"}, {Key: "b"}}
	msgs := []sink.Message{{Key: []byte("1"), Headers: shared[:1]}, {Key: []byte("2"), Headers: shared[:1]}}
	s := sink.Tagged(under, sink.Header{Key: "tag", Value: []byte("x")})
	if err := s.Send(t.Context(), msgs, func(error) {}); err != nil {
		t.Fatal(err)
	}
	want := []sink.Header{{Key: "a"}, {Key: "tag", Value: []byte("x")}}
	for i, m := range under.messages {
		if diff := cmp.Diff(want, m.Headers); diff != "" {
			t.Errorf("headers of message %d (-want +got):\n%s", i, diff)
		}
	}
	if shared[1].Key != "b" || len(msgs[0].Headers) != 1 {
		t.Errorf("the caller's headers were changed: %v", shared)
	}
}

func TestALimitedSinkIsHandedNoMoreASecondAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := &taker{}
		s := sink.Limited(under, 100)
		began := time.Now()
		acked := 0
		for _, n := range []int{1, 249, 50} {
			if err := s.Send(t.Context(), someMessages(n), func(error) { acked++ }); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 2900*time.Millisecond || took > 3*time.Second {
			t.Errorf("300 messages at 100 a second took %v", took)
		}
		for i, at := range under.times {
			if latest := int(at.Sub(began)*100/time.Second) + 10; i > latest {
				t.Fatalf("message %d was handed over after %v", i, at.Sub(began))
			}
		}
		if acked != 300 {
			t.Errorf("%d acks, want 300", acked)
		}
		time.Sleep(time.Hour) // which is not saved up
		began = time.Now()
		if err := s.Send(t.Context(), someMessages(101), func(error) {}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 900*time.Millisecond {
			t.Errorf("101 messages after a pause took %v", took)
		}
	})
}

func TestALimitedSinkGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		under := &taker{}
		if err := sink.Limited(under, 1).Send(ctx, someMessages(10), func(error) {}); err == nil {
			t.Error("Send ended without an error when its context had")
		}
		if n := len(under.messages); n == 0 || n > 2 {
			t.Errorf("%d messages within a second at 1 a second", n)
		}
	})
}
