package outbox

import (
	"errors"

	"github.com/outboxcdc/outboxcdc/wal"
)

// Names of the headers that every message has in the native format.
const (
	headerID            = "id"
	headerEventType     = "event_type"
	headerAggregateType = "aggregate_type"
)

// Native is the format of our own: the key is the aggregate's id, the value the
// payload, both byte for byte; id, event type and aggregate type are headers.
type Native struct{}

// Columns are none: the roles are all there is.
func (Native) Columns() []wal.Column { return nil }

// Reserved says whether header is one of the three that are columns.
func (Native) Reserved(header string) bool {
	switch header {
	case headerID, headerEventType, headerAggregateType:
		return true
	default:
		return false
	}
}

// Bind gives the encoder, which needs no preparation.
func (Native) Bind(source Source) (Encoder, error) {
	return native{
		id: source.Role(RoleID), eventType: source.Role(RoleEventType), aggregateType: source.Role(RoleAggregateType),
	}, nil
}

// native knows the places of columns.
type native struct{ id, eventType, aggregateType int }

var (
	errNoEventType     = errors.New("the event's type is null")
	errNoAggregateType = errors.New("the aggregate's type is null")
)

// Encode adds the headers.
func (n native) Encode(d *Draft) error {
	if n.id >= 0 && d.Columns[n.id] != nil {
		d.AddHeader(headerID, d.Columns[n.id])
	}
	if n.eventType >= 0 {
		if d.Columns[n.eventType] == nil {
			return errNoEventType
		}
		d.AddHeader(headerEventType, d.Columns[n.eventType])
	}
	if n.aggregateType >= 0 {
		if d.Columns[n.aggregateType] == nil {
			return errNoAggregateType
		}
		d.AddHeader(headerAggregateType, d.Columns[n.aggregateType])
	}
	return d.AddHeaderColumns()
}
