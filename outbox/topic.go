package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// template makes a name from a row: text[0], a column, text[1], a column, and so on,
// with one piece of text more than columns.
type template struct {
	text    []string
	columns []string
}

// String is the template as it was written.
func (t *template) String() string {
	var b strings.Builder
	for i, text := range t.text {
		b.WriteString(text)
		if i < len(t.columns) {
			b.WriteString("{" + t.columns[i] + "}")
		}
	}
	return b.String()
}

const templateAdvice = "write letters, digits, dots, dashes and underscores, with columns in braces as in outbox.event.{aggregate_type}"

// parseTemplate reads a template. The error is a usage error.
func parseTemplate(text string) (template, error) {
	var t template
	rest := text
	for {
		before, after, found := strings.Cut(rest, "{")
		if err := checkTopicBytes(before); err != nil {
			return t, badTemplate(text, err)
		}
		t.text = append(t.text, before)
		if !found {
			break
		}
		column, after, closed := strings.Cut(after, "}")
		switch {
		case !closed:
			return t, badTemplate(text, errors.New("a brace is not closed"))
		case column == "":
			return t, badTemplate(text, errors.New("{} names no column"))
		}
		t.columns = append(t.columns, column)
		rest = after
	}
	if len(t.columns) == 0 {
		return t, badTemplate(text, checkTopic(text))
	}
	if strings.HasPrefix(t.text[0], "__") {
		return t, badTemplate(text, errInternalTopic)
	}
	return t, nil
}

func badTemplate(text string, err error) error {
	if err == nil {
		return nil
	}
	return fault.NewUsage(fmt.Errorf("topic template %q: %w", text, err), templateAdvice)
}

// router makes the names of a table's topics.
type router struct {
	template
	at       []int // where the template's columns are in a row
	routes   []route
	allow    []*regexp.Regexp
	reserved []string
}

type route struct {
	pattern     *regexp.Regexp
	replacement string
}

// newRouter checks what a Mapping says of topics. The error is one or more usage
// errors.
func newRouter(m *Mapping, reserved []string) (router, error) {
	text := m.Topic
	if text == "" {
		text = DefaultTopic
	}
	r := router{reserved: reserved}
	var err error
	errs := make([]error, 0, 1)
	r.template, err = parseTemplate(text)
	errs = append(errs, err)
	for _, each := range m.Routes {
		pattern, err := compileWhole(each.Pattern)
		if err == nil {
			err = checkGroups(pattern, each.Replacement)
		}
		errs = append(errs, err)
		r.routes = append(r.routes, route{pattern, each.Replacement})
	}
	for _, each := range m.Allow {
		pattern, err := compileWhole(each)
		errs = append(errs, err)
		r.allow = append(r.allow, pattern)
	}
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	if len(r.columns) > 0 && r.text[0] == "" && len(r.routes) == 0 && len(r.allow) == 0 {
		return r, fault.NewUsage(fmt.Errorf("topic template %q lets a row name any topic", text),
			"put text before the first column, or say with --topic-allow or --topic-route which topics there are")
	}
	if name, static := r.static(); static {
		if _, err := r.finish(name); err != nil {
			return r, fault.NewUsage(fmt.Errorf("topic %q: %w", name, err), "change --topic, --topic-route or --topic-allow")
		}
	}
	return r, nil
}

// groupNames finds the groups that a replacement names, as regexp.Expand reads it.
var groupNames = regexp.MustCompile(`\$(?:\$|\{(\w+)\}|(\w+))`)

// checkGroups refuses a group that the pattern does not have: it would be empty in
// silence, as $1x is, which is read as ${1x}.
func checkGroups(pattern *regexp.Regexp, replacement string) error {
	for _, found := range groupNames.FindAllStringSubmatch(replacement, -1) {
		name := found[1] + found[2]
		number, err := strconv.Atoi(name)
		known := slices.Contains(pattern.SubexpNames(), name) || err == nil && number <= pattern.NumSubexp()
		if name != "" && !known {
			return fault.NewUsage(fmt.Errorf("replacement %q names a group that its pattern does not have", replacement),
				"write groups as ${1} or ${name}, and $$ for a dollar sign")
		}
	}
	return nil
}

// static is the template's name when no column is in it.
func (r *router) static() (name string, ok bool) {
	return r.text[0], len(r.columns) == 0
}

// finish takes a template's name through routes, allow-list and limits.
func (r *router) finish(name string) (string, error) {
	if len(r.routes) > 0 {
		routed, ok := r.route(name)
		if !ok {
			return "", errors.New("no route matches what the row names as its topic")
		}
		name = routed
	}
	if err := checkTopic(name); err != nil {
		return "", err
	}
	if slices.Contains(r.reserved, name) {
		return "", errors.New("the topic is reserved for outboxcdc itself")
	}
	if len(r.allow) > 0 && !slices.ContainsFunc(r.allow, func(e *regexp.Regexp) bool { return e.MatchString(name) }) {
		return "", errors.New("the topic that the row names is not among those of --topic-allow")
	}
	return name, nil
}

func (r *router) route(name string) (string, bool) {
	for _, each := range r.routes {
		if match := each.pattern.FindStringSubmatchIndex(name); match != nil {
			return string(each.pattern.ExpandString(nil, each.replacement, name, match)), true
		}
	}
	return "", false
}

// topicNames remembers what a router gave, to make and check each name once.
type topicNames struct {
	known map[string]string // by the columns' values
	key   []byte
}

// maxTopicNames bounds the names that are remembered of a table.
const maxTopicNames = 10_000

// of is the topic of a row.
func (n *topicNames) of(t *tablePlan, columns [][]byte) (string, error) {
	r := &t.router
	key := n.key[:0]
	for i, at := range r.at {
		if len(columns[at]) == 0 {
			return "", fmt.Errorf("column %s, which names the topic, is null or empty", r.columns[i])
		}
		if len(r.at) > 1 { // so that nothing moves from one value to the next
			key = binary.AppendUvarint(key, uint64(len(columns[at])))
		}
		key = append(key, columns[at]...)
	}
	n.key = key
	if topic, ok := n.known[string(key)]; ok {
		return topic, nil
	}
	topic, err := r.finish(r.name(columns))
	if err != nil {
		return "", err
	}
	if n.known == nil || len(n.known) >= maxTopicNames {
		n.known = map[string]string{}
	}
	n.known[string(key)] = topic
	return topic, nil
}

// approved is a name that a format made itself, when it may be sent to.
func (n *topicNames) approved(t *tablePlan, name string) (string, error) {
	if _, ok := n.known[name]; ok {
		return name, nil
	}
	topic, err := t.router.finish(name)
	if err != nil {
		return "", err
	}
	if n.known == nil || len(n.known) >= maxTopicNames {
		n.known = map[string]string{}
	}
	n.known[name] = topic
	return topic, nil
}

// name fills in the template.
func (r *router) name(columns [][]byte) string {
	var b strings.Builder
	for i, at := range r.at {
		b.WriteString(r.text[i])
		b.Write(columns[at])
	}
	b.WriteString(r.text[len(r.at)])
	return b.String()
}

// maxTopicBytes is Kafka's own limit: a file name holds the topic and a
// partition's number (Topic.java, MAX_NAME_LENGTH).
const maxTopicBytes = 249

var errInternalTopic = errors.New("a topic name that begins with two underscores is the broker's own")

// checkTopic keeps names that come from rows within what Kafka allows and out of
// the brokers' internal topics.
func checkTopic(topic string) error {
	switch {
	case topic == "" || topic == "." || topic == "..":
		return fmt.Errorf("%s is not a topic name", strconv.Quote(topic))
	case len(topic) > maxTopicBytes:
		return fmt.Errorf("a topic name of %d bytes is longer than %d", len(topic), maxTopicBytes)
	case strings.HasPrefix(topic, "__"):
		return errInternalTopic
	default:
		return checkTopicBytes(topic)
	}
}

func checkTopicBytes(text string) error {
	for _, c := range []byte(text) {
		if !legalTopicByte(c) {
			return fmt.Errorf("a topic name may not hold %q", c)
		}
	}
	return nil
}

func legalTopicByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == '_' || c == '-'
}
