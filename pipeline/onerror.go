package pipeline

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// OnError says what becomes of a row that cannot be sent: it cannot be mapped, the
// broker takes no message of its size, its topic is none that may be sent to, or the
// broker refused it for another reason that lies in the message.
type OnError string

// The policies. The empty one is OnErrorHalt.
const (
	OnErrorHalt OnError = "halt" // the stream ends before the row's transaction
	OnErrorPark OnError = "park" // the row and what comes behind it of its aggregate wait aside
	OnErrorSkip OnError = "skip" // the row is counted, logged and passed
)

// ParseOnError reads the name of a policy; the error is a usage error.
func ParseOnError(text string) (OnError, error) {
	switch policy := OnError(text); policy {
	case "", OnErrorHalt:
		return OnErrorHalt, nil
	case OnErrorPark, OnErrorSkip:
		return policy, nil
	default:
		return OnErrorHalt, fault.NewUsage(errors.New("--on-error is none that is known"), "use halt, park or skip")
	}
}

// putAside gives a session what deals with rows that cannot be sent, where the stream is
// not to halt at them. Those that are parked are kept in lot.
func (r *Runner) putAside(s *session, broker sink.Sink, lot parking) {
	if r.config.OnError == "" || r.config.OnError == OnErrorHalt {
		return
	}
	s.aside = &aside{
		plan: r.plan, mapper: s.mapper, sink: broker, tracker: s.tracker, refusals: &r.refusals,
		tables: r.config.Wal.Tables, seen: s.seen, logger: r.logger, halt: s.halt,
	}
	if r.config.OnError == OnErrorPark {
		s.aside.parked = newParked(lot, r.config.DeadLetterTopic, r.config.ParkLimit, r.config.Wal.Slot)
	}
}

// refusals are what a Runner remembers of messages that the broker refused after they
// were sent. Such a message ends its session, and the broker does not say which of many
// it was. So the next session sends what may have been it one at a time, up to where
// the refused one had come, until the broker refuses again: that is the one. The
// session after that knows it when it reads it, and does not send it.
//
// It is only memory. A process that dies meanwhile goes the same way again.
type refusals struct {
	blamed map[wal.Place]*sink.RefusalError

	suspects string  // topic of the message that is looked for; empty when none is
	until    wal.LSN // commit of the last row that may be it

	retried    *sink.RefusalError // of a parked row that was sent again
	retryAlone bool               // parked rows are sent again one at a time, since one of some was refused
}

// errRefused is why a session ends that has learned more about a refused message. The
// next one makes use of it.
var errRefused = errors.New("the broker refused a message")

// suspicious says whether a message of a row must be sent alone.
func (r *refusals) suspicious(row *wal.Row, topic string) bool {
	return r.suspects == topic && row.Commit <= r.until && topic != ""
}

// blame notes that the broker refused the message of a row that was sent alone.
func (r *refusals) blame(at wal.Place, why *sink.RefusalError) {
	if r.blamed == nil {
		r.blamed = make(map[wal.Place]*sink.RefusalError)
	}
	r.blamed[at] = why
}

// forget lets go of rows that are not read again by a session that starts at from.
func (r *refusals) forget(from wal.LSN) {
	maps.DeleteFunc(r.blamed, func(at wal.Place, _ *sink.RefusalError) bool { return at.Commit < from })
}

// learn takes from the error of a session that has sent rows up to reached what the next
// one must know, and gives the error that lets the next one begin.
func (r *refusals) learn(err error, reached wal.LSN, logger *slog.Logger) error {
	why, ok := errors.AsType[*sink.RefusalError](err)
	if !ok || fault.Classify(err) == fault.Bug {
		return err
	}
	if !r.found(why) {
		r.suspects, r.until = why.Topic, max(r.until, reached)
		logger.Warn("the broker refused a message, which is looked for by sending one at a time",
			slog.String("topic", why.Topic), slog.String("up_to", reached.String()), slog.String("reason", oneLine(why.Err)))
	}
	return &fault.Error{Class: fault.Transient, Err: fmt.Errorf("%w: %s", errRefused, oneLine(why.Err))}
}

// found says whether it is known which row a refusal was about, or how to find out.
func (r *refusals) found(why *sink.RefusalError) bool {
	if why == r.retried {
		return true
	}
	for _, known := range r.blamed {
		if known == why {
			return true
		}
	}
	return false
}
