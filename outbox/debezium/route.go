package debezium

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// matchTimeout bounds a pattern that backtracks, on one value of a row.
const matchTimeout = time.Second

// errMatch is a pattern that found no end on a row's value.
var errMatch = errors.New("the topic regex takes too long on the row's value")

// route makes a topic's name as Connect's RegexRouter does: the whole value must
// match, and then the first match in it is replaced, which may be a part of it
// (RegexRouter.java, apply).
type route struct {
	whole, first matcher
	replacement  []piece
	topics       map[string]string // what was given for a value, to make each once
}

// maxTopics bounds the names that a route remembers.
const maxTopics = 10_000

// matcher finds the first match of a pattern: nil, or the start and the end of it
// and of each group, -1 for one that took no part.
type matcher interface {
	find(text string) ([]int, error)
	group(name string) int // -1 when there is none
	groups() int
}

// piece is a part of a replacement: text, or a group.
type piece struct {
	text  string
	group int // -1 for text
}

func newRoute(pattern, replacement string) (*route, error) {
	first, err := compile(pattern)
	if err != nil {
		return nil, err
	}
	whole, err := compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, err
	}
	pieces, err := parseReplacement(replacement, first)
	if err != nil {
		return nil, err
	}
	return &route{whole: whole, first: first, replacement: pieces, topics: map[string]string{}}, nil
}

// topic gives the name for a value. A value that does not match is the name itself.
func (r *route) topic(value []byte) (string, error) {
	if topic, known := r.topics[string(value)]; known {
		return topic, nil
	}
	topic, err := r.replace(string(value))
	if err != nil {
		return "", err
	}
	if len(r.topics) >= maxTopics {
		clear(r.topics)
	}
	r.topics[string(value)] = topic
	return topic, nil
}

func (r *route) replace(value string) (string, error) {
	if match, err := r.whole.find(value); err != nil || match == nil {
		return value, err
	}
	match, err := r.first.find(value)
	if err != nil || match == nil {
		return value, err
	}
	var b strings.Builder
	b.WriteString(value[:match[0]])
	for _, p := range r.replacement {
		switch {
		case p.group < 0:
			b.WriteString(p.text)
		case match[2*p.group] >= 0:
			b.WriteString(value[match[2*p.group]:match[2*p.group+1]])
		}
	}
	b.WriteString(value[match[1]:])
	return b.String(), nil
}

// compile takes Go's own engine, whose time is bounded by the value's length, where
// it knows the pattern, and one that backtracks, as Java's does, for what Go's does
// not know, such as a lookahead.
func compile(pattern string) (matcher, error) {
	if re, err := regexp.Compile(pattern); err == nil {
		return linear{re}, nil
	}
	re, err := regexp2.Compile(pattern, regexp2.RE2)
	if err != nil {
		return nil, fmt.Errorf("topic regex %q: %w", pattern, err)
	}
	re.MatchTimeout = matchTimeout
	return backtracking{re}, nil
}

type linear struct{ re *regexp.Regexp }

func (l linear) find(text string) ([]int, error) { return l.re.FindStringSubmatchIndex(text), nil }
func (l linear) group(name string) int           { return l.re.SubexpIndex(name) }
func (l linear) groups() int                     { return l.re.NumSubexp() }

type backtracking struct{ re *regexp2.Regexp }

func (b backtracking) find(text string) ([]int, error) {
	found, err := b.re.FindStringMatch(text)
	if err != nil {
		return nil, errMatch
	}
	if found == nil {
		return nil, nil
	}
	offsets := byteOffsets(text) // the engine counts runes
	match := []int{}
	for _, g := range found.Groups() {
		if len(g.Captures) == 0 {
			match = append(match, -1, -1)
			continue
		}
		match = append(match, offsets[g.Index], offsets[g.Index+g.Length])
	}
	return match, nil
}

// byteOffsets gives where each rune of a text begins, and where the text ends.
func byteOffsets(text string) []int {
	offsets := make([]int, 0, len(text)+1)
	for at := range text {
		offsets = append(offsets, at)
	}
	return append(offsets, len(text))
}

func (b backtracking) group(name string) int { return b.re.GroupNumberFromName(name) }
func (b backtracking) groups() int           { return len(b.re.GetGroupNumbers()) - 1 }

// parseReplacement reads Java's replacement syntax: $1 and ${name} are groups, a
// backslash makes the next character plain (Matcher.java, appendReplacement).
func parseReplacement(text string, groups matcher) ([]piece, error) {
	var pieces []piece
	plain := []byte{}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			i++
			if i == len(text) {
				return nil, fmt.Errorf("topic replacement %q ends in a backslash", text)
			}
			plain = append(plain, text[i])
		case '$':
			group, size, err := parseGroup(text[i+1:], groups)
			if err != nil {
				return nil, fmt.Errorf("topic replacement %q: %w", text, err)
			}
			pieces = append(pieces, piece{text: string(plain), group: -1}, piece{group: group})
			plain = plain[:0]
			i += size
		default:
			plain = append(plain, c)
		}
	}
	return append(pieces, piece{text: string(plain), group: -1}), nil
}

func parseGroup(rest string, groups matcher) (group, size int, err error) {
	if strings.HasPrefix(rest, "{") {
		name, _, closed := strings.Cut(rest[1:], "}")
		if !closed {
			return 0, 0, errors.New("a brace is not closed")
		}
		group := groups.group(name)
		if group < 0 {
			return 0, 0, fmt.Errorf("the regex has no group named %q", name)
		}
		return group, len(name) + len("{}"), nil
	}
	// As many digits as still name a group, as Java does.
	for size < len(rest) && '0' <= rest[size] && rest[size] <= '9' {
		n, err := strconv.Atoi(rest[:size+1])
		if err != nil || size > 0 && n > groups.groups() {
			break
		}
		group = n
		size++
	}
	if size == 0 {
		return 0, 0, errors.New("a dollar sign names no group; write a backslash before it where it is meant as such")
	}
	if group > groups.groups() {
		return 0, 0, fmt.Errorf("the regex has no group %d", group)
	}
	return group, size, nil
}
