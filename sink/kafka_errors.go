package sink

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// errClosed is what a message is acked with that the broker may or may not hold.
var errClosed = errors.New("the sink was closed before the broker acknowledged the message")

// lastError is the newest of several, for when the caller is told less.
type lastError struct{ value atomic.Pointer[error] }

func (l *lastError) set(err error) { l.value.Store(&err) }

// forget makes it none.
func (l *lastError) forget() { l.value.Store(nil) }

func (l *lastError) get() error {
	if err := l.value.Load(); err != nil {
		return *err
	}
	return nil
}

// ackError says why a message of topic was not stored. Nothing here is a data error:
// the broker refuses whole batches, and the client what lies behind them, so that no
// message can be blamed. What a single message can be blamed for is found before it
// is sent, by topics.fits. Where what is in a batch is the cause, it is a RefusalError: of
// messages that are sent one at a time, it blames the one.
func ackError(topic string, err error) error {
	if errors.Is(err, kgo.ErrClientClosed) {
		return errClosed
	}
	for _, r := range refusals {
		if errors.Is(err, r.code) {
			refused := fault.NewOperator(fmt.Errorf("send to topic %s: %s: %w", topic, r.meaning, err), r.advice)
			if r.ofMessages {
				return refuse(topic, refused)
			}
			return refused
		}
	}
	err = brokerError(err)
	if _, known := errors.AsType[*fault.Error](err); known {
		return err
	}
	return fmt.Errorf("send to topic %s: %w", topic, err)
}

// refusal is an answer to a produce request that time does not mend.
type refusal struct {
	code    error
	meaning string
	advice  string

	ofMessages bool // what the batch holds, or its topic, is the cause
}

const (
	lossMeaning = "the broker no longer knows the events that it acknowledged before"
	lossAdvice  = "look for an election of an unclean leader or a disk that lost its end; events that were confirmed to Postgres may be missing and must be sent again from the table"
	formAdvice  = "look at the topic's settings and the broker's log; a batch holds many events, so the broker does not say which it dislikes"
)

var refusals = []refusal{ //nolint:gochecknoglobals // a table that nobody changes
	{
		kerr.MessageTooLarge, "a batch is larger than the topic takes",
		"allow us to describe the topic's configuration, or set max.request.size to its max.message.bytes", true,
	},
	{kerr.TopicAuthorizationFailed, "we may not write to it", "grant Write and Describe on the topic to our user", true},
	{
		kerr.UnknownTopicOrPartition, "it does not exist any more",
		"find out who deleted it: what it held is gone; make it anew, or start with --create-topics", false,
	},
	{kerr.UnknownTopicID, "it was deleted and made anew", "find out who did: what it held is gone; start again to go on with the new one", false},
	{kerr.OutOfOrderSequenceNumber, lossMeaning, lossAdvice, false},
	{kerr.UnknownProducerID, lossMeaning, lossAdvice, false},
	{kerr.InvalidProducerEpoch, lossMeaning, lossAdvice, false},
	{kerr.InvalidProducerIDMapping, lossMeaning, lossAdvice, false},
	{kerr.InvalidRecord, "the broker refuses a batch", formAdvice, true},
	{
		kerr.InvalidTimestamp, "the broker refuses the time of an event",
		"compare the clocks of Postgres and Kafka, and look at the topic's message.timestamp.before.max.ms and message.timestamp.after.max.ms", true,
	},
	{kerr.PolicyViolation, "the broker's policy refuses a batch", formAdvice, true},
	{kerr.CorruptMessage, "the broker finds a batch damaged", "look for what changes bytes between us and the broker: memory, network, proxy", false},
	{kerr.UnsupportedCompressionType, "the broker does not know the compression", "set compression.type=none or another", false},
	{kerr.UnsupportedForMessageFormat, "the topic's message format is too old", "raise message.format.version; the broker must be 0.11 or later", false},
}

// brokerError gives err a class where who we are, or how we speak, is the trouble. The
// rest may mend itself.
func brokerError(err error) error {
	if _, known := errors.AsType[*fault.Error](err); known {
		return err
	}
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fault.NewOperator(fmt.Errorf("log in to kafka: %w", err), "check who we are and how we prove it: sasl.mechanism, sasl.username, sasl.password, or what stands for them")
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return fault.NewOperator(fmt.Errorf("log in to kafka: %w", err), "the broker offers another sasl.mechanism, or none on this port")
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fault.NewOperator(fmt.Errorf("become a producer: %w", err), "grant IdempotentWrite on the cluster, or Write on the topics, to our user")
	default:
		return brokerTLSError(err, "ssl.truststore.location", "ssl.keystore.location")
	}
}
