package sink_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/sink"
)

// What is acked is the sender's again, and counts in no budget any more. So it must not
// live on in the sink, which reuses memory of its own that points to it.
func TestAValueThatIsAckedIsLetGo(t *testing.T) {
	const messages, bytes, few = 100, 500_000, 3
	var alive atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKafka(t, 1, kfake.SeedTopics(1, "t"))
		s := f.open(t, f.options("t"), "compression.type=none")
		for range messages {
			value := make([]byte, bytes)
			alive.Add(1)
			runtime.AddCleanup(&value[0], func(n *atomic.Int64) { n.Add(-1) }, &alive)
			acked := make(chan error, 1)
			if err := s.Send(t.Context(), []sink.Message{{Topic: "t", Key: []byte("k"), Value: value, Time: time.Now()}}, func(err error) { acked <- err }); err != nil {
				t.Fatal(err)
			}
			if err := <-acked; err != nil {
				t.Fatal(err)
			}
		}
		for range 10 { // what is cleaned up is told on a goroutine of the runtime's
			runtime.GC()
			time.Sleep(time.Millisecond) // the bubble's clock
		}
		if n := alive.Load(); n > few {
			t.Errorf("%d of %d values of %d bytes are still held after their acks, want at most %d", n, messages, bytes, few)
		}
	})
}

// A record that the broker does not take yet is written anew with each try. Its memory is
// its own until then, however much is sent and acked meanwhile.
func TestTheMemoryOfARecordIsItsOwnUntilItsAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKafka(t, 1, kfake.SeedTopics(1, topic, "late"))
		s := f.open(t, f.options(topic, "late"))
		refused := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "late", Err: kerr.NotLeaderForPartition, Count: -1})
		var acked atomic.Int64
		send := func(msgs ...sink.Message) {
			t.Helper()
			if err := s.Send(t.Context(), msgs, func(err error) {
				if err != nil {
					t.Errorf("acked with %v", err)
				}
				acked.Add(1)
			}); err != nil {
				t.Fatal(err)
			}
		}
		late := message("late", 0)
		late.Topic = "late"
		send(late)
		const others = 2000 // which take the memory of some hundred records again and again
		for n := range others {
			send(message("a", n))
			time.Sleep(10 * time.Millisecond)
		}
		if n := acked.Load(); n != others {
			t.Errorf("%d messages are acked, want all but the late one", n)
		}
		refused.Remove()
		flush(t, s)
		stored := f.stored(t, "late")
		if len(stored) != 1 || string(stored[0].Key) != "late" {
			t.Errorf("stored is %v, want the late message", stored)
		}
	})
}
