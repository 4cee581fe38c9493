package debezium

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	microsPerSecond = 1_000_000
	secondsPerDay   = 24 * 60 * 60
	microsPerDay    = secondsPerDay * microsPerSecond
)

// fullPrecision is that of a time without a declared one: microseconds.
const fullPrecision = 6

// What Debezium makes of the infinities of timestamp and date, [golden
// placements-infinity]: the driver's stand-ins for them, cut to the type.
const (
	infiniteMicros    = 9_223_372_036_825_200_000
	minusInfiniteUS   = -9_223_372_036_832_400_000
	infiniteDays      = -2_147_472_692
	minusInfiniteDays = -2_147_472_691
)

// errInfinite is an infinity that has no form in a time.precision.mode.
var errInfinite = errors.New("infinity has no form in this time.precision.mode")

// timeCodec gives the forms of time.precision.mode.
func timeCodec(name string, mod int32, mode TimeMode) (codec, error) {
	precision := int(mod)
	if precision < 0 {
		precision = fullPrecision
	}
	switch name {
	case "timestamp":
		return timestampCodec(precision, mode), nil
	case "date":
		return dateCodec(mode), nil
	case "time":
		return clockCodec(precision, mode), nil
	case "timestamptz":
		return codec{named(kindString, "io.debezium.time.ZonedTimestamp"), readZoned(precision)}, nil
	case "timetz":
		return codec{named(kindString, "io.debezium.time.ZonedTime"), readZonedClock}, nil
	case "interval":
		return codec{named(kindInt64, "io.debezium.time.MicroDuration"), readInterval}, nil
	default:
		return codec{}, errUnsupported
	}
}

// unit is a whole number of a second, and the schema that Debezium gives it.
type unit struct {
	schema *schema
	scale  func(micros int64) int64
}

func millis(micros int64) int64 { return floorDiv(micros, 1000) }
func micros(micros int64) int64 { return micros }
func nanos(micros int64) int64  { return micros * 1000 }

func timestampCodec(precision int, mode TimeMode) codec {
	u := unit{named(kindInt64, "io.debezium.time.MicroTimestamp"), micros}
	switch {
	case mode == TimeISO:
		return codec{named(kindString, "io.debezium.time.IsoTimestamp"), readISO(appendISOTimestamp)}
	case mode == TimeConnect:
		u = unit{named(kindInt64, nameConnectTS), millis}
	case mode == TimeNanoseconds:
		u = unit{named(kindInt64, "io.debezium.time.NanoTimestamp"), nanos}
	case mode != TimeMicroseconds && precision <= 3:
		u = unit{named(kindInt64, "io.debezium.time.Timestamp"), millis}
	}
	return codec{u.schema, func(text []byte, into *value) error {
		at, err := parseTimestamp(text)
		switch {
		case errors.Is(err, errInfinite) && (mode == TimeConnect || mode == TimeNanoseconds):
			return err
		case err != nil && !errors.Is(err, errInfinite):
			return err
		}
		into.set, into.integer = true, u.scale(at)
		return nil
	}}
}

func clockCodec(precision int, mode TimeMode) codec {
	u := unit{named(kindInt64, "io.debezium.time.MicroTime"), micros}
	switch {
	case mode == TimeISO:
		return codec{named(kindString, "io.debezium.time.IsoTime"), readClockWith(func(dst []byte, us int64) []byte {
			return append(appendClock(dst, us), 'Z')
		})}
	case mode == TimeConnect:
		u = unit{named(kindInt32, nameConnectTime), millis}
	case mode == TimeNanoseconds:
		u = unit{named(kindInt64, "io.debezium.time.NanoTime"), nanos}
	case mode == TimeAdaptive && precision <= 3:
		u = unit{named(kindInt32, "io.debezium.time.Time"), millis}
	}
	return codec{u.schema, func(text []byte, into *value) error {
		us, rest, err := parseClock(text)
		if err != nil || len(rest) > 0 {
			return errText
		}
		into.set, into.integer = true, u.scale(us)
		return nil
	}}
}

func dateCodec(mode TimeMode) codec {
	switch mode {
	case TimeISO:
		return codec{named(kindString, "io.debezium.time.IsoDate"), readISO(func(dst []byte, us int64) []byte {
			return append(appendDay(dst, us), 'Z')
		})}
	case TimeConnect:
		return codec{named(kindInt32, nameConnectDate), readDate}
	default:
		return codec{named(kindInt32, "io.debezium.time.Date"), readDate}
	}
}

func readDate(text []byte, into *value) error {
	at, err := parseTimestamp(text)
	switch {
	case errors.Is(err, errInfinite) && at > 0:
		into.integer = infiniteDays
	case errors.Is(err, errInfinite):
		into.integer = minusInfiniteDays
	case err != nil:
		return err
	default:
		into.integer = floorDiv(at, microsPerDay)
	}
	into.set = true
	return nil
}

func readISO(appendTo func(dst []byte, us int64) []byte) func([]byte, *value) error {
	return func(text []byte, into *value) error {
		at, err := parseTimestamp(text)
		if err != nil {
			return err
		}
		into.set, into.text = true, appendTo(nil, at)
		return nil
	}
}

func readClockWith(appendTo func(dst []byte, us int64) []byte) func([]byte, *value) error {
	return func(text []byte, into *value) error {
		us, rest, err := parseClock(text)
		if err != nil || len(rest) > 0 {
			return errText
		}
		into.set, into.text = true, appendTo(nil, us)
		return nil
	}
}

// readZoned gives a timestamptz in UTC, with as many digits of its fraction as the
// column declares.
func readZoned(precision int) func([]byte, *value) error {
	return func(text []byte, into *value) error {
		if s := string(text); s == "infinity" || s == "-infinity" {
			into.set, into.text = true, text
			return nil
		}
		at, err := parseTimestamp(text)
		if err != nil {
			return err
		}
		out := append(appendDay(nil, at), 'T')
		out = appendSeconds(out, floorMod(at, microsPerDay))
		if precision > 0 {
			out = append(out, '.')
			out = append(out, fraction(floorMod(at, microsPerSecond))[:min(precision, fullPrecision)]...)
		}
		out = append(out, 'Z')
		into.set, into.text = true, out
		return nil
	}
}

func readZonedClock(text []byte, into *value) error {
	us, rest, err := parseClock(text)
	if err != nil {
		return err
	}
	offset, err := parseOffset(rest)
	if err != nil {
		return err
	}
	us = floorMod(us-offset*microsPerSecond, microsPerDay)
	into.set, into.text = true, append(appendClock(nil, us), 'Z')
	return nil
}

func appendISOTimestamp(dst []byte, us int64) []byte {
	dst = append(appendDay(dst, us), 'T')
	return append(appendClock(dst, floorMod(us, microsPerDay)), 'Z')
}

// appendDay writes the day of a time as Java's ISO formats do: years before 0 and
// after 9999 have a sign.
func appendDay(dst []byte, us int64) []byte {
	at := time.Unix(floorDiv(us, microsPerSecond), 0).UTC()
	year := at.Year()
	switch {
	case year < 0:
		dst = append(dst, '-')
		year = -year
	case year > 9999:
		dst = append(dst, '+')
	}
	for limit := 1000; limit > 1 && year < limit; limit /= 10 {
		dst = append(dst, '0')
	}
	dst = strconv.AppendInt(dst, int64(year), 10)
	return at.AppendFormat(dst, "-01-02")
}

// appendClock writes a time of day with as many digits of its fraction as it needs.
func appendClock(dst []byte, us int64) []byte {
	dst = appendSeconds(dst, us)
	if rest := us % microsPerSecond; rest != 0 {
		dst = append(dst, '.')
		dst = append(dst, bytes.TrimRight(fraction(rest), "0")...)
	}
	return dst
}

func appendSeconds(dst []byte, us int64) []byte {
	seconds := us / microsPerSecond
	for i, n := range [...]int64{seconds / 3600, seconds / 60 % 60, seconds % 60} {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = append(dst, byte('0'+n/10), byte('0'+n%10))
	}
	return dst
}

// fraction gives the six digits of a second's microseconds.
func fraction(us int64) []byte {
	return strconv.AppendInt(nil, microsPerSecond+us, 10)[1:]
}

// parseTimestamp reads a date, a timestamp or a timestamptz in DateStyle ISO, as
// microseconds of Unix time. An infinity gives Debezium's number for it and
// errInfinite.
func parseTimestamp(text []byte) (int64, error) {
	switch string(text) {
	case "infinity":
		return infiniteMicros, errInfinite
	case "-infinity":
		return minusInfiniteUS, errInfinite
	}
	rest, before := bytes.CutSuffix(text, []byte(" BC"))
	day, clock, hasClock := bytes.Cut(rest, []byte{' '})
	parts := strings.Split(string(day), "-")
	if len(parts) != 3 {
		return 0, errText
	}
	var numbers [3]int
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return 0, errText
		}
		numbers[i] = n
	}
	if before {
		numbers[0] = 1 - numbers[0]
	}
	seconds := time.Date(numbers[0], time.Month(numbers[1]), numbers[2], 0, 0, 0, 0, time.UTC).Unix()
	if !hasClock {
		return seconds * microsPerSecond, nil
	}
	us, zone, err := parseClock(clock)
	if err != nil {
		return 0, err
	}
	offset, err := parseOffset(zone)
	if err != nil {
		return 0, err
	}
	return (seconds-offset)*microsPerSecond + us, nil
}

// parseClock reads hours, minutes, seconds and their fraction, and gives what is
// behind them.
func parseClock(text []byte) (us int64, rest []byte, err error) {
	if len(text) < len("00:00:00") || text[2] != ':' || text[5] != ':' {
		return 0, nil, errText
	}
	for i, weight := range [...]int64{3600, 60, 1} {
		tens, ones := text[3*i]-'0', text[3*i+1]-'0'
		if tens > 9 || ones > 9 {
			return 0, nil, errText
		}
		us += int64(tens*10+ones) * weight * microsPerSecond
	}
	rest = text[len("00:00:00"):]
	if len(rest) == 0 || rest[0] != '.' {
		return us, rest, nil
	}
	rest = rest[1:]
	for unit := int64(microsPerSecond / 10); len(rest) > 0 && '0' <= rest[0] && rest[0] <= '9'; unit /= 10 {
		us += int64(rest[0]-'0') * unit
		rest = rest[1:]
	}
	return us, rest, nil
}

// parseOffset reads a zone such as +02, -05:30 or +01:02:03, in seconds.
func parseOffset(text []byte) (int64, error) {
	if len(text) == 0 {
		return 0, nil
	}
	sign := int64(1)
	switch text[0] {
	case '+':
	case '-':
		sign = -1
	default:
		return 0, errText
	}
	var seconds int64
	weight := int64(3600)
	for part := range strings.SplitSeq(string(text[1:]), ":") {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || weight == 0 {
			return 0, errText
		}
		seconds += int64(n) * weight
		weight /= 60
	}
	return sign * seconds, nil
}

// daysPerMonth is what interval.handling.mode=numeric takes a month for.
const daysPerMonth = 365.25 / 12

// readInterval gives an interval in IntervalStyle postgres as microseconds.
func readInterval(text []byte, into *value) error {
	var days float64
	var us int64
	words := strings.Fields(string(text))
	for len(words) > 0 {
		if strings.Contains(words[0], ":") {
			clock, negative := strings.CutPrefix(strings.TrimPrefix(words[0], "+"), "-")
			n, err := parseLongClock(clock)
			if err != nil {
				return err
			}
			if negative {
				n = -n
			}
			us += n
			words = words[1:]
			continue
		}
		if len(words) < 2 {
			return errText
		}
		n, err := strconv.ParseInt(words[0], 10, 32)
		if err != nil {
			return errText
		}
		weight, known := intervalDays[strings.TrimSuffix(words[1], "s")]
		if !known {
			return errText
		}
		days += float64(n) * weight
		words = words[2:]
	}
	into.set, into.integer = true, int64(math.Round(days*microsPerDay))+us
	return nil
}

var intervalDays = map[string]float64{ //nolint:gochecknoglobals // a constant
	"year": 12 * daysPerMonth, "mon": daysPerMonth, "day": 1,
}

// parseLongClock reads a time whose hours may have any number of digits.
func parseLongClock(text string) (int64, error) {
	hours, rest, ok := strings.Cut(text, ":")
	n, err := strconv.ParseInt(hours, 10, 40)
	if !ok || err != nil {
		return 0, errText
	}
	us, tail, err := parseClock([]byte("00:" + rest))
	if err != nil || len(tail) > 0 {
		return 0, errText
	}
	return n*3600*microsPerSecond + us, nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 { return a - b*floorDiv(a, b) }
