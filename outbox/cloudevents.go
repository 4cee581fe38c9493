package outbox

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// CloudEvents writes events as CloudEvents 1.0 in the Kafka protocol binding, version
// 1.0.2. The key is the aggregate's id in both modes.
//
//	id               the id; the position where there is none, and a row that is read from a
//	                 table, which knows no position, needs one
//	source           Source, or a slash and the table's name
//	type             the event's type
//	subject          the aggregate's id, where it is text
//	time             the message's time
//	datacontenttype  ContentType, or by the type of the payload: application/json for
//	                 json and jsonb, application/octet-stream for bytea, text/plain for others
//	aggregatetype    an extension: the aggregate's type
type CloudEvents struct {
	// Structured puts the whole event into the value, as JSON. Then no value is null:
	// an event whose payload is null has no data. Otherwise attributes are headers and
	// the value is the payload, byte for byte.
	Structured bool

	Source      string // a URI reference; empty is the table's name
	ContentType string // of the payload; empty is by its type
}

const (
	cePrefix          = "ce_"
	headerContentType = "content-type"
	contentJSON       = "application/json"
	contentBytes      = "application/octet-stream"
	contentText       = "text/plain; charset=utf-8"
	contentStructured = "application/cloudevents+json; charset=utf-8"
)

// Validate gives a usage error for settings that make no CloudEvents.
func (c CloudEvents) Validate() error {
	if _, err := url.Parse(c.Source); err != nil || !isAttribute([]byte(c.Source)) {
		return fault.NewUsage(errors.New("--cloudevents-source is no URI reference"), "write one such as https://shop.example.com/orders")
	}
	if !isAttribute([]byte(c.ContentType)) {
		return fault.NewUsage(errors.New("--cloudevents-content-type is no content type"), "write one such as application/json")
	}
	return nil
}

// Columns are none: the roles are all there is.
func (CloudEvents) Columns() []wal.Column { return nil }

// Reserved says whether header is an attribute or the content type.
func (CloudEvents) Reserved(header string) bool {
	return strings.EqualFold(header, headerContentType) || len(header) >= len(cePrefix) && strings.EqualFold(header[:len(cePrefix)], cePrefix)
}

// Bind makes ready what is the same for all rows.
func (c CloudEvents) Bind(source Source) (Encoder, error) {
	payload := source.Role(RolePayload)
	e := &cloudEvent{
		structured: c.Structured, version: []byte("1.0"), source: []byte(c.Source), contentType: []byte(c.ContentType),
		id: source.Role(RoleID), eventType: source.Role(RoleEventType), aggregateType: source.Role(RoleAggregateType), aggregateID: source.Role(RoleAggregateID),
	}
	if e.eventType < 0 {
		return nil, fault.NewOperator(errors.New("a CloudEvent has a type, and no column is named for event_type"), "name one with --column event_type=…")
	}
	if len(e.source) == 0 {
		e.source = []byte("/" + url.PathEscape(source.name()))
	}
	if len(e.contentType) == 0 {
		e.contentType = []byte(contentTypeOf(source, payload))
	}
	e.isJSON = isJSONType(string(e.contentType))
	shape, known := source.Shape.Of(payload)
	e.isBytes = known && shape.TypeName == "bytea"
	return e, nil
}

func contentTypeOf(source Source, payload int) string {
	shape, known := source.Shape.Of(payload)
	switch {
	case !known || shape.TypeName == "json" || shape.TypeName == "jsonb":
		return contentJSON
	case shape.TypeName == "bytea":
		return contentBytes
	default:
		return contentText
	}
}

// isJSONType is the rule of the CloudEvents JSON format, section 3.1.
func isJSONType(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == contentJSON || media == "text/json" || strings.HasSuffix(media, "+json")
}

// cloudEvent knows the places of columns, and what does not change.
type cloudEvent struct {
	structured      bool
	version, source []byte
	contentType     []byte
	isJSON, isBytes bool
	id, eventType   int
	aggregateType   int
	aggregateID     int
	attributes      []attribute // of the event at hand
}

type attribute struct {
	name  string
	value []byte
}

// errAttribute does not show the value.
var errAttribute = errors.New("is empty or no text that a CloudEvent's attribute may hold")

var (
	errNoID   = errors.New("the id is null, and a row that is read from the table has no position that could stand for it")
	errNoTime = errors.New("its time is behind the year 9999, for which RFC 3339 has no text")
)

// Encode writes one event.
func (e *cloudEvent) Encode(d *Draft) error {
	if err := e.gather(d); err != nil {
		return err
	}
	if e.structured {
		if err := e.structure(d); err != nil {
			return err
		}
		return d.AddHeaderColumns()
	}
	for _, a := range e.attributes {
		d.AddHeader(ceHeader(a.name), a.value)
	}
	if d.Value() != nil {
		d.AddHeader(headerContentType, e.contentType)
	}
	return d.AddHeaderColumns()
}

// ceHeader is the name of an attribute's header, without making it anew each time.
func ceHeader(name string) string {
	switch name {
	case "specversion":
		return "ce_specversion"
	case "id":
		return "ce_id"
	case "source":
		return "ce_source"
	case "type":
		return "ce_type"
	case "time":
		return "ce_time"
	case "subject":
		return "ce_subject"
	default:
		return "ce_aggregatetype"
	}
}

// gather finds the attributes.
func (e *cloudEvent) gather(d *Draft) error {
	id := e.columnOf(d, e.id)
	if id == nil {
		if d.Row.Commit == 0 {
			return errNoID
		}
		id = d.position()
	}
	e.attributes = append(e.attributes[:0],
		attribute{"specversion", e.version}, attribute{"id", id}, attribute{"source", e.source}, attribute{"type", d.Columns[e.eventType]})
	for _, a := range e.attributes {
		if len(a.value) == 0 || !isAttribute(a.value) {
			return fmt.Errorf("the %s %w", a.name, errAttribute)
		}
	}
	if d.Time().Year() > 9999 {
		return errNoTime
	}
	e.attributes = append(e.attributes, attribute{"time", d.Keep(d.Time().AppendFormat(d.Text(), time.RFC3339Nano))})
	if subject := d.Columns[e.aggregateID]; isAttribute(subject) {
		e.attributes = append(e.attributes, attribute{"subject", subject})
	}
	if kind := e.columnOf(d, e.aggregateType); len(kind) > 0 {
		if !isAttribute(kind) {
			return fmt.Errorf("the aggregate's type %w", errAttribute)
		}
		e.attributes = append(e.attributes, attribute{"aggregatetype", kind})
	}
	return nil
}

func (e *cloudEvent) columnOf(d *Draft, at int) []byte {
	if at < 0 {
		return nil
	}
	return d.Columns[at]
}

// isAttribute says whether text may be an attribute (CloudEvents 1.0.2, "Type System",
// String): Unicode without control characters and non-characters.
func isAttribute(text []byte) bool {
	if !utf8.Valid(text) {
		return false
	}
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r < 0x20 || 0x7F <= r && r <= 0x9F || 0xFDD0 <= r && r <= 0xFDEF || r&0xFFFE == 0xFFFE {
			return false
		}
		text = text[size:]
	}
	return true
}

// structure writes the event as JSON into the value.
func (e *cloudEvent) structure(d *Draft) error {
	text := d.Text()
	for i, a := range e.attributes {
		text = append(text, "{,"[min(i, 1)])
		text = append(append(append(text, '"'), a.name...), '"', ':')
		text = appendJSONString(text, a.value)
	}
	if data := d.Value(); data != nil {
		text = append(text, `,"datacontenttype":`...)
		text = appendJSONString(text, e.contentType)
		var err error
		if text, err = e.appendData(text, data); err != nil {
			return err
		}
	}
	d.SetValue(d.Keep(append(text, '}')))
	d.AddHeader(headerContentType, []byte(contentStructured))
	return nil
}

func (e *cloudEvent) appendData(text, data []byte) ([]byte, error) {
	switch {
	case e.isJSON && !json.Valid(data):
		return nil, errors.New("the payload is no JSON, and its content type says that it is")
	case e.isJSON:
		return append(append(text, `,"data":`...), bytes.TrimSpace(data)...), nil
	case e.isBytes || !utf8.Valid(data):
		text = append(text, `,"data_base64":"`...)
		return append(base64.StdEncoding.AppendEncode(text, data), '"'), nil
	default:
		return appendJSONString(append(text, `,"data":`...), data), nil
	}
}

// appendJSONString appends text, which is UTF-8, as a JSON string.
func appendJSONString(dst, text []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
