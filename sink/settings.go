package sink

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// settings are what may stand behind the question mark of a URL: how each value is
// understood, and why some names that the broker's users know cannot be set.
type settings[S any] struct {
	setters map[string]func(into S, value string) error
	fixed   map[string]string
}

// read applies name=value pairs. A plus is a plus, not a space: passwords contain
// it, and nobody expects it to change.
func (s settings[S]) read(into S, query string) error {
	seen := make(map[string]bool)
	for i, pair := range strings.Split(query, "&") {
		if pair == "" {
			continue
		}
		name, escaped, _ := strings.Cut(pair, "=")
		set, known := s.setters[name]
		if !known {
			return s.unknown(i+1, name)
		}
		value, err := url.PathUnescape(escaped)
		switch {
		case err != nil: // err repeats the value, which may be a password
			return fault.NewUsage(fmt.Errorf("the sink's URL: the value of %s has a %% that begins no escape", name), "write %25 for a %")
		case seen[name]:
			return fault.NewUsage(fmt.Errorf("the sink's URL: %s is given twice", name), "give it once")
		}
		seen[name] = true
		if err := set(into, value); err != nil {
			return err
		}
	}
	return nil
}

// unknown does not repeat the name: what follows an & in a password looks like one.
func (s settings[S]) unknown(number int, name string) error {
	if reason, ok := s.fixed[name]; ok {
		return fault.NewUsage(fmt.Errorf("the sink's URL: %s cannot be set: %s", name, reason), "leave it out")
	}
	names := slices.Sorted(maps.Keys(s.setters))
	nearest := slices.MinFunc(names, func(a, b string) int { return distance(name, a) - distance(name, b) })
	advice := "the known ones are " + strings.Join(names, ", ")
	if distance(name, nearest) <= len(nearest)/2 {
		advice = fmt.Sprintf("do you mean %s?", nearest)
	}
	return fault.NewUsage(fmt.Errorf("the sink's URL: the name of setting %d is not known", number), advice)
}

// distance is how many characters must be added, dropped or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// badValue never repeats the value.
func badValue(name, want string) error {
	return fault.NewUsage(fmt.Errorf("the sink's URL: the value of %s cannot be used", name), "want "+want)
}

// parseBrokers understands a list of host, host:port, [v6] and [v6]:port.
func parseBrokers(address, defaultPort, advice string) ([]string, error) {
	if address == "" {
		return nil, fault.NewUsage(errors.New("the sink's URL names no broker"), advice)
	}
	var brokers []string
	for i, text := range strings.Split(address, ",") {
		broker, ok := parseBroker(text, defaultPort)
		if !ok {
			return nil, fault.NewUsage(fmt.Errorf("the sink's URL: broker %d is not host:port", i+1), advice)
		}
		brokers = append(brokers, broker)
	}
	return brokers, nil
}

func parseBroker(text, defaultPort string) (string, bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), defaultPort
		if bare := net.ParseIP(host) == nil && strings.Contains(host, ":"); bare {
			return "", false
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || host == "" || strings.ContainsFunc(host, notInHost) {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

func notInHost(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	default:
		return !strings.ContainsRune("._-:", r)
	}
}
