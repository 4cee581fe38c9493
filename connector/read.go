// Package connector reads the configuration of a Debezium connector and says what
// becomes of each of its options in outboxcdc. It is pure: it knows options, neither
// files nor servers.
package connector

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// maxBytes bounds a configuration; a real one has a few kilobytes.
const maxBytes = 1 << 20

// Config is a connector's configuration: its options by their full names.
type Config struct {
	Name    string // as Connect knows it; may be empty
	Options map[string]string
}

// Read reads a configuration as Connect's REST interface takes it, an object or an
// object with the members name and config, or as a properties file, of Connect or of
// Debezium Server. The error is a usage error and shows no value of an option.
func Read(text []byte) (Config, error) {
	config, err := read(text)
	if err != nil {
		return Config{}, fault.NewUsage(fmt.Errorf("read the connector's configuration: %w", err),
			"give the JSON that was posted to Connect, the answer of GET /connectors/NAME, or a .properties file")
	}
	return config, nil
}

func read(text []byte) (Config, error) {
	if len(text) > maxBytes {
		return Config{}, fmt.Errorf("it has more than %d bytes", maxBytes)
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	var config Config
	var err error
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		config, err = readJSON(trimmed)
	} else {
		config.Options, err = readProperties(string(text))
	}
	if err != nil {
		return Config{}, err
	}
	if len(config.Options) == 0 {
		return Config{}, errors.New("it has no options")
	}
	config.fromServer()
	if name := config.Options["name"]; config.Name == "" {
		config.Name = name
	}
	return config, nil
}

func readJSON(text []byte) (Config, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	members, err := objectOf(d)
	if err != nil {
		return Config{}, err
	}
	if d.More() {
		return Config{}, errors.New("more follows the JSON object")
	}
	config := Config{Options: map[string]string{}}
	if inner, wrapped := members["config"]; wrapped && len(inner) > 0 && inner[0] == '{' {
		if name, ok := members["name"]; ok {
			if err := json.Unmarshal(name, &config.Name); err != nil {
				return Config{}, errors.New("its name is not a string")
			}
		}
		if members, err = objectOf(json.NewDecoder(bytes.NewReader(inner))); err != nil {
			return Config{}, err
		}
	}
	for name, raw := range members {
		if config.Options[name], err = optionOf(raw); err != nil {
			return Config{}, fmt.Errorf("option %s: %w", name, err)
		}
	}
	return config, nil
}

// objectOf reads an object and refuses a name that comes twice: which of the two
// counts would be a guess.
func objectOf(d *json.Decoder) (map[string]json.RawMessage, error) {
	errNotJSON := errors.New("it is not a JSON object")
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, errNotJSON
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		name, isName := token.(string)
		if err != nil || !isName {
			return nil, errNotJSON
		}
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("option %s is given twice", name)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, errNotJSON
		}
		members[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, errNotJSON
	}
	return members, nil
}

// optionOf gives a value as Connect reads it: text, whatever JSON it was.
func optionOf(raw json.RawMessage) (string, error) {
	switch raw[0] {
	case '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return text, err
	case '{', '[':
		return "", errors.New("its value is no text, number or boolean")
	case 'n':
		return "", nil
	default:
		return string(raw), nil
	}
}

// readProperties reads Java's format (java.util.Properties, load): comments, lines
// that go on behind a backslash, = or : or blanks between name and value, escapes.
func readProperties(text string) (map[string]string, error) {
	options := map[string]string{}
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimLeft(lines[i], " \t\f")
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for goesOn(line) && i+1 < len(lines) {
			i++
			line = line[:len(line)-1] + strings.TrimLeft(lines[i], " \t\f")
		}
		name, value, err := splitProperty(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if _, twice := options[name]; twice {
			return nil, fmt.Errorf("option %s is given twice", name)
		}
		options[name] = value
	}
	return options, nil
}

// goesOn says whether a line ends in an odd number of backslashes.
func goesOn(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

func splitProperty(line string) (name, value string, err error) {
	end := 0
	for end < len(line) && !strings.ContainsRune("=: \t\f", rune(line[end])) {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(line))
	rest := strings.TrimLeft(line[end:], " \t\f")
	if rest != "" && (rest[0] == '=' || rest[0] == ':') {
		rest = strings.TrimLeft(rest[1:], " \t\f")
	}
	if name, err = unescape(line[:end]); err != nil {
		return "", "", err
	}
	if name == "" {
		return "", "", errors.New("an option has no name")
	}
	value, err = unescape(rest)
	return name, strings.TrimRight(value, " \t"), err
}

func unescape(text string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch c := text[i]; c {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			digits := text[i+1 : min(i+5, len(text))]
			unit, err := strconv.ParseUint(digits, 16, 16)
			if err != nil || len(digits) != 4 {
				return "", errors.New(`\u is not followed by four digits`)
			}
			b.WriteRune(rune(unit))
			i += 4
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// Prefixes of the options of Debezium Server, and what they are to Connect.
const (
	serverPrefix   = "debezium."
	serverSource   = "debezium.source."
	serverProducer = "debezium.sink.kafka.producer."
)

// fromServer gives the options of Debezium Server the names that they have in
// Connect. Its converters are JSON with schemas unless it says otherwise, for headers
// as well, and a dollar sign is written twice.
func (c *Config) fromServer() {
	names := make([]string, 0, len(c.Options))
	isServer := false
	for name := range c.Options {
		names = append(names, name)
		isServer = isServer || strings.HasPrefix(name, serverSource)
	}
	if !isServer {
		return
	}
	slices.Sort(names)
	options := map[string]string{"header.converter": "json-schema"}
	for _, name := range names {
		options[connectName(name)] = strings.ReplaceAll(c.Options[name], "$$", "$")
	}
	for _, part := range []string{"key", "value", "header"} {
		format := part + ".converter"
		if word, given := serverFormats[options[format]]; given {
			options[format] = word
		}
	}
	c.Options = options
}

// serverFormats are the formats of Debezium Server that are converters of ours.
var serverFormats = map[string]string{ //nolint:gochecknoglobals // a constant
	"json": "json-schema", "simplestring": "string", "binary": "binary",
}

func connectName(name string) string {
	for _, part := range []string{"key", "value", "header"} {
		format := "debezium.format." + part
		if name == format {
			return part + ".converter"
		}
		if rest, ok := strings.CutPrefix(name, format+"."); ok {
			return part + ".converter." + rest
		}
	}
	if rest, ok := strings.CutPrefix(name, serverSource); ok {
		return rest
	}
	if rest, ok := strings.CutPrefix(name, serverProducer); ok {
		return "producer.override." + rest
	}
	return strings.TrimPrefix(name, serverPrefix)
}
