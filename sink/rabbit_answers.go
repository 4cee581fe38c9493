package sink

import (
	"bytes"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// clerk takes the broker's answers until the connection ends.
func (r *rabbit) clerk() {
	for {
		select {
		case c, open := <-r.answers.confirms:
			if !open {
				r.fail(nil, func() error { return r.closedError(amqp.ErrClosed) })
				return
			}
			r.confirmed(c.Ack)
		case back, open := <-r.answers.returns:
			if open {
				r.returned(back)
			} else {
				r.answers.returns = nil
			}
		case b, open := <-r.answers.blocks:
			if open {
				r.block(b)
			} else {
				r.answers.blocks = nil
			}
		}
	}
}

// confirmed settles the oldest message that is on its way: the client gives confirms
// in the order of their tags. A message that was returned is confirmed too, after its
// return (rabbitmq.com/docs/confirms): so returns are looked at first, and none is ever
// taken for stored.
func (r *rabbit) confirmed(stored bool) {
	select {
	case back, open := <-r.answers.returns:
		if open {
			r.returned(back)
			return
		}
	default:
	}
	r.mu.Lock()
	if len(r.flying) == 0 { // given up already
		r.mu.Unlock()
		return
	}
	item := r.flying[0]
	if !stored {
		r.mu.Unlock()
		r.fail(item, func() error { return errNack(item) })
		return
	}
	r.flying[0] = nil
	r.flying = r.flying[1:]
	r.follow(item)
	r.changed.Signal()
	r.mu.Unlock()
	r.settle(item, nil)
}

// follow lets the next message of the item's key be published. r.mu is held.
func (r *rabbit) follow(item *parcelItem) {
	q, known := r.keys[string(item.message.Key)]
	if !known {
		return
	}
	if len(q.waiting) == 0 {
		delete(r.keys, string(item.message.Key))
		return
	}
	r.ready = append(r.ready, q.waiting[0])
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
}

// returned fails the message that no queue took. Of its key it is the only one on its
// way, so its key names it.
func (r *rabbit) returned(back amqp.Return) {
	r.mu.Lock()
	var item *parcelItem
	for _, f := range r.flying {
		if sameKey(back.Headers[rabbitKeyHeader], f.message.Key) {
			item = f
			break
		}
	}
	r.mu.Unlock()
	r.fail(item, func() error { return errReturned(back, item) })
}

func sameKey(header any, key []byte) bool {
	switch text := header.(type) {
	case string:
		return text == string(key)
	case []byte:
		return bytes.Equal(text, key)
	default:
		return false
	}
}

func errNack(item *parcelItem) error {
	return fmt.Errorf("send to topic %s: a queue refuses the message (nack): it is full, or has no leader", item.message.Topic)
}

// errReturned blames the place of a message: nobody has bound a queue for it.
func errReturned(back amqp.Return, item *parcelItem) error {
	topic := back.RoutingKey
	if item != nil {
		topic = item.message.Topic
	}
	where := "exchange " + back.Exchange
	if back.Exchange == "" {
		where = "the default exchange"
	}
	return refuse(topic, fault.NewOperator(
		fmt.Errorf("send to topic %s: no queue of %s takes the message (%d %s)", topic, where, back.ReplyCode, back.ReplyText),
		"bind a queue for it; nothing of it is lost, and the stream goes on with it when it is started again"))
}
