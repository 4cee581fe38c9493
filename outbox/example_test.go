package outbox_test

import (
	"fmt"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/wal"
)

// withSource is the native format with one more header: who wrote the event.
type withSource struct{ outbox.Native }

func (withSource) Reserved(header string) bool {
	return header == "source" || outbox.Native{}.Reserved(header)
}

func (f withSource) Bind(source outbox.Source) (outbox.Encoder, error) {
	native, err := f.Native.Bind(source)
	return sourced{native}, err
}

type sourced struct{ outbox.Encoder }

func (s sourced) Encode(d *outbox.Draft) error {
	d.AddHeader("source", []byte("shop"))
	return s.Encoder.Encode(d)
}

// A mapping of one's own: a Format of which the Mapper asks what is special.
func ExampleFormat() {
	tables := []wal.Table{{Schema: "public", Name: "outbox"}}
	plan, err := outbox.NewPlan(outbox.Config{Format: withSource{}, Default: outbox.Mapping{Topic: "shop.{aggregate_type}"}}, tables)
	if err != nil {
		fmt.Println(err)
		return
	}
	row := wal.Row{}
	values := map[string]string{"aggregate_type": "order", "aggregate_id": "42", "event_type": "OrderPaid", "payload": `{"total": 1}`}
	for _, column := range plan.Tables()[0].Columns {
		var value []byte
		if text, ok := values[column.Name]; ok {
			value = []byte(text)
		}
		row.Columns = append(row.Columns, value)
	}
	messages, err := outbox.NewMapper(plan).Map([]wal.Row{row}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	m := messages[0]
	fmt.Printf("%s %s %s %s=%s\n", m.Topic, m.Key, m.Value, m.Headers[0].Key, m.Headers[0].Value)
	// Output: shop.order 42 {"total": 1} source=shop
}
