package sink

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Headers that are ours in a message of RabbitMQ. Rows cannot set those with our
// prefix, and ours win over the third.
const (
	rabbitKeyHeader  = "outboxcdc-key"   // the message's key
	rabbitNullHeader = "outboxcdc-null"  // true when the value is null, which looks like an empty one
	rabbitTimeHeader = "timestamp_in_ms" // the time; AMQP's own has seconds (as RabbitMQ's timestamp plugin does it)
)

// rabbitFrameBytes is RabbitMQ's own default (frame_max). All properties of a message
// lie in one frame.
const rabbitFrameBytes = 131072

// route is where a message goes.
type route struct {
	exchange string
	key      string
}

// route fills in the templates and refuses what can never be stored. The errors hold
// no key.
func (s *rabbitSettings) route(m *Message) (route, error) {
	if len(m.Key) == 0 {
		return route{}, fault.NewData(errors.New("a message without a key has no place in the order"), "give the row an aggregate_id")
	}
	if m.Topic == "" {
		return route{}, fault.NewData(errors.New("send: the topic's name is empty"), "change what the topic's name is made of, --topic or the row")
	}
	r := route{exchange: s.exchange, key: s.routingKey}
	if strings.Contains(r.exchange, placeTopic) {
		r.exchange = strings.ReplaceAll(r.exchange, placeTopic, m.Topic)
	}
	switch r.key {
	case placeTopic:
		r.key = m.Topic
	default:
		r.key = strings.NewReplacer(placeTopic, m.Topic, placeKey, string(m.Key)).Replace(r.key)
	}
	const advice = "make the names shorter, or choose others with exchange and routing_key in the sink's URL"
	switch {
	case len(r.exchange) > maxShortString:
		return r, fault.NewData(fmt.Errorf("the exchange's name is %d bytes long, %d are allowed", len(r.exchange), maxShortString), advice)
	case len(r.key) > maxShortString:
		return r, fault.NewData(fmt.Errorf("the routing key is %d bytes long, %d are allowed", len(r.key), maxShortString), advice)
	case s.exchange != r.exchange && strings.HasPrefix(r.exchange, brokersOwn):
		return r, fault.NewData(errors.New("an exchange whose name begins with amq. is the broker's own"), "change what the topic's name is made of, --topic or the row")
	case r.exchange == "" && s.routingKey != r.key && strings.HasPrefix(r.key, brokersOwn):
		return r, fault.NewData(errors.New("a queue whose name begins with amq. is the broker's own, or a reply to somebody"), "change what the topic's name is made of, --topic or the row")
	}
	return r, s.fits(m)
}

// fits refuses what is too large for the broker or for a frame.
func (s *rabbitSettings) fits(m *Message) error {
	if len(m.Value) > s.maxMessage {
		return fault.NewData(
			fmt.Errorf("a message of %d bytes is larger than the %d of max_message_size", len(m.Value), s.maxMessage),
			"make the event smaller, or raise max_message_size of the broker and in the sink's URL")
	}
	// Room for the properties that are always there, and for a name as long as it may be.
	const always, entry = 1024, 1 + 1 + 4
	size := always + len(m.Key)
	for i := range m.Headers {
		h := &m.Headers[i]
		if len(h.Key) > maxShortString {
			return fault.NewData(fmt.Errorf("a header's name is %d bytes long, %d are allowed", len(h.Key), maxShortString), "make it shorter")
		}
		size += entry + len(h.Key) + len(h.Value)
	}
	if size > rabbitFrameBytes {
		return fault.NewData(fmt.Errorf("key and headers of %d bytes are larger than the %d of a frame", size, rabbitFrameBytes), "make them smaller")
	}
	return nil
}

// brokersOwn begins the names of exchanges and queues that the broker makes itself
// (AMQP 0-9-1, 1.7.2.1 and 3.1.3.1), among them those of answers to requests.
const brokersOwn = "amq."

// forBroker says that the broker itself goes by the header of that name, which a row must
// therefore not choose: more routing keys (sender-selected distribution), and the marks
// by which it knows what was dead-lettered, delivered or forwarded before, and drops what
// it takes for a circle.
func forBroker(name string) bool {
	switch name {
	case "CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count", "x-received-from", "x-stream-offset":
		return true
	default:
		return strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-") ||
			strings.HasPrefix(name, "x-shovelled") || strings.HasPrefix(name, "x-opt-")
	}
}

// publishing is m as RabbitMQ takes it: persistent, with its headers as a table.
func publishing(m *Message) amqp.Publishing {
	table := make(amqp.Table, len(m.Headers)+3)
	p := amqp.Publishing{DeliveryMode: amqp.Persistent, Timestamp: m.Time, Body: m.Value, AppId: "outboxcdc"}
	for i := range m.Headers {
		h := &m.Headers[i]
		if forBroker(h.Key) {
			continue
		}
		addHeader(table, h.Key, tableValue(h.Value))
		if p.MessageId == "" && isIdentity(h.Key) && len(h.Value) <= maxShortString {
			p.MessageId = string(h.Value)
		}
	}
	table[rabbitKeyHeader] = tableValue(m.Key)
	table[rabbitTimeHeader] = m.Time.UnixMilli()
	if m.Value == nil {
		table[rabbitNullHeader] = true
	}
	p.Headers = table
	return p
}

// isIdentity names the headers that hold an event's id in the forms that we send.
func isIdentity(name string) bool { return name == "id" || name == "ce_id" }

// addHeader makes a list of the values of a name that repeats.
func addHeader(table amqp.Table, name string, value any) {
	before, repeats := table[name]
	switch list, isList := before.([]any); {
	case !repeats:
		table[name] = value
	case isList:
		table[name] = append(list, value)
	default:
		table[name] = []any{before, value}
	}
}

// tableValue is text where it is text: consumers in other languages then need not
// decode it.
func tableValue(b []byte) any {
	switch {
	case b == nil:
		return nil
	case utf8.Valid(b):
		return string(b)
	default:
		return b
	}
}

// rabbitSize is what a message takes in memory while it is not acked.
func rabbitSize(m *Message) int64 {
	size := 256 + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		size += 32 + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return int64(size)
}
