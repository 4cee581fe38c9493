package debezium

import (
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"
)

// appendJSON writes a value as Connect's JsonConverter does, without its schema
// (JsonConverter.java, convertToJson).
func appendJSON(dst []byte, s *schema, v *value) []byte {
	v = v.or(s)
	if !v.set {
		return append(dst, "null"...)
	}
	switch s.kind {
	case kindBoolean:
		return strconv.AppendBool(dst, v.integer != 0)
	case kindInt16, kindInt32, kindInt64:
		return strconv.AppendInt(dst, v.integer, 10)
	case kindFloat, kindDouble:
		return appendJSONFloat(dst, v.float, s.kind)
	case kindBytes:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.bytes(s))
		return append(dst, '"')
	case kindArray:
		return appendJSONArray(dst, s, v)
	case kindStruct:
		return appendJSONStruct(dst, s, v)
	default:
		return appendQuoted(dst, string(v.text))
	}
}

// bytes is what a bytes schema holds: the column's, or a decimal's two's complement.
func (v *value) bytes(s *schema) []byte {
	if s.name == nameDecimal {
		return twosComplement(v.decimal)
	}
	return v.text
}

// appendJSONFloat writes a number as Jackson does, which quotes what is no number in
// JSON.
func appendJSONFloat(dst []byte, f float64, k kind) []byte {
	if !math.IsNaN(f) && !math.IsInf(f, 0) {
		return appendFloat(dst, f, k)
	}
	dst = append(dst, '"')
	dst = appendFloat(dst, f, k)
	return append(dst, '"')
}

func appendJSONArray(dst []byte, s *schema, v *value) []byte {
	dst = append(dst, '[')
	for i := range v.members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSON(dst, s.items, &v.members[i])
	}
	return append(dst, ']')
}

func appendJSONStruct(dst []byte, s *schema, v *value) []byte {
	dst = append(dst, '{')
	for i, f := range s.fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, f.name)
		dst = append(dst, ':')
		dst = appendJSON(dst, f.schema, &v.members[i])
	}
	return append(dst, '}')
}

const upperHex = "0123456789ABCDEF"

// appendQuoted writes a JSON string as Jackson does into bytes: control characters
// escaped, in upper case where they have no short form; what lies beyond the basic
// plane as a pair of escapes; all else as it is, DEL and U+2028 too
// (Jackson 2.21, UTF8JsonGenerator and CharTypes).
func appendQuoted[T string | []byte](dst []byte, text T) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' && c < 0xF0 {
			continue
		}
		dst = append(dst, text[from:i]...)
		size := 1
		if c >= 0xF0 {
			dst, size = appendPair(dst, string(text[i:min(i+utf8.UTFMax, len(text))]))
		} else {
			dst = appendEscape(dst, c)
		}
		i += size - 1
		from = i + 1
	}
	dst = append(dst, text[from:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, `\b`...)
	case '\t':
		return append(dst, `\t`...)
	case '\n':
		return append(dst, `\n`...)
	case '\f':
		return append(dst, `\f`...)
	case '\r':
		return append(dst, `\r`...)
	default:
		return appendUnit(dst, rune(c))
	}
}

// appendPair escapes the character that text begins with, and says how many bytes it
// takes. Bytes that are no character are kept: the caller has looked for them.
func appendPair(dst []byte, text string) (escaped []byte, size int) {
	r, size := utf8.DecodeRuneInString(text)
	if r == utf8.RuneError {
		return append(dst, text[:size]...), size
	}
	r -= 0x10000
	dst = appendUnit(dst, 0xD800+r>>10)
	return appendUnit(dst, 0xDC00+r&0x3FF), size
}

func appendUnit(dst []byte, unit rune) []byte {
	return append(dst, '\\', 'u', upperHex[unit>>12&15], upperHex[unit>>8&15], upperHex[unit>>4&15], upperHex[unit&15])
}
