package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// rabbit is the sink for RabbitMQ.
//
// It guarantees, within one session: a message is acked without an error only when
// the broker has confirmed it, and had a queue for it (mandatory); messages of one key
// are stored in the order in which they were sent; and when one fails, nothing that
// was sent behind it under its key is stored.
//
// The third is why of each key at most one message is on its way. RabbitMQ stores what
// comes on one channel in order, but each message stands for itself: when the first of
// two is returned (nobody has bound a queue for it) or refused (nack: the queue is
// full), the second is routed all the same, and may be stored, because a queue was
// bound or became free between the two. There are no sequence numbers by which the
// broker would refuse the second, and a transaction of AMQP is not atomic over queues.
// So the second leaves when the first is confirmed, and never if it is not. Messages
// of different keys are on their way together, up to maxUnconfirmed. The price is that
// one key alone goes no faster than the broker confirms.
//
// A broker that is short of memory or disk stops reading (connection.blocked). Then
// nothing is published until it is done, Send blocks when the buffer is full, and
// Stalled says why. Nothing fails of it. A connection that breaks is this session's
// end: whether the broker has what was on its way is not known, and the next session
// sends it again, in the same order.
//
// Goroutines: Send runs on its caller's; courier publishes; clerk takes the broker's
// answers and calls acks; undertake closes the connection at the first failure or at
// Close, which joins it. The client has two of its own, a reader and a heart.
type rabbit struct {
	settings *rabbitSettings
	conn     *rabbitConn
	channel  *amqp.Channel // of courier, in confirm mode
	places   *rabbitPlaces // of the goroutine that calls Send
	line     *line
	buffer   *buffer
	logger   *slog.Logger

	mu      sync.Mutex
	changed *sync.Cond              // of mu: there is work for courier, or no more of it
	ready   []*parcelItem           // may be published, in order
	keys    map[string]*rabbitQueue // keys of which a message is ready or on its way
	flying  []*parcelItem           // published and not confirmed, in order of their tags
	unacked int                     // messages whose ack has not returned
	empty   chan struct{}           // closed when unacked is 0; nil while nobody waits
	blocked string                  // why the broker takes nothing now; empty when it does
	over    bool                    // nothing is published any more

	answers rabbitAnswers

	ending sync.Once
	reason error // why the line ended, once it did

	working   sync.WaitGroup // courier and clerk
	closing   chan struct{}  // closed by Close
	closeOnce sync.Once
	buried    chan struct{} // closed when the connection is
}

// parcelItem is one message between Send and its ack.
type parcelItem struct {
	message Message
	route   route
	ack     Ack
	size    int64
}

// rabbitQueue is what waits of a key behind its message that is on its way.
type rabbitQueue struct{ waiting []*parcelItem }

// rabbitAnswers are the broker's. The client puts them into these channels in the order
// in which they come, and drops what finds no room for some seconds. Confirms have room
// for all that is on its way. Returns need room for one: it cuts the line.
type rabbitAnswers struct {
	confirms chan amqp.Confirmation
	returns  chan amqp.Return
	blocks   chan amqp.Blocking
	closes   [2]chan *amqp.Error // of channel and connection
}

// maxUnconfirmed bounds what is on its way. It is enough for a broker that confirms
// within a quarter of a second to take more than it can.
const maxUnconfirmed = 8192

// open connects, proves who we are and makes sure of the places that are known.
func (s *rabbitSettings) open(ctx context.Context, o Options) (Sink, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := s.connect(ctx, o)
	if err != nil {
		return nil, err
	}
	r := newRabbit(s, conn, o)
	if err := r.begin(ctx, o.Topics); err != nil {
		conn.bye()
		return nil, err
	}
	if s.clear() {
		o.Logger.WarnContext(ctx, "the password for rabbitmq is sent over connections that are not encrypted")
	}
	r.working.Go(r.courier)
	r.working.Go(r.clerk)
	go r.undertake()
	return r, nil
}

func newRabbit(s *rabbitSettings, conn *rabbitConn, o Options) *rabbit {
	r := &rabbit{
		settings: s, conn: conn, places: newRabbitPlaces(s, conn, o),
		line: newLine(), buffer: newBuffer(o.BufferBytes), logger: o.Logger,
		keys: make(map[string]*rabbitQueue),
		answers: rabbitAnswers{
			confirms: make(chan amqp.Confirmation, maxUnconfirmed),
			returns:  make(chan amqp.Return, 64),
			blocks:   make(chan amqp.Blocking, 64),
			closes:   [2]chan *amqp.Error{make(chan *amqp.Error, 1), make(chan *amqp.Error, 1)},
		},
		closing: make(chan struct{}), buried: make(chan struct{}),
	}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// begin opens the channel and looks at the places of topics whose routes are known.
func (r *rabbit) begin(ctx context.Context, topics []string) error {
	if !confirms(r.conn.Connection) {
		return fault.NewOperator(errors.New("the broker confirms nothing that it is sent"), "use RabbitMQ, which does; what it confirms is what Postgres may forget")
	}
	for _, topic := range topics {
		at, err := r.settings.route(&Message{Topic: topic, Key: []byte("-")})
		if err != nil {
			return err
		}
		if at.exchange == "" && r.settings.routingKey != placeTopic {
			continue // its queues are named by rows
		}
		if err := r.places.learn(ctx, at); err != nil {
			return err
		}
	}
	return r.conn.during(ctx, func() error {
		var err error
		if r.channel, err = r.conn.Channel(); err != nil {
			return rabbitError(fmt.Errorf("open a channel: %w", err))
		}
		r.channel.NotifyClose(r.answers.closes[0])
		r.conn.NotifyClose(r.answers.closes[1])
		r.conn.NotifyBlocked(r.answers.blocks)
		r.channel.NotifyReturn(r.answers.returns)
		if err := r.channel.Confirm(false); err != nil {
			return rabbitError(fmt.Errorf("ask for confirms: %w", err))
		}
		r.channel.NotifyPublish(r.answers.confirms)
		return nil
	})
}

// confirms says whether the broker confirms what it stored.
func confirms(conn *amqp.Connection) bool {
	capabilities, _ := conn.Properties["capabilities"].(amqp.Table)
	able, _ := capabilities["publisher_confirms"].(bool)
	return able
}

// Send is Sink's.
func (r *rabbit) Send(ctx context.Context, msgs []Message, ack Ack) error {
	for i := range msgs {
		if err := r.line.refusal(); err != nil {
			return err
		}
		m := &msgs[i]
		at, err := r.settings.route(m)
		if err != nil { // it is acked with the reason, and nothing of its key may pass it
			r.line.halt(err)
			ack(err)
			return err
		}
		if err := r.places.learn(ctx, at); err != nil {
			return r.refused(err)
		}
		item := &parcelItem{message: *m, route: at, ack: ack, size: rabbitSize(m)}
		if err := r.buffer.take(ctx, r.line.cut, item.size); err != nil {
			return r.refused(err)
		}
		if !r.enter(item) {
			r.buffer.give(item.size)
			return r.refused(errCut)
		}
	}
	return nil
}

// refused prefers the failure that cut the line over what it led to.
func (r *rabbit) refused(err error) error {
	if errors.Is(err, errCut) || r.line.isCut() {
		return r.line.refusal()
	}
	return err
}

// enter puts the item behind what is not confirmed of its key, or up for publishing.
func (r *rabbit) enter(item *parcelItem) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return false
	}
	r.unacked++
	if q, busy := r.keys[string(item.message.Key)]; busy {
		q.waiting = append(q.waiting, item)
		return true
	}
	r.keys[string(item.message.Key)] = &rabbitQueue{}
	r.ready = append(r.ready, item)
	r.changed.Signal()
	return true
}

// courier publishes what is ready, one message after the other.
func (r *rabbit) courier() {
	for item := r.next(); item != nil; item = r.next() {
		err := r.channel.Publish(item.route.exchange, item.route.key, true, false, publishing(&item.message))
		if err != nil {
			r.fail(nil, func() error { return r.closedError(err) })
			return
		}
	}
}

// next waits for the item to publish and counts it as on its way: its confirm may come
// before Publish returns. It gives nil when nothing is published any more.
func (r *rabbit) next() *parcelItem {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.over && (len(r.ready) == 0 || len(r.flying) >= maxUnconfirmed || r.blocked != "") {
		r.changed.Wait()
	}
	if r.over {
		return nil
	}
	item := r.ready[0]
	r.ready[0] = nil
	r.ready = r.ready[1:]
	r.flying = append(r.flying, item)
	return item
}

// settle acks one message, which the caller has taken out of all lists.
func (r *rabbit) settle(item *parcelItem, err error) {
	item.ack(err)
	r.buffer.give(item.size)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unacked--
	if r.unacked == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

// fail ends the line: first is acked with the reason, where it is known, and all else
// because of it. Of several reasons the first counts.
//
// Send learns of the end before anything is abandoned. Where nothing is on its way, a
// message that came in between would else be neither taken nor refused, and a stream
// without a later one would wait for its ack for ever.
func (r *rabbit) fail(first *parcelItem, why func() error) {
	r.ending.Do(func() { r.reason = why() })
	r.line.halt(r.reason)
	r.mu.Lock()
	items := r.abandon()
	r.mu.Unlock()
	if len(items) == 0 {
		return
	}
	if first == nil {
		first = items[0]
	}
	reason := func() error { return r.reason }
	r.settle(first, r.line.fail(reason))
	for _, item := range items {
		if item != first {
			r.settle(item, r.line.fail(reason))
		}
	}
}

// abandon takes all messages that are not acked, in the order of their keys. r.mu is
// held.
func (r *rabbit) abandon() []*parcelItem {
	r.over = true
	items := slices.Concat(r.flying, r.ready)
	for _, q := range r.keys {
		items = append(items, q.waiting...)
	}
	r.flying, r.ready = nil, nil
	clear(r.keys)
	r.changed.Broadcast()
	return items
}

// block notes that the broker takes nothing for a while, or takes again.
func (r *rabbit) block(b amqp.Blocking) {
	r.mu.Lock()
	r.blocked = ""
	if b.Active {
		r.blocked = "the broker takes nothing for now: " + b.Reason
	}
	r.changed.Broadcast()
	r.mu.Unlock()
	if b.Active {
		r.logger.Warn("the broker asks us to wait", slog.String("reason", b.Reason))
		return
	}
	r.logger.Info("the broker takes messages again")
}

// Stalled is Staller's.
func (r *rabbit) Stalled() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blocked
}

// Flush returns when every message is acked.
func (r *rabbit) Flush(ctx context.Context) error {
	r.mu.Lock()
	if r.unacked > 0 && r.empty == nil {
		r.empty = make(chan struct{})
	}
	empty, unacked := r.empty, r.unacked
	r.mu.Unlock()
	if unacked == 0 {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush: %w", ctx.Err())
	}
}

// Close gives up what is not acked. Whether the broker has it is then not known.
func (r *rabbit) Close() error {
	r.closeOnce.Do(func() { close(r.closing) })
	<-r.buried
	return nil
}

// undertake ends the connection when the line is cut or the sink is closed.
func (r *rabbit) undertake() {
	defer close(r.buried)
	select {
	case <-r.line.cut:
	case <-r.closing:
		r.fail(nil, func() error { return errClosed })
	}
	r.conn.bye()
	r.working.Wait()
}

// closedError says why the broker ended the channel or the connection, where it did. The
// client gives the reason before it closes what we wait on.
func (r *rabbit) closedError(err error) error {
	for _, closes := range r.answers.closes {
		select {
		case reason, open := <-closes:
			if open && reason != nil {
				err = reason
			}
		default:
		}
	}
	return rabbitError(fmt.Errorf("send to rabbitmq at %s: %w", r.conn.broker, err))
}
