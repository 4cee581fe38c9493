package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/outboxcdc/outboxcdc/wal"
)

// maxHeaders bounds the entries of one headers column.
const maxHeaders = 1000

// addPosition adds the header that names the event. It comes last.
func (d *Draft) addPosition(row *wal.Row) {
	text := row.Commit.AppendHex(d.Text())
	text = append(text, '/')
	text = strconv.AppendInt(text, int64(row.Index), 10)
	d.AddHeader(PositionHeader, d.Keep(text))
}

// addEntries adds one header for each entry of a JSON object: a string as its text,
// null as a null value, anything else as the JSON that Postgres rendered.
func (d *Draft) addEntries(column []byte) error {
	if err := d.addEach(column); err != nil {
		return fmt.Errorf("headers column: %w", err)
	}
	return nil
}

func (d *Draft) addEach(column []byte) error {
	j := json.NewDecoder(bytes.NewReader(column))
	if first, err := j.Token(); err != nil || first != json.Delim('{') {
		return errors.New("is not a JSON object")
	}
	for n := 0; j.More(); n++ {
		if n == maxHeaders {
			return fmt.Errorf("has more than %d entries", maxHeaders)
		}
		if err := d.addEntry(j, column); errors.Is(err, errNoText) {
			return err
		} else if err != nil {
			return errors.New("is not a JSON object")
		}
	}
	if _, err := j.Token(); err != nil {
		return errors.New("is not a JSON object")
	}
	if _, err := j.Token(); !errors.Is(err, io.EOF) {
		return errors.New("holds more than one JSON object")
	}
	return nil
}

func (d *Draft) addEntry(j *json.Decoder, column []byte) error {
	at := j.InputOffset()
	token, err := j.Token()
	if err != nil {
		return err
	}
	if !isText(column[at:j.InputOffset()]) {
		return errNoText
	}
	var raw json.RawMessage
	if err := j.Decode(&raw); err != nil {
		return err
	}
	key, ok := token.(string)
	if !ok {
		return errors.New("key is not a string")
	}
	if ours(key) || d.plan.format.Reserved(key) || slices.Contains(d.plan.headerNames, key) {
		return nil
	}
	value, err := headerValue(raw)
	d.AddHeader(key, value)
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

// ours says whether a header's name is one that only we set: an entry of that name is
// left out, so that neither the first nor the last header of a name can be forged.
func ours(key string) bool {
	return len(key) >= len(HeaderPrefix) && strings.EqualFold(key[:len(HeaderPrefix)], HeaderPrefix)
}
