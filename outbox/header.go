package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// positionBytes is room for a position whose index has up to five digits.
const positionBytes = 16 + 1 + 5

// Names of the headers that every message has.
const (
	headerID            = "id"
	headerEventType     = "event_type"
	headerAggregateType = "aggregate_type"
)

// builder gives the rows of one call their headers out of two shared slices.
// Growing moves what comes later and leaves what was given out where it is.
type builder struct {
	headers []sink.Header
	text    []byte
}

// rowHeaders gives id, event type, aggregate type, the entries of the headers
// column in their order, and the position.
func (b *builder) rowHeaders(row *wal.Row) ([]sink.Header, error) {
	at := len(b.headers)
	if id := row.Columns[columnID]; id != nil {
		b.add(headerID, id)
	}
	b.add(headerEventType, row.Columns[columnEventType])
	b.add(headerAggregateType, row.Columns[columnAggregateType])
	if column := row.Columns[columnHeaders]; column != nil {
		if err := b.addColumn(column); err != nil {
			return nil, fmt.Errorf("headers column: %w", err)
		}
	}
	b.add(PositionHeader, b.position(row))
	return b.headers[at:len(b.headers):len(b.headers)], nil
}

func (b *builder) add(key string, value []byte) {
	b.headers = append(b.headers, sink.Header{Key: key, Value: value})
}

func (b *builder) position(row *wal.Row) []byte {
	at := len(b.text)
	b.text = row.Commit.AppendHex(b.text)
	b.text = append(b.text, '/')
	b.text = strconv.AppendInt(b.text, int64(row.Index), 10)
	return b.text[at:len(b.text):len(b.text)]
}

// addColumn adds one header for each entry of a JSON object: a string as its text,
// null as a null value, anything else as the JSON that Postgres rendered.
func (b *builder) addColumn(column []byte) error {
	d := json.NewDecoder(bytes.NewReader(column))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return errors.New("is not a JSON object")
	}
	for n := 0; d.More(); n++ {
		if n == maxHeaders {
			return fmt.Errorf("has more than %d entries", maxHeaders)
		}
		if err := b.addEntry(d); err != nil {
			return errors.New("is not a JSON object")
		}
	}
	if _, err := d.Token(); err != nil {
		return errors.New("is not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("holds more than one JSON object")
	}
	return nil
}

func (b *builder) addEntry(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return err
	}
	key, ok := token.(string)
	if !ok {
		return errors.New("key is not a string")
	}
	if reserved(key) {
		return nil
	}
	value, err := headerValue(raw)
	b.add(key, value)
	return err
}

func headerValue(raw json.RawMessage) ([]byte, error) {
	switch raw[0] {
	case '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return []byte(text), err
	case 'n':
		return nil, nil
	default:
		return raw, nil
	}
}

// reserved names are set by us; a row's entry of that name is left out, so that
// neither the first nor the last header of a name can be forged.
func reserved(key string) bool {
	switch key {
	case headerID, headerEventType, headerAggregateType:
		return true
	default:
		return len(key) >= len(HeaderPrefix) && strings.EqualFold(key[:len(HeaderPrefix)], HeaderPrefix)
	}
}
