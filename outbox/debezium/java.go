package debezium

import (
	"bytes"
	"encoding/base64"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"
)

// appendFloat writes a number as Java's Double.toString and Float.toString do:
// decimal between 10^-3 and 10^7, else in scientific form, always with a digit after
// the point. The digits are the shortest that name the number; JVMs before 19 print
// one more for a few numbers (JDK-4511638), which no consumer can tell apart once it
// has parsed them.
func appendFloat(dst []byte, f float64, k kind) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 0):
		if f < 0 {
			dst = append(dst, '-')
		}
		return append(dst, "Infinity"...)
	}
	bits := 64
	if k == kindFloat {
		bits = 32
	}
	if size := math.Abs(f); size == 0 || size >= 1e-3 && size < 1e7 {
		from := len(dst)
		dst = strconv.AppendFloat(dst, f, 'f', -1, bits)
		if bytes.IndexByte(dst[from:], '.') < 0 {
			dst = append(dst, ".0"...)
		}
		return dst
	}
	var room [32]byte
	text := strconv.AppendFloat(room[:0], f, 'E', -1, bits)
	mantissa, exponent, _ := bytes.Cut(text, []byte{'E'})
	dst = append(dst, mantissa...)
	if bytes.IndexByte(mantissa, '.') < 0 {
		dst = append(dst, ".0"...)
	}
	dst = append(dst, 'E')
	if exponent[0] == '-' {
		dst = append(dst, '-')
	}
	return append(dst, bytes.TrimLeft(exponent[1:], "0")...)
}

// appendDecimal writes an unscaled number and its scale as Java's
// BigDecimal.toString does: plainly, unless the scale is negative or the number
// smaller than 10^-6.
func appendDecimal(dst []byte, unscaled *big.Int, scale int) []byte {
	if unscaled.Sign() < 0 {
		dst = append(dst, '-')
	}
	digits := new(big.Int).Abs(unscaled).Append(nil, 10)
	exponent := len(digits) - 1 - scale
	if scale < 0 || exponent < -6 {
		return appendScientific(dst, digits, exponent)
	}
	if scale == 0 {
		return append(dst, digits...)
	}
	if missing := scale + 1 - len(digits); missing > 0 {
		digits = append(bytes.Repeat([]byte{'0'}, missing), digits...)
	}
	point := len(digits) - scale
	dst = append(dst, digits[:point]...)
	dst = append(dst, '.')
	return append(dst, digits[point:]...)
}

func appendScientific(dst, digits []byte, exponent int) []byte {
	dst = append(dst, digits[0])
	if len(digits) > 1 {
		dst = append(dst, '.')
		dst = append(dst, digits[1:]...)
	}
	if exponent == 0 {
		return dst
	}
	dst = append(dst, 'E')
	if exponent > 0 {
		dst = append(dst, '+')
	}
	return strconv.AppendInt(dst, int64(exponent), 10)
}

// twosComplement is Java's BigInteger.toByteArray: the shortest big-endian two's
// complement, at least one byte.
func twosComplement(n *big.Int) []byte {
	if n.Sign() >= 0 {
		raw := n.Bytes()
		if len(raw) == 0 || raw[0] >= 0x80 {
			raw = append([]byte{0}, raw...)
		}
		return raw
	}
	// -n-1 has the inverted bits of n.
	raw := new(big.Int).Not(n).Bytes()
	if len(raw) == 0 || raw[0] >= 0x80 {
		raw = append([]byte{0}, raw...)
	}
	for i := range raw {
		raw[i] = ^raw[i]
	}
	return raw
}

// appendJava writes a value as its Java object's toString does, which is what
// StringConverter gives.
func appendJava(dst []byte, s *schema, v *value) []byte {
	switch s.kind {
	case kindBoolean:
		return strconv.AppendBool(dst, v.integer != 0)
	case kindInt16, kindInt32, kindInt64:
		return strconv.AppendInt(dst, v.integer, 10)
	case kindFloat, kindDouble:
		return appendFloat(dst, v.float, s.kind)
	case kindArray:
		dst = append(dst, '[')
		for i := range v.members {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			if m := &v.members[i]; m.set {
				dst = appendJava(dst, s.items, m)
			} else {
				dst = append(dst, "null"...)
			}
		}
		return append(dst, ']')
	case kindStruct:
		return appendJavaStruct(dst, s, v)
	case kindBytes:
		return appendDecimal(dst, v.decimal, v.scale)
	default:
		return append(dst, v.text...)
	}
}

// appendJavaStruct is Connect's Struct.toString, which leaves out null members.
func appendJavaStruct(dst []byte, s *schema, v *value) []byte {
	dst = append(dst, "Struct{"...)
	first := true
	for i, f := range s.fields {
		m := v.members[i].or(f.schema)
		if !m.set {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, f.name...)
		dst = append(dst, '=')
		dst = appendJava(dst, f.schema, m)
	}
	return append(dst, '}')
}

// holdsBytes says whether a value of the schema would show as a Java buffer's
// address and length where its toString is asked for: its content would be lost.
func (s *schema) holdsBytes() bool {
	switch s.kind {
	case kindBytes:
		return s.name != nameDecimal
	case kindArray:
		return s.items.holdsBytes()
	case kindStruct:
		return slices.ContainsFunc(s.fields, func(f field) bool { return f.schema.holdsBytes() })
	default:
		return false
	}
}

// appendSimple writes a header as Connect's default header converter does: a value
// by itself as text, within others as JSON of a kind (Values.java, append).
func appendSimple(dst []byte, s *schema, v *value, within bool) []byte {
	if !v.set {
		return append(dst, "null"...)
	}
	switch s.kind {
	case kindArray:
		dst = append(dst, '[')
		for i := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendSimple(dst, s.items, &v.members[i], true)
		}
		return append(dst, ']')
	case kindStruct:
		dst = append(dst, '{')
		for i, f := range s.fields {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendSimpleQuoted(dst, []byte(f.name))
			dst = append(dst, ':')
			dst = appendSimple(dst, f.schema, &v.members[i], true)
		}
		return append(dst, '}')
	case kindString:
		if within {
			return appendSimpleQuoted(dst, v.text)
		}
		return append(dst, v.text...)
	case kindBytes:
		return appendSimpleBytes(dst, s, v, within)
	case kindInt32, kindInt64:
		if s.isDate() {
			return appendDate(dst, s, v.integer)
		}
		return appendJava(dst, s, v)
	default:
		return appendJava(dst, s, v)
	}
}

func appendSimpleQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

func appendSimpleBytes(dst []byte, s *schema, v *value, within bool) []byte {
	switch {
	case s.name == nameDecimal:
		return appendDecimal(dst, v.decimal, v.scale)
	case within:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.text)
		return append(dst, '"')
	default:
		return base64.StdEncoding.AppendEncode(dst, v.text)
	}
}

// appendDate writes a java.util.Date as Connect's Values do, which go by its size
// alone: less than a day is a time, whole days are a date (Values.java,
// dateFormatFor).
func appendDate(dst []byte, s *schema, n int64) []byte {
	const day = 24 * 60 * 60 * 1000
	millis := n
	if s.name == nameConnectDate {
		millis *= day
	}
	at := time.UnixMilli(millis).UTC()
	switch {
	case millis < day:
		return at.AppendFormat(dst, "15:04:05.000Z")
	case millis%day == 0:
		return at.AppendFormat(dst, "2006-01-02")
	default:
		return at.AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	}
}
