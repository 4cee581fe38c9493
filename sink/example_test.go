package sink_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

// printer is a sink that prints events. What it was given is safe at once, so it acks at
// once; one that sends over a network acks when the other side holds the event durably.
type printer struct{}

func (printer) Send(_ context.Context, msgs []sink.Message, ack sink.Ack) error {
	for i := range msgs {
		fmt.Printf("%s %s %s\n", msgs[i].Topic, msgs[i].Key, msgs[i].Value)
		ack(nil)
	}
	return nil
}

func (printer) Flush(context.Context) error { return nil }
func (printer) Close() error                { return nil }

func init() {
	sink.Register("terminal", sink.Kind{
		Example: "terminal://",
		Parse: func(address, query string) (sink.Opener, error) {
			if address != "" || query != "" {
				return nil, fault.NewUsage(errors.New("the sink's URL cannot be used: nothing stands behind terminal://"), "leave it out")
			}
			return func(context.Context, sink.Options) (sink.Sink, error) { return printer{}, nil }, nil
		},
		Unpartitioned: true,
	})
}

// A program brings a sink of its own and registers it when it starts; Sink in
// pipeline.Config may then be terminal://.
func ExampleRegister() {
	s, err := sink.Open(context.Background(), "terminal://", sink.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	message := sink.Message{Topic: "outbox.event.order", Key: []byte("42"), Value: []byte(`{"total": 12.50}`)}
	if err := s.Send(context.Background(), []sink.Message{message}, func(error) {}); err != nil {
		fmt.Println(err)
	}
	if err := s.Close(); err != nil {
		fmt.Println(err)
	}
	fmt.Println(sink.CheckURL("terminal://here"))
	// Output:
	// outbox.event.order 42 {"total": 12.50}
	// the sink's URL cannot be used: nothing stands behind terminal://: leave it out
}
