package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log in bytes since the cluster was made.
// Zero is no position.
type LSN uint64

// ParseLSN reads Postgres' text form: two groups of one to eight hexadecimal
// digits with a slash between them and nothing else. It is strict on purpose: a
// lenient parser turns a typing error into another place of the log.
func ParseLSN(text string) (LSN, error) {
	high, low, ok := strings.Cut(text, "/")
	if !ok {
		return 0, fmt.Errorf("%q is not an LSN: want two hexadecimal groups such as 0/16B3748", text)
	}
	h, err := parseHalf(high)
	if err != nil {
		return 0, fmt.Errorf("%q is not an LSN: before the slash %w", text, err)
	}
	l, err := parseHalf(low)
	if err != nil {
		return 0, fmt.Errorf("%q is not an LSN: after the slash %w", text, err)
	}
	return LSN(h<<32 | l), nil
}

func parseHalf(digits string) (uint64, error) {
	if len(digits) < 1 || len(digits) > 8 {
		return 0, fmt.Errorf("stand %d digits, want 1 to 8", len(digits))
	}
	for _, c := range []byte(digits) {
		if !isHex(c) {
			return 0, fmt.Errorf("stands %q, want hexadecimal digits", c)
		}
	}
	return strconv.ParseUint(digits, 16, 32)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// String gives Postgres' own form, such as 0/16B3748.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint64(l)>>32, uint64(l)&0xFFFFFFFF)
}

// AppendHex appends 16 upper-case hexadecimal digits, so that the order of the
// texts is the order of the positions.
func (l LSN) AppendHex(dst []byte) []byte {
	const digits = "0123456789ABCDEF"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[l>>shift&0xF])
	}
	return dst
}
