package servers

import (
	"strconv"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// confirmOne sends one persistent message to a queue and waits for its confirm.
func confirmOne(tb testing.TB, r *RabbitServer, queue, body string) {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	r.Do(tb, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		confirmed, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)})
		if err != nil {
			return err
		}
		_, err = confirmed.WaitContext(ctx)
		return err
	})
}

func TestRabbitSurvivesAKillWithAllThatItConfirmed(t *testing.T) {
	r := Rabbit(t)
	queue := r.Name(t)
	r.Queue(t, queue, nil)
	r.Settle(t)
	var want []string
	for i := range 5 {
		want = append(want, strconv.Itoa(i))
		confirmOne(t, r, queue, strconv.Itoa(i))
	}
	r.Kill9(t)
	ctx, cancel := bounded()
	defer cancel()
	if r.ready(ctx) == nil {
		t.Error("the server still answers")
	}
	r.Start(t)
	for range 2 { // looking takes nothing away
		var got []string
		for _, d := range r.Messages(t, queue) {
			got = append(got, string(d.Body))
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("the queue holds %q, want %q", got, want)
		}
	}
	r.Stop(t)
	r.Start(t)
	if out := r.Control(t, "list_queues", "name", "messages"); !strings.Contains(out, queue+"\t5") {
		t.Errorf("rabbitmqctl says %q, want 5 messages in %s", out, queue)
	}
}
