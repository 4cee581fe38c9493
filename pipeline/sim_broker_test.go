package pipeline

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/sink"
)

// simStore is durable across sessions; a save may take time, fail, or fail after it
// was written.
type simStore struct {
	w       *world
	quiet   bool
	trouble bool
}

var errSimSave = errors.New("the store refuses")

func (s *simStore) Load(context.Context) (checkpoint.Position, error) {
	return checkpoint.Position{}, checkpoint.ErrNone
}

func (s *simStore) Close() error { return nil }

func (s *simStore) IdleInterval() time.Duration {
	if s.quiet {
		return time.Minute
	}
	return time.Second
}

func (s *simStore) Save(ctx context.Context, p checkpoint.Position) error {
	if !simSleep(ctx, s.w.random.pause(200*time.Millisecond)) {
		return ctx.Err()
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	fails := s.trouble && s.w.random.oneIn(200)
	if fails && s.w.random.oneIn(2) {
		s.w.tally.SaveErrors++
		return errSimSave
	}
	if p.LSN < s.w.saved.LSN {
		s.w.t.Errorf("saved %v after %v", p.LSN, s.w.saved.LSN)
	}
	s.w.saved = p
	if fails {
		s.w.tally.SaveErrors++
		return errSimSave
	}
	return nil
}

func simSleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// simBroker is a sink for one session. Partitions store at their own pace; a
// message may fail for good, and with it all that follows it in its partition, as
// the contract of a sink asks.
type simBroker struct {
	w       *world
	trouble bool
	queues  [simPartitions]chan simMessage
	workers sync.WaitGroup
	pending sync.WaitGroup
	ctx     context.Context //nolint:containedctx // ends the workers
	cancel  context.CancelFunc
}

type simMessage struct {
	item  item
	topic string
	ack   sink.Ack
}

var errSimBroker = errors.New("the broker refuses the message")

func newSimBroker(w *world, trouble bool) *simBroker {
	b := &simBroker{w: w, trouble: trouble}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for p := range b.queues {
		b.queues[p] = make(chan simMessage, 1+w.random.n(50))
		b.workers.Go(func() { b.work(p) })
	}
	return b
}

func (b *simBroker) work(p int) {
	slow := b.w.random.pause(50 * time.Millisecond)
	failed := false
	for {
		select {
		case m := <-b.queues[p]:
			if !simSleep(b.ctx, b.w.random.pause(slow)) {
				b.settle(m, context.Canceled)
				continue
			}
			if failed = failed || b.trouble && b.w.random.oneIn(400); failed {
				b.settle(m, errSimBroker)
				continue
			}
			failed = b.storeBatch(p, m)
		case <-b.ctx.Done():
			return
		}
	}
}

// storeBatch stores a message with those behind it that are there already, where there
// is poison, or it alone. A batch with a bad message is refused whole, and the refusal
// is told of its first.
func (b *simBroker) storeBatch(p int, first simMessage) (failed bool) {
	batch := []simMessage{first}
	for b.w.poison != nil && len(batch) < 8 && len(b.queues[p]) > 0 {
		batch = append(batch, <-b.queues[p])
	}
	for _, m := range batch {
		if m.topic != testLetters && b.w.poison.is(m.item.event, badAfter) {
			b.settle(first, refusal(m.topic))
			for _, behind := range batch[1:] {
				b.settle(behind, errSimBroker)
			}
			return true
		}
	}
	for _, m := range batch {
		b.store(p, m)
	}
	return false
}

func (b *simBroker) store(p int, m simMessage) {
	b.w.mu.Lock()
	if m.topic == testLetters {
		b.w.poison.letters[m.item.event] = true
	} else {
		b.w.log[p] = append(b.w.log[p], m.item)
		b.w.held[m.item.event] = true
	}
	b.w.mu.Unlock()
	b.settle(m, nil)
}

func (b *simBroker) settle(m simMessage, err error) {
	if errors.Is(err, errSimBroker) {
		b.w.mu.Lock()
		b.w.tally.Failures++
		b.w.mu.Unlock()
	}
	m.ack(err)
	b.pending.Done()
}

func (b *simBroker) Send(ctx context.Context, msgs []sink.Message, ack sink.Ack) error {
	for i := range msgs {
		it := b.itemOf(&msgs[i])
		b.pending.Add(1)
		select {
		case b.queues[it.key%simPartitions] <- simMessage{it, msgs[i].Topic, ack}:
		case <-ctx.Done():
			b.pending.Done()
			return ctx.Err()
		}
	}
	return nil
}

// itemOf is what a message stands for.
func (b *simBroker) itemOf(m *sink.Message) (it item) {
	it.key = number(m.Key[1:])
	at := slices.IndexFunc(m.Headers, func(h sink.Header) bool { return h.Key == "id" })
	it.event = number(m.Headers[at].Value)
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	it.n = b.w.events[it.event].n
	return it
}

// number reads what the world itself wrote.
func number(text []byte) int {
	n, err := strconv.Atoi(string(text))
	if err != nil {
		panic(err)
	}
	return n
}

func (b *simBroker) Flush(ctx context.Context) error {
	flushed := make(chan struct{})
	go func() { b.pending.Wait(); close(flushed) }()
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close fails what is not stored yet, whether or not it is stored all the same.
func (b *simBroker) Close() error {
	b.cancel()
	b.workers.Wait()
	for p := range b.queues {
		for len(b.queues[p]) > 0 {
			b.settle(<-b.queues[p], context.Canceled)
		}
	}
	return nil
}
