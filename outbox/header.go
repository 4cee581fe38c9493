package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

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
		if err := b.addEntry(d, column); errors.Is(err, errNoText) {
			return err
		} else if err != nil {
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

func (b *builder) addEntry(d *json.Decoder, column []byte) error {
	at := d.InputOffset()
	token, err := d.Token()
	if err != nil {
		return err
	}
	if !isText(column[at:d.InputOffset()]) {
		return errNoText
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
		if !isText(raw) {
			return nil, errNoText
		}
		var text string
		err := json.Unmarshal(raw, &text)
		return []byte(text), err
	case 'n':
		return nil, nil
	default:
		return raw, nil
	}
}

// errNoText is a string that Go's decoder would change rather than refuse: it puts
// U+FFFD in the place of what is no text.
var errNoText = errors.New("holds a string that is no Unicode text")

// isText says whether a JSON string is UTF-8 and has both halves of each surrogate
// pair. Columns of type jsonb always are; json keeps what it is given, and a database
// in SQL_ASCII takes any bytes.
func isText(raw []byte) bool {
	if !utf8.Valid(raw) {
		return false
	}
	var high bool // the escape before was the first half of a pair
	for {
		at := bytes.IndexByte(raw, '\\')
		if high && at != 0 {
			return false
		}
		if at < 0 {
			return true
		}
		unit, length := escape(raw[at:])
		low := 0xDC00 <= unit && unit <= 0xDFFF
		if low != high {
			return false
		}
		high = 0xD800 <= unit && unit <= 0xDBFF
		raw = raw[at+length:]
	}
}

// escape reads the escape that raw begins with: the code unit of \uXXXX, or 0 for any
// other, and how long it is.
func escape(raw []byte) (unit uint64, length int) {
	const long = len(`\uXXXX`)
	if len(raw) < long || raw[1] != 'u' {
		return 0, min(2, len(raw))
	}
	unit, err := strconv.ParseUint(string(raw[2:long]), 16, 16)
	if err != nil {
		return 0, 2
	}
	return unit, long
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
