package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxHeaders bounds the entries of one headers column.
const maxHeaders = 1000

// position is the text that names the event.
func (d *Draft) position() []byte {
	text := d.Row.Commit.AppendHex(d.Text())
	text = append(text, '/')
	text = strconv.AppendInt(text, int64(d.Row.Index), 10)
	return d.Keep(text)
}

// addEntries adds one header for each entry of a JSON object: a string as its text,
// null as a null value, anything else as the JSON that Postgres rendered.
func (d *Draft) addEntries(column []byte) error {
	if err := d.addEach(column); err != nil {
		return fmt.Errorf("headers column: %w", err)
	}
	return nil
}

// addEach must stay cheap, since it is the hot path of whoever sends headers: values
// are the column's own bytes, and names are made once.
func (d *Draft) addEach(column []byte) error {
	rest := bytes.TrimLeft(column, jsonSpace)
	if len(rest) == 0 || rest[0] != '{' || !json.Valid(column) {
		return errors.New("is not a JSON object")
	}
	o := object{rest[1:]}
	for n := 0; ; n++ {
		key, value, ok := o.next()
		switch {
		case !ok:
			return nil
		case n == maxHeaders:
			return fmt.Errorf("has more than %d entries", maxHeaders)
		}
		if err := d.addEntry(key, value); err != nil {
			return err
		}
	}
}

func (d *Draft) addEntry(rawKey, rawValue []byte) error {
	text, err := stringValue(rawKey)
	if err != nil {
		return err
	}
	key := d.name(text)
	if ours(key) || d.plan.format.Reserved(key) || slices.Contains(d.plan.headerNames, key) {
		return nil
	}
	value, err := headerValue(rawValue)
	d.AddHeader(key, value)
	return err
}

// name is text as a string that is made once.
func (d *Draft) name(text []byte) string {
	if name, ok := d.names[string(text)]; ok {
		return name
	}
	if d.names == nil || len(d.names) >= maxHeaders {
		d.names = map[string]string{}
	}
	name := string(text)
	d.names[name] = name
	return name
}

func headerValue(raw []byte) ([]byte, error) {
	switch raw[0] {
	case '"':
		return stringValue(raw)
	case 'n':
		return nil, nil
	default:
		return raw, nil
	}
}

// stringValue is the text of a JSON string that is valid.
func stringValue(raw []byte) ([]byte, error) {
	if !isText(raw) {
		return nil, errNoText
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1 : len(raw)-1], nil
	}
	var text string
	err := json.Unmarshal(raw, &text)
	return []byte(text), err
}

const jsonSpace = " \t\r\n"

// object walks through the entries of a JSON object that is valid.
type object struct{ rest []byte }

// next gives the text of a name and of its value.
func (o *object) next() (key, value []byte, ok bool) {
	o.rest = bytes.TrimLeft(o.rest, jsonSpace+",")
	if o.rest[0] == '}' {
		return nil, nil, false
	}
	key = o.take()
	o.rest = bytes.TrimLeft(o.rest, jsonSpace+":")
	return key, o.take(), true
}

// take takes a value.
func (o *object) take() []byte {
	n := valueLength(o.rest)
	value := o.rest[:n:n]
	o.rest = o.rest[n:]
	return value
}

// valueLength is how long the value is that text begins with.
func valueLength(text []byte) int {
	depth := 0
	for at := 0; at < len(text); at++ {
		switch text[at] {
		case '"':
			at += stringLength(text[at:]) - 1
			if depth == 0 {
				return at + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // what encloses a number or a word
				return at
			}
			depth--
			if depth == 0 {
				return at + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return at
			}
		}
	}
	return len(text)
}

// stringLength is how long the string is that text begins with, quotes included.
func stringLength(text []byte) int {
	for at := 1; at < len(text); at++ {
		switch text[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return len(text)
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
