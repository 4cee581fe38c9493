package sink

import (
	"errors"
	"testing"
	"time"
)

// A connection may end while nothing is on its way and a message comes: Send must not
// say that it took one that nobody will ever ack.
func TestWhatComesWhileAnIdleConnectionEndsIsAckedOrRefused(t *testing.T) {
	settings := rabbitOf(t, "amqp://h")
	r := newRabbit(settings, nil, Options{BufferBytes: 1 << 20})
	m := Message{Topic: "order", Key: []byte("7"), Value: []byte("{}"), Time: time.UnixMilli(5)}
	at, err := settings.route(&m)
	if err != nil {
		t.Fatal(err)
	}
	r.places.known[at.place()] = true
	var told error // of the message, by either way
	send := func() {
		told = nil
		if err := r.Send(t.Context(), []Message{m}, func(err error) { told = err }); err != nil {
			told = err
		}
	}
	broken := errors.New("the connection broke")
	r.fail(nil, func() error {
		send()
		return broken
	})
	if !errors.Is(told, broken) {
		t.Errorf("a message that came while the connection ended was told %v, want why it ended", told)
	}
	send()
	if !errors.Is(told, broken) {
		t.Errorf("a message that came behind the end was told %v, want why it ended", told)
	}
}
