package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// Worlds with rows that cannot be sent. Beside what holds in any world: the slot passes
// no event that is neither with the broker nor in the lot with a dead letter; and once
// the causes are mended and all is asked for again, the broker holds every event that
// nobody dropped, each key's in order.

func TestSimulatedWorldsParkAndBringBackInOrder(t *testing.T) {
	seeds := []uint64{*simSeed}
	if *simSeed == 0 {
		seeds = seeds[:0]
		for i := range max(1, *simSeeds/6) {
			seeds = append(seeds, uint64(i)+1)
		}
	}
	var total poisonTally
	for _, seed := range seeds {
		t.Logf("world %d", seed) // one that fails does not come back to say so
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			w.poison = &poison{w: w, bad: map[int]badness{}, letters: map[int]bool{}, dropped: map[int]bool{}, safe: map[int]bool{}}
			w.poison.lot.fail, w.poison.lot.failLate = w.poison.fails, w.poison.fails
			w.live()
			total.add(w.poison.tally)
		})
		if t.Failed() {
			t.Fatalf("world %d; replay it with: go test ./pipeline -run %s -seed %d", seed, t.Name(), seed)
		}
	}
	t.Logf("%d worlds: %+v", len(seeds), total)
	if len(seeds) >= 30 && (total.Parked == 0 || total.Refusals == 0 || total.Retried == 0 || total.Dropped == 0 || total.LotErrors == 0) {
		t.Errorf("%+v: want some of each", total)
	}
}

// poisonTally is what happened.
type poisonTally struct{ Bad, Parked, Refusals, Retried, Dropped, LotErrors int }

func (a *poisonTally) add(b poisonTally) {
	a.Bad += b.Bad
	a.Parked += b.Parked
	a.Refusals += b.Refusals
	a.Retried += b.Retried
	a.Dropped += b.Dropped
	a.LotErrors += b.LotErrors
}

// badness is why an event cannot be sent.
type badness int

const (
	badRowOnly  badness = iota + 1 // it cannot be mapped
	badBefore                      // the sink refuses its message beforehand
	badAfter                       // the broker refuses it, and the batch that it is in
	badnessKind = iota
)

// poison is what a world has of rows that cannot be sent. What w.mu guards of the world
// it guards here.
type poison struct {
	w     *world
	lot   memoryLot
	tally poisonTally

	bad     map[int]badness // by event, those of the past included
	mended  bool            // none of it is bad any more
	letters map[int]bool    // events whose dead letter the broker holds
	dropped map[int]bool
	safe    map[int]bool // what kept has found
	memory  refusals     // of the process, which forgets it when it is killed
	peace   bool         // the lot does not fail
}

var errSimLot = errors.New("the lot refuses")

func (p *poison) fails() error {
	if p.peace || !p.w.random.oneIn(60) {
		return nil
	}
	p.tally.LotErrors++
	return errSimLot
}

// eventType is the column of a new event, and decides whether it is bad. w.mu is held.
func (p *poison) eventType(n int) []byte {
	if p == nil || !p.w.random.oneIn(25) {
		return []byte("e")
	}
	p.tally.Bad++
	p.bad[n] = badness(1 + p.w.random.n(badnessKind))
	if p.bad[n] == badRowOnly {
		return nil
	}
	return []byte("e")
}

// is says whether an event is bad in a way, now.
func (p *poison) is(event int, kind badness) bool {
	if p == nil {
		return false
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return !p.mended && p.bad[event] == kind
}

// prepare makes a runner one that parks.
func (p *poison) prepare(r *Runner) {
	if p == nil {
		return
	}
	r.config.OnError, r.config.DeadLetterTopic = OnErrorPark, testLetters
	r.logger = slog.New(slog.DiscardHandler)
	if p.w.random.oneIn(3) {
		p.memory = refusals{}
	}
	r.refusals = p.memory
}

// join gives a session the lot. That it may fail then is another test's.
func (p *poison) join(ctx context.Context, s *session, from wal.LSN) {
	if p == nil {
		return
	}
	s.aside.parked.lot = &p.lot
	for s.aside.load(ctx, from) != nil {
		continue
	}
}

// ended learns from a session's end.
func (p *poison) ended(s *session, err error) error {
	if p == nil {
		return err
	}
	if _, refused := errors.AsType[*sink.RefusalError](err); refused {
		p.tally.Refusals++
	}
	err = s.aside.learn(err)
	p.memory = *s.aside.refusals
	return err
}

// operate is an operator who asks for this and that.
func (p *poison) operate() {
	if p == nil {
		return
	}
	key := []byte{'k', byte('0' + p.w.random.n(simKeys))}
	drop := p.w.random.oneIn(3)
	p.lot.ask(wal.AskRetry, func(r *wal.ParkedRow) bool { return slices.Equal(r.ID, key) && r.Asked == "" })
	if drop {
		once := false
		p.lot.ask(wal.AskDrop, func(r *wal.ParkedRow) bool {
			if once || !slices.Equal(r.ID, key) {
				return false
			}
			once = true
			return true
		})
	}
}

// mend lets everything be sent from now on, and asks for it.
func (p *poison) mend() {
	if p == nil {
		return
	}
	p.w.mu.Lock()
	p.mended, p.peace = true, true
	p.w.mu.Unlock()
	p.lot.mu.Lock()
	p.mendRows()
	p.lot.mu.Unlock()
}

// mendRows is a mapping that can do with rows as they are. p.lot.mu is held.
func (p *poison) mendRows() {
	for i := range p.lot.rows {
		if r := &p.lot.rows[i]; len(r.Columns) > 3 && r.Columns[3] == nil {
			r.Columns[3] = []byte("e")
		}
	}
}

// bringBack waits until nothing is parked any more.
func (p *poison) bringBack() {
	if p == nil {
		return
	}
	for range 600 {
		p.lot.mu.Lock()
		p.mendRows()
		left := slices.ContainsFunc(p.lot.rows, func(r lotRow) bool { return r.state == "" })
		p.lot.mu.Unlock()
		if !left {
			return
		}
		p.lot.ask(wal.AskRetry, func(r *wal.ParkedRow) bool { return r.Asked == "" })
		time.Sleep(time.Second) // the bubble's clock
	}
	p.w.t.Error("rows are parked after ten minutes in which nothing was wrong with them")
}

// kept says whether an event is in the lot with its dead letter with the broker, or was
// dropped from there. w.mu is held.
func (p *poison) kept(event int) bool {
	if p == nil || p.safe[event] {
		return p != nil
	}
	p.lot.mu.Lock()
	defer p.lot.mu.Unlock()
	at := slices.IndexFunc(p.lot.rows, func(r lotRow) bool { return number(r.Event) == event })
	// A row may be dropped before its dead letter is acked, and is then read again for nothing.
	p.safe[event] = at >= 0 && (p.letters[event] || p.lot.rows[at].state == wal.ParkedDropped)
	return p.safe[event]
}

// settle looks at what became of the rows in the lot. w.mu is held.
func (p *poison) settle() {
	if p == nil {
		return
	}
	p.lot.mu.Lock()
	defer p.lot.mu.Unlock()
	for i := range p.lot.rows {
		r := &p.lot.rows[i]
		p.tally.Parked++
		switch r.state {
		case wal.ParkedDropped:
			p.tally.Dropped++
			p.dropped[number(r.Event)] = true
		case wal.ParkedSent:
			p.tally.Retried++
		}
	}
}

// isDropped says of the nth event of a key whether an operator dropped it. w.mu is held.
func (p *poison) isDropped(key, n int) bool {
	if p == nil {
		return false
	}
	for event := range p.dropped {
		if e := p.w.events[event]; e.key == key && e.n == n {
			return true
		}
	}
	return false
}

// refusal is the broker's about a batch.
func refusal(topic string) error {
	return &sink.RefusalError{Topic: topic, Err: fault.NewOperator(errSimBroker, "")}
}

// Judge is sink.Judge's.
func (b *simBroker) Judge(_ context.Context, msgs []sink.Message) (int, error) {
	for i := range msgs {
		if msgs[i].Topic != testLetters && b.w.poison.is(b.itemOf(&msgs[i]).event, badBefore) {
			return i, refusal(msgs[i].Topic)
		}
	}
	return len(msgs), nil
}

// Reconsider is sink.Judge's.
func (b *simBroker) Reconsider() {}
