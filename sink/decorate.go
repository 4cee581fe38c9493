package sink

import (
	"context"
	"slices"
	"time"
)

// Tagged gives every message one more header on its way to s, behind its own.
func Tagged(s Sink, header Header) Sink { return &tagged{Sink: s, header: header} }

type tagged struct {
	Sink

	header   Header
	messages []Message
}

// Send is Sink's.
func (t *tagged) Send(ctx context.Context, msgs []Message, ack Ack) error {
	t.messages = append(t.messages[:0], msgs...)
	for i := range t.messages {
		m := &t.messages[i]
		m.Headers = append(slices.Clip(m.Headers), t.header)
	}
	return t.Sink.Send(ctx, t.messages, ack)
}

// Limited hands s at most perSecond messages a second, evenly, by blocking in Send.
// What is not used is not saved up.
func Limited(s Sink, perSecond int) Sink {
	return &limited{Sink: s, each: time.Second / time.Duration(perSecond), piece: max(1, perSecond/piecesPerSecond)}
}

// piecesPerSecond is in how many pieces a second of a Limited sink comes.
const piecesPerSecond = 20

type limited struct {
	Sink

	each  time.Duration // what a message takes
	piece int
	next  time.Time // when the next piece may go
}

// Send is Sink's.
func (l *limited) Send(ctx context.Context, msgs []Message, ack Ack) error {
	for piece := range slices.Chunk(msgs, l.piece) {
		if err := l.wait(ctx); err != nil {
			return err
		}
		if err := l.Sink.Send(ctx, piece, ack); err != nil {
			return err
		}
		l.next = l.next.Add(time.Duration(len(piece)) * l.each)
	}
	return nil
}

// wait waits for the turn of the next piece.
func (l *limited) wait(ctx context.Context) error {
	now := time.Now()
	if !l.next.After(now) {
		l.next = now
		return nil
	}
	timer := time.NewTimer(l.next.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
