package outbox

import (
	"encoding/hex"
	"errors"
	"strconv"
	"time"
)

// appendBytea appends the bytes that Postgres' text of a bytea stands for. The
// connection asks for bytea_output = hex.
func appendBytea(dst, text []byte) ([]byte, error) {
	if len(text) < 2 || text[0] != '\\' || text[1] != 'x' {
		return dst, errors.New("it is no bytea in hexadecimal form")
	}
	dst, err := hex.AppendDecode(dst, text[2:])
	if err != nil {
		return dst, errors.New("it is no bytea in hexadecimal form")
	}
	return dst, nil
}

// timeLayouts are the texts of timestamptz, timestamp and date on our connections
// (DateStyle ISO, TimeZone UTC), and that of JSON.
func timeLayouts() []string {
	return []string{"2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999", "2006-01-02", time.RFC3339Nano}
}

var errTime = errors.New("it is no time since 1970, nor a number of milliseconds since then")

// parseTime reads a time, or milliseconds since 1970. Kafka knows no time before.
func parseTime(text []byte) (time.Time, error) {
	if millis, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		if millis < 0 {
			return time.Time{}, errTime
		}
		return time.UnixMilli(millis).UTC(), nil
	}
	for _, layout := range timeLayouts() {
		at, err := time.Parse(layout, string(text))
		if err == nil && at.Unix() >= 0 {
			return at.UTC(), nil
		}
	}
	return time.Time{}, errTime
}

// parsePartition reads the number of a partition.
func parsePartition(text []byte) (int32, error) {
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil || n < 0 {
		return 0, errors.New("it is no number of a partition")
	}
	return int32(n), nil
}
