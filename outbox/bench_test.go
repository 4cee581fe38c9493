package outbox_test

import (
	"fmt"
	"testing"

	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// BenchmarkMap maps batches as a large piece of the log makes them.
func BenchmarkMap(b *testing.B) {
	for name, headers := range map[string]any{"headers=none": nil, "headers=two": `{"trace": "00-ab", "n": 1}`} {
		b.Run(name, func(b *testing.B) {
			m := mapper(b, "outbox.event.{aggregate_type}")
			rows := make([]wal.Row, 256)
			for i := range rows {
				rows[i] = row("f3", "order", fmt.Sprint("o-", i), "placed", "{}", headers)
				rows[i].Index = i
			}
			messages := make([]sink.Message, 0, len(rows))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Map(rows, messages); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(rows)), "ns/event")
		})
	}
}
