package sink_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/sink"
)

func TestAnEventOnAQuietLogDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(6, topic))
		s := fake.open(t, fake.options(topic), "linger.ms=10000")
		for n := range 20 {
			acked := make(chan error, 1)
			began := time.Now()
			if err := s.Send(t.Context(), []sink.Message{message("a", n)}, func(err error) { acked <- err }); err != nil {
				t.Fatal(err)
			}
			if err := <-acked; err != nil {
				t.Fatal(err)
			}
			// With the first one the client asks for the topic's partitions.
			if waited := time.Since(began); n > 0 && waited > time.Second {
				t.Fatalf("event %d was acked after %v, want at once", n, waited)
			}
		}
	})
}

func TestEventsOfABusyLogLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(6, topic))
		s := fake.open(t, fake.options(topic), "linger.ms=10000")
		if err := s.Send(t.Context(), []sink.Message{message("a", 0)}, ignore); err != nil {
			t.Fatal(err)
		}
		flush(t, s) // the client knows the topic's partitions now
		var batch []sink.Message
		for n := range 200 {
			m := message("a", n)
			m.Value = make([]byte, 1000)
			batch = append(batch, m)
		}
		began := time.Now()
		if err := s.Send(t.Context(), batch, ignore); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if stored := len(fake.stored(t, topic)); stored != 1 {
			t.Errorf("%d events have left %v after they were sent, want them to gather", stored, time.Since(began))
		}
		flush(t, s)
		if stored := len(fake.stored(t, topic)); stored != 1+len(batch) {
			t.Errorf("%d events are stored, want %d", stored, 1+len(batch))
		}
	})
}
