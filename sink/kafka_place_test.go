package sink_test

import (
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

func TestAMessageGoesWhereItIsPlaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.SeedTopics(6, topic))
		s := fake.open(t, fake.options(topic))
		for n := range 6 {
			placed := message("a", n)
			placed.Partition, placed.Placed = int32(n), true
			if err := s.Send(t.Context(), []sink.Message{placed, message("a", n)}, ignore); err != nil {
				t.Fatal(err)
			}
		}
		flush(t, s)
		counts := map[int32]int{}
		for _, r := range fake.records(t, topic) {
			counts[r.Partition]++
		}
		for n := range int32(6) {
			want := 1
			if n == 4 { // Java's for the key a
				want = 7
			}
			if counts[n] != want {
				t.Errorf("partition %d has %d records, want %d", n, counts[n], want)
			}
		}
	})
}

func TestAPartitionThatIsNotThereIsADataErrorAndNothingHangs(t *testing.T) {
	for _, partition := range []int32{2, 1 << 30} {
		synctest.Test(t, func(t *testing.T) {
			fake := newFakeKafka(t, 1, kfake.SeedTopics(2, topic))
			s := fake.open(t, fake.options(topic))
			placed := message("a", 2)
			placed.Partition, placed.Placed = partition, true
			var acked []error
			err := s.Send(t.Context(), []sink.Message{message("a", 1), placed, message("a", 3)}, func(err error) { acked = append(acked, err) })
			wantClass(t, err, fault.Data, topic)
			flush(t, s)
			if got := len(fake.stored(t, topic)); got != 1 || len(acked) != 2 {
				t.Errorf("%d messages are stored and %d acked, want the one before and the bad one's", got, len(acked))
			}
		})
	}
}
