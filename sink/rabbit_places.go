package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// rabbitPlaces makes sure of exchanges, and of queues where they are named, before
// anything is sent to them, once a session. A message to an exchange that does not
// exist would close the channel with all that is on it.
type rabbitPlaces struct {
	settings *rabbitSettings
	conn     *rabbitConn
	create   bool
	logger   *slog.Logger
	known    map[route]bool
	never    map[string]refused // places that were refused a moment ago; see judge
}

func newRabbitPlaces(s *rabbitSettings, conn *rabbitConn, o Options) *rabbitPlaces {
	return &rabbitPlaces{settings: s, conn: conn, create: o.CreateTopics, logger: o.Logger, known: make(map[route]bool), never: make(map[string]refused)}
}

// place is what must exist for a route: the exchange, or the queue that the broker's
// own exchange finds by name.
func (r route) place() route {
	if r.exchange != "" {
		r.key = ""
	}
	return r
}

func (r route) String() string {
	if r.exchange == "" {
		return "queue " + r.key
	}
	return "exchange " + r.exchange
}

// learn looks at the place of r when it is not known yet.
func (p *rabbitPlaces) learn(ctx context.Context, r route) error {
	at := r.place()
	if p.known[at] {
		return nil
	}
	exists, err := p.look(ctx, at)
	if err == nil && !exists {
		if !p.create {
			return errNoPlace(at)
		}
		err = p.make(ctx, at)
	}
	if err != nil {
		return rabbitError(fmt.Errorf("make sure of %s: %w", at, err))
	}
	p.known[at] = true
	return nil
}

// look asks on a channel of its own, which the broker closes when there is none.
func (p *rabbitPlaces) look(ctx context.Context, at route) (exists bool, err error) {
	err = p.on(ctx, func(channel *amqp.Channel) error {
		if at.exchange == "" {
			_, err := channel.QueueDeclarePassive(at.key, true, false, false, false, nil)
			return err
		}
		return channel.ExchangeDeclarePassive(at.exchange, p.settings.exchangeType, true, false, false, false, nil)
	})
	if closed, ok := errors.AsType[*amqp.Error](err); ok && closed.Code == amqp.NotFound {
		return false, nil
	}
	return err == nil, err
}

// make makes what is missing, to outlive the broker.
func (p *rabbitPlaces) make(ctx context.Context, at route) error {
	err := p.on(ctx, func(channel *amqp.Channel) error {
		if at.exchange == "" {
			_, err := channel.QueueDeclare(at.key, true, false, false, false, amqp.Table{amqp.QueueTypeArg: p.settings.queueType})
			return err
		}
		return channel.ExchangeDeclare(at.exchange, p.settings.exchangeType, true, false, false, false, nil)
	})
	if err == nil {
		p.logger.InfoContext(ctx, "made what messages are sent to", slog.String("made", at.String()))
	}
	return err
}

func (p *rabbitPlaces) on(ctx context.Context, do func(*amqp.Channel) error) error {
	return p.conn.during(ctx, func() error {
		channel, err := p.conn.Channel()
		if err != nil {
			return err
		}
		if err := do(channel); err != nil {
			return err
		}
		return channel.Close()
	})
}

// errMissingPlace is what a message cannot be sent to.
var errMissingPlace = errors.New("does not exist")

func errNoPlace(at route) error {
	return fault.NewOperator(fmt.Errorf("%s %w", at, errMissingPlace),
		"start with --create-topics, or make it, durable, and bind the queues that are to have the events")
}
