package test

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// delivery is what a topic holds, judged against the workload that was written.
type delivery struct {
	events     int // first occurrences
	duplicates int
}

// checkDelivery: the topic holds exactly the committed events; in each partition
// first occurrences of an aggregate come in commit order; what comes twice comes
// with the same position; positions of first occurrences rise; the partition is the
// one that Java's client chooses.
func checkDelivery(tb testing.TB, w *workload, records []*kgo.Record, partitions int32) delivery {
	tb.Helper()
	seen := map[string]int64{}            // events of each aggregate so far
	positions := map[string]string{}      // of each event
	highest := make([]string, partitions) // position so far of each partition
	var d delivery
	for _, r := range records {
		id, n, position := string(r.Key), numberOf(tb, r), headerOf(tb, r, "outboxcdc-position")
		if want := javaPartition(r.Key, partitions); r.Partition != want {
			tb.Fatalf("aggregate %s is in partition %d, Java puts it into %d", id, r.Partition, want)
		}
		event := id + "#" + strconv.FormatInt(n, 10)
		if first, known := positions[event]; known {
			d.duplicates++
			if first != position {
				tb.Fatalf("event %s came with position %s and again with %s", event, first, position)
			}
			continue
		}
		if n != seen[id]+1 {
			tb.Fatalf("event %s came after event %d of the aggregate", event, seen[id])
		}
		if padded := padPosition(tb, position); padded <= highest[r.Partition] {
			tb.Fatalf("event %s at %s came after %s in partition %d", event, position, highest[r.Partition], r.Partition)
		} else {
			highest[r.Partition] = padded
		}
		positions[event] = position
		seen[id] = n
		d.events++
	}
	for id, last := range w.last(tb) {
		if seen[id] != last {
			tb.Errorf("aggregate %s: the topic holds events up to %d, the table %d", id, seen[id], last)
		}
	}
	if int64(d.events) != w.written.Load() {
		tb.Errorf("the topic holds %d events, %d were committed", d.events, w.written.Load())
	}
	return d
}

func numberOf(tb testing.TB, r *kgo.Record) int64 {
	tb.Helper()
	var payload struct{ N int64 }
	if err := json.Unmarshal(r.Value, &payload); err != nil || payload.N == 0 {
		tb.Fatalf("payload %q is not one of the workload: %v", r.Value, err)
	}
	return payload.N
}

func headerOf(tb testing.TB, r *kgo.Record, key string) string {
	tb.Helper()
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	tb.Fatalf("record has no header %s", key)
	return ""
}

// padPosition makes the index of a position as wide as its LSN, so that the order
// of the texts is the order of the events.
func padPosition(tb testing.TB, position string) string {
	tb.Helper()
	lsn, index, ok := strings.Cut(position, "/")
	if !ok || len(lsn) != 16 {
		tb.Fatalf("position %q is not 16 digits, a slash and an index", position)
	}
	return lsn + strings.Repeat("0", 12-len(index)) + index
}

// javaPartition is what Kafka's Java client does with a key: murmur2, the sign
// masked, modulo the partitions (Utils.java and BuiltInPartitioner.java).
func javaPartition(key []byte, partitions int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % partitions
}

func murmur2(data []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

// TestJavaPartitionIsJavas holds the vectors of Kafka's own UtilsTest.
func TestJavaPartitionIsJavas(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, Java says %d", key, got, want)
		}
	}
}
