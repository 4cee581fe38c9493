// Package sink hands messages to a broker and says when the broker holds them.
//
// It knows brokers. It does not know rows, positions or slots: what a message
// means, and what may be forgotten once it is acknowledged, is decided elsewhere.
package sink

import (
	"context"
	"time"
)

// Header is one record header. Keys may repeat; order is kept.
type Header struct {
	Key   string
	Value []byte
}

// Message is what a broker is given. Its slices are borrowed: they stay valid and
// unchanged until the message is acknowledged without an error, and a sink does
// not touch them afterwards.
type Message struct {
	Topic   string
	Key     []byte // decides the partition; never nil or empty unless Keyless
	Value   []byte // nil is a null value (Kafka's tombstone)
	Headers []Header
	Time    time.Time

	// Partition is where the message goes when Placed; else the key decides. One that
	// the topic does not have is a data error. Order is kept within topic, partition
	// and key.
	Partition int32
	Placed    bool

	// Keyless says that a nil or empty Key is meant. Without a key a message has no
	// order; an empty one is a key like any other.
	Keyless bool
}

// Ack settles one message: nil when the broker holds it durably, else why it does
// not. A sink calls it exactly once for each message that Send took, from any
// goroutine, in any order. It never blocks.
type Ack func(err error)

// Sink is a connection to a broker for one session. Send and Flush are called by
// one goroutine at a time; Close comes last and may come while neither runs.
type Sink interface {
	// Send takes messages in order and calls ack for each of them later, perhaps
	// before Send returns. Messages of one topic and key are stored in the order
	// in which they were sent, across calls. It blocks while the sink is full.
	// When it returns an error, that error is the session's end; messages that it
	// did not take are not acked. After one failed ack nothing that was sent later
	// may be stored ahead of the failed message under the same key.
	// The slice msgs belongs to the caller again when Send returns; what the
	// messages point to is borrowed until their acks.
	Send(ctx context.Context, msgs []Message, ack Ack) error

	// Flush returns when every message taken so far has been acked, or with an
	// error when ctx ends first.
	Flush(ctx context.Context) error

	// Close lets go of the broker. Messages that are not acked yet are acked with
	// an error before it returns.
	Close() error
}

// Seeker is implemented by sinks that look for their brokers again and again.
type Seeker interface {
	// Unreached is what went wrong at the latest try to reach a broker, one sentence, or
	// empty when that went well. It may be called from any goroutine.
	Unreached() string
}

// Staller is implemented by sinks whose broker can ask to wait.
type Staller interface {
	// Stalled is why the broker takes nothing at this moment, one sentence, or empty.
	// It may be called from any goroutine.
	Stalled() string
}
