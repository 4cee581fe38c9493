// Package sinktest holds the promises of sink.Sink as tests. A sink is one when it
// passes Run, or RunInBubble where its network and its clock can be simulated.
//
// It knows the contract only; what stands behind a sink it sees through a Harness.
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outboxcdc/outboxcdc/sink"
)

// Harness is a sink to which nothing was sent yet, and a hand on its broker.
type Harness struct {
	Sink  sink.Sink
	Topic string

	// Stored is all that the broker holds of Topic. The order counts among messages
	// of one key only. It may be called when the sink is closed.
	Stored func(tb testing.TB) []sink.Message

	// Hold stops the broker from acknowledging, until resume is called. Nil where
	// that cannot be done; the tests that need it are then left out.
	Hold func(tb testing.TB) (resume func())

	// Refuse makes the broker refuse one batch that comes next with messages of key,
	// and take what comes after it. Nil as above.
	Refuse func(tb testing.TB, key string)

	// BufferBytes is what the sink holds before Send blocks.
	BufferBytes int

	// Table says that the broker keeps headers as a table: names have no order, and
	// only the values of one name keep theirs.
	Table bool
}

// Open makes a Harness for one test and has it cleaned up by tb. The sink is closed
// by the test.
type Open func(tb testing.TB) *Harness

// patience is how long a test waits for what must happen; it is never waited for
// where it does.
const patience = time.Minute

// Run runs every promise as a subtest.
func Run(t *testing.T, open Open) {
	run(t, open, func(t *testing.T, body func(t *testing.T)) { body(t) })
}

// RunInBubble is Run, with each subtest in a bubble of testing/synctest.
func RunInBubble(t *testing.T, open Open) {
	run(t, open, synctest.Test)
}

func run(t *testing.T, open Open, around func(t *testing.T, body func(t *testing.T))) {
	promises := []struct {
		name string
		test func(t *testing.T, s *session)
	}{
		{"EachMessageIsAckedOnce", eachMessageIsAckedOnce},
		{"MessagesArriveWhole", messagesArriveWhole},
		{"KeysKeepTheirOrder", keysKeepTheirOrder},
		{"FlushWaitsForAcks", flushWaitsForAcks},
		{"FlushWithNothingSentReturns", flushWithNothingSentReturns},
		{"CloseAcksTheRestWithAnError", closeAcksTheRest},
		{"SendBlocksWhileFull", sendBlocksWhileFull},
		{"NothingIsTouchedAfterItsAck", nothingIsTouchedAfterItsAck},
		{"AFailedMessageStopsTheLine", aFailedMessageStopsTheLine},
	}
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			around(t, func(t *testing.T) { p.test(t, &session{Harness: open(t)}) })
		})
	}
}

// session is one test's use of a sink, with the acks that came.
type session struct {
	*Harness

	mu     sync.Mutex
	stored int     // acks without an error
	failed []error // the others
}

func (s *session) ack(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.stored++
		return
	}
	s.failed = append(s.failed, err)
}

// acked is how many acks came, and the errors among them.
func (s *session) acked() (stored int, failed []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored, slices.Clone(s.failed)
}

func (s *session) send(tb testing.TB, msgs ...sink.Message) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := s.Sink.Send(ctx, msgs, s.ack); err != nil {
		tb.Fatalf("Send of %d messages: %v", len(msgs), err)
	}
}

func (s *session) flush(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := s.Sink.Flush(ctx); err != nil {
		tb.Fatalf("Flush: %v", err)
	}
}

func (s *session) close(tb testing.TB) {
	tb.Helper()
	if err := s.Sink.Close(); err != nil {
		tb.Fatalf("Close: %v", err)
	}
}

// wantAcks fails unless exactly so many acks came.
func (s *session) wantAcks(tb testing.TB, stored, failed int) {
	tb.Helper()
	gotStored, errs := s.acked()
	if gotStored != stored || len(errs) != failed {
		tb.Fatalf("%d messages were acked and %d failed, want %d and %d; errors: %v", gotStored, len(errs), stored, failed, errors.Join(errs...))
	}
}

// message is the n-th of key; its value names it.
func (s *session) message(key string, n int) sink.Message {
	return sink.Message{
		Topic:   s.Topic,
		Key:     []byte(key),
		Value:   fmt.Appendf(nil, `{"n":%d}`, n),
		Headers: []sink.Header{{Key: "id", Value: fmt.Appendf(nil, "%s-%d", key, n)}},
		Time:    time.UnixMilli(1_700_000_000_000).UTC(),
	}
}

// valuesOf are the values of messages by key, in order.
func valuesOf(msgs []sink.Message) map[string][]string {
	values := make(map[string][]string)
	for _, m := range msgs {
		values[string(m.Key)] = append(values[string(m.Key)], string(m.Value))
	}
	return values
}

func eachMessageIsAckedOnce(t *testing.T, s *session) {
	const rounds = 20
	sent := 0
	for n := range rounds {
		var msgs []sink.Message
		for key := range n { // the first Send is of nothing
			msgs = append(msgs, s.message(fmt.Sprintf("key-%d", key), n))
		}
		s.send(t, msgs...)
		sent += n
	}
	s.flush(t)
	s.wantAcks(t, sent, 0)
	s.close(t)
	s.wantAcks(t, sent, 0)
}

func messagesArriveWhole(t *testing.T, s *session) {
	large := make([]byte, 10_000)
	for i := range large {
		large[i] = 'a' + byte(i%26)
	}
	sent := []sink.Message{
		s.message("plain", 1),
		{Topic: s.Topic, Key: []byte("null"), Value: nil, Time: time.UnixMilli(1).UTC()},
		{Topic: s.Topic, Key: []byte("empty"), Value: []byte{}, Time: time.UnixMilli(2).UTC()},
		{Topic: s.Topic, Key: []byte("large"), Value: large, Time: time.UnixMilli(3).UTC()},
		{Topic: s.Topic, Key: []byte("ключ \"\\\n"), Value: []byte("not { json, \x00\xff"), Time: time.UnixMilli(4).UTC()},
		{
			Topic: s.Topic, Key: []byte("headers"), Value: []byte(`{"a": [1, 2.50]}`), Time: time.UnixMilli(5).UTC(),
			Headers: []sink.Header{
				{Key: "twice", Value: []byte("1")}, {Key: "twice", Value: []byte("2")}, {Key: "null"}, {Value: []byte{}},
			},
		},
	}
	s.send(t, sent...)
	s.flush(t)
	s.close(t)
	if s.Table {
		for i := range sent {
			slices.SortStableFunc(sent[i].Headers, func(a, b sink.Header) int { return strings.Compare(a.Key, b.Key) })
		}
	}
	byKey := cmpopts.SortSlices(func(a, b sink.Message) bool { return string(a.Key) < string(b.Key) })
	if diff := cmp.Diff(sent, s.Stored(t), byKey, cmp.Comparer(sameHeaders)); diff != "" {
		t.Errorf("stored messages differ from sent ones (-sent +stored):\n%s", diff)
	}
}

// sameHeaders does not tell no headers from an empty list of them.
func sameHeaders(a, b []sink.Header) bool {
	return len(a) == 0 && len(b) == 0 || slices.EqualFunc(a, b, func(a, b sink.Header) bool { return cmp.Equal(a, b) })
}

func keysKeepTheirOrder(t *testing.T, s *session) {
	const keys, rounds = 50, 40
	var sent []sink.Message
	for n := range rounds {
		batch := make([]sink.Message, 0, keys)
		for key := range keys {
			batch = append(batch, s.message(fmt.Sprintf("key-%d", key), n))
		}
		for part := range slices.Chunk(batch, 1+n%7) {
			s.send(t, part...)
		}
		sent = append(sent, batch...)
	}
	s.flush(t)
	s.close(t)
	s.wantAcks(t, keys*rounds, 0)
	if diff := cmp.Diff(valuesOf(sent), valuesOf(s.Stored(t))); diff != "" {
		t.Errorf("order of keys differs (-sent +stored):\n%s", diff)
	}
}

func flushWaitsForAcks(t *testing.T, s *session) {
	if s.Hold == nil {
		s.close(t)
		return
	}
	resume := s.Hold(t)
	s.send(t, s.message("a", 1), s.message("b", 1))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Sink.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush with unacked messages gives %v at the end of its context, want %v", err, context.DeadlineExceeded)
	}
	s.wantAcks(t, 0, 0)
	resume()
	s.flush(t)
	s.wantAcks(t, 2, 0)
	s.close(t)
}

func flushWithNothingSentReturns(t *testing.T, s *session) {
	s.flush(t)
	s.close(t)
	s.wantAcks(t, 0, 0)
}

func closeAcksTheRest(t *testing.T, s *session) {
	if s.Hold == nil {
		s.close(t)
		return
	}
	resume := s.Hold(t)
	s.send(t, s.message("a", 1), s.message("b", 1), s.message("a", 2))
	s.close(t)
	s.wantAcks(t, 0, 3)
	resume()
	s.wantAcks(t, 0, 3)
}

func sendBlocksWhileFull(t *testing.T, s *session) {
	if s.Hold == nil {
		s.close(t)
		return
	}
	resume := s.Hold(t)
	value := make([]byte, 1000)
	var taken int
	var err error
	for err == nil && taken < s.BufferBytes/len(value)+10 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		m := s.message("full", taken)
		m.Value = value
		err = s.Sink.Send(ctx, []sink.Message{m}, s.ack)
		cancel()
		if err == nil {
			taken++
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send into a full sink gives %v at the end of its context, want %v", err, context.DeadlineExceeded)
	}
	s.wantAcks(t, 0, 0)
	resume()
	s.flush(t)
	s.wantAcks(t, taken, 0)
	s.send(t, s.message("full", taken))
	s.flush(t)
	s.close(t)
	s.wantAcks(t, taken+1, 0)
}

// nothingIsTouchedAfterItsAck gives the bytes of a message another content as soon as
// it is acked, as an arena does; under the race detector a late look is seen even
// where it does no harm.
func nothingIsTouchedAfterItsAck(t *testing.T, s *session) {
	const rounds = 200
	var sent []sink.Message
	for n := range rounds {
		sent = append(sent, s.message(fmt.Sprintf("key-%d", n%5), n))
		m := s.message(fmt.Sprintf("key-%d", n%5), n)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := s.Sink.Send(ctx, []sink.Message{m}, func(err error) {
			s.ack(err)
			scribble(m.Key)
			scribble(m.Value)
			scribble(m.Headers[0].Value)
			m.Headers[0].Key = "gone"
		})
		cancel()
		if err != nil {
			t.Fatalf("Send: %v", err)
		}
	}
	s.flush(t)
	s.close(t)
	s.wantAcks(t, rounds, 0)
	if diff := cmp.Diff(valuesOf(sent), valuesOf(s.Stored(t))); diff != "" {
		t.Errorf("values differ (-sent +stored):\n%s", diff)
	}
}

func scribble(b []byte) {
	for i := range b {
		b[i] = '#'
	}
}

// aFailedMessageStopsTheLine sends on while a batch fails. Whatever the sink has taken
// by the time it knows: the broker must hold a prefix of each key.
func aFailedMessageStopsTheLine(t *testing.T, s *session) {
	if s.Refuse == nil {
		s.close(t)
		return
	}
	const keys, most = 4, 5000
	var sent []sink.Message
	var err error
	for n := 0; n < most && err == nil; n++ {
		if n == 50 {
			s.flush(t)
			s.Refuse(t, "key-1")
		}
		m := s.message(fmt.Sprintf("key-%d", n%keys), n)
		sent = append(sent, m)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err = s.Sink.Send(ctx, []sink.Message{m}, s.ack)
		cancel()
	}
	s.flush(t)
	if err == nil {
		err = s.Sink.Send(t.Context(), []sink.Message{s.message("key-2", most)}, s.ack)
	}
	if err == nil {
		t.Errorf("Send goes on after a failed ack")
	}
	s.close(t)
	if _, failed := s.acked(); len(failed) == 0 {
		t.Errorf("no ack failed")
	}
	WantPrefixes(t, sent, s.Stored(t))
}

// WantPrefixes fails unless what is stored of each key is what was sent of it, up to
// some message.
func WantPrefixes(tb testing.TB, sent, stored []sink.Message) {
	tb.Helper()
	want := valuesOf(sent)
	for key, got := range valuesOf(stored) {
		if len(got) > len(want[key]) || !slices.Equal(got, want[key][:len(got)]) {
			tb.Errorf("stored of %s is no prefix of what was sent (-sent +stored):\n%s", key, cmp.Diff(want[key], got))
		}
	}
}
