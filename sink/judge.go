package sink

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// refusalLasts is for how long a topic that was refused is not asked for again. To ask
// takes two seconds, and every row that names it would wait so long.
const refusalLasts = 10 * time.Second

// refused is a topic or place that cannot be sent to.
type refused struct {
	why error
	at  time.Time
}

// recent gives why name was refused a moment ago, or nil.
func recent(never map[string]refused, name string) error {
	r, known := never[name]
	switch {
	case !known:
		return nil
	case time.Since(r.at) < refusalLasts:
		return r.why
	default:
		delete(never, name)
		return nil
	}
}

// remember keeps why name is refused. Names that come from rows may be any number.
func remember(never map[string]refused, name string, why error) {
	const most = 10_000
	if len(never) >= most {
		clear(never)
	}
	never[name] = refused{why, time.Now()}
}

// Judge is sink.Judge's.
func (k *kafka) Judge(ctx context.Context, msgs []Message) (int, error) {
	for i := range msgs {
		if err := k.judge(ctx, &msgs[i]); err != nil {
			if errors.Is(err, errCut) {
				err = k.line.refusal()
			}
			return i, err
		}
	}
	return len(msgs), nil
}

// judge looks at one message; of a topic that was looked at before, at its size alone.
func (k *kafka) judge(ctx context.Context, m *Message) error {
	limits, known := k.topics.known[m.Topic]
	if !known && checkTopicName(m.Topic) == nil {
		if err := recent(k.topics.never, m.Topic); err != nil {
			return err
		}
		if err := k.topics.resolve(ctx, []string{m.Topic}, k.line.cut); err != nil {
			return k.topics.refused(m.Topic, err)
		}
		limits = k.topics.known[m.Topic]
	}
	if limits.closed {
		return refuse(m.Topic, errClosedTopic(m.Topic))
	}
	if err := k.topics.fits(m, sizeOf(m)); err != nil {
		return refuse(m.Topic, err)
	}
	return nil
}

// refused remembers why a topic cannot be sent to when it is the topic that is to blame.
func (t *topics) refused(name string, err error) error {
	if _, ok := errors.AsType[*RefusalError](err); ok {
		remember(t.never, name, err)
	}
	return err
}

func errClosedTopic(name string) error {
	return fault.NewOperator(errors.New("we may not write to topic "+name), "grant Write and Describe on the topic to our user")
}

// Reconsider is sink.Judge's. How many partitions a topic has stays what it was when the
// session began.
func (k *kafka) Reconsider() {
	t := k.topics
	clear(t.never)
	for name, limits := range t.known {
		t.frozen[name] = limits.partitions
	}
	clear(t.known)
	t.partitions, t.last = 0, ""
}

// Judge is sink.Judge's.
func (r *rabbit) Judge(ctx context.Context, msgs []Message) (int, error) {
	for i := range msgs {
		if err := r.judge(ctx, &msgs[i]); err != nil {
			return i, err
		}
	}
	return len(msgs), nil
}

func (r *rabbit) judge(ctx context.Context, m *Message) error {
	at, err := r.settings.route(m)
	if err != nil {
		return refuse(m.Topic, err)
	}
	place := at.place().String()
	if err := recent(r.places.never, place); err != nil {
		return err
	}
	err = r.places.learn(ctx, at)
	if !ofThePlace(err) {
		return err
	}
	err = refuse(m.Topic, err)
	remember(r.places.never, place, err)
	return err
}

// ofThePlace says whether err is about an exchange or queue, and not about the
// connection.
func ofThePlace(err error) bool {
	closed, told := errors.AsType[*amqp.Error](err)
	if told {
		return closed.Code == amqp.AccessRefused || closed.Code == amqp.PreconditionFailed
	}
	return errors.Is(err, errMissingPlace)
}

// Reconsider is sink.Judge's.
func (r *rabbit) Reconsider() { clear(r.places.never) }
