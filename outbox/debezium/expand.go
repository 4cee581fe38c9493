package debezium

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
)

// maxDepth bounds how deep a payload may be nested to be expanded.
const maxDepth = 200

// node is a JSON value with its members in order.
type node struct {
	kind    kind // "" is null
	text    string
	integer int64
	float   float64
	names   []string // of an object
	members []*node  // of an object or an array
}

// errNotExpanded is a payload that stays the string that it is.
var errNotExpanded = errors.New("payload stays a string")

// expander turns a JSON object into typed data, as table.expand.json.payload=true
// asks (JsonSchemaData.java). What has no type of its own, such as an array of
// numbers and texts, is not expanded: the payload stays a string.
type expander struct{ keepNulls bool }

// expand gives the schema and the value of a payload; ok is false for one that is
// not expanded.
func (e expander) expand(text []byte) (s *schema, v value, ok bool) {
	if len(text) == 0 || text[0] != '{' {
		return nil, value{}, false
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	root, err := parseNode(decoder, 0)
	if err != nil || !wholeText(text, root) {
		return nil, value{}, false
	}
	s, err = e.infer("payload", root)
	if err != nil {
		return nil, value{}, false
	}
	return s, fill(s, root), true
}

// wholeText says that decoding changed no string: Go's decoder puts U+FFFD in the
// place of half a surrogate pair.
func wholeText(text []byte, root *node) bool {
	if !bytes.Contains(bytes.ToLower(text), []byte(`\ud`)) {
		return true
	}
	return !root.contains("\uFFFD")
}

func (n *node) contains(what string) bool {
	if strings.Contains(n.text, what) {
		return true
	}
	for i, m := range n.members {
		if m.contains(what) || n.kind == kindStruct && strings.Contains(n.names[i], what) {
			return true
		}
	}
	return false
}

func parseNode(d *json.Decoder, depth int) (*node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errNotExpanded
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return parseObject(d, depth)
		}
		return parseList(d, depth)
	case string:
		return &node{kind: kindString, text: t}, nil
	case bool:
		n := &node{kind: kindBoolean}
		if t {
			n.integer = 1
		}
		return n, nil
	case json.Number:
		return parseNumber(string(t))
	default:
		return &node{}, nil
	}
}

// parseObject keeps the last value of a name that comes twice, in the place of the
// first.
func parseObject(d *json.Decoder, depth int) (*node, error) {
	n := &node{kind: kindStruct}
	at := map[string]int{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, isName := token.(string)
		if !isName {
			return nil, errNotExpanded
		}
		member, err := parseNode(d, depth+1)
		if err != nil {
			return nil, err
		}
		if i, known := at[name]; known {
			n.members[i] = member
			continue
		}
		at[name] = len(n.names)
		n.names, n.members = append(n.names, name), append(n.members, member)
	}
	_, err := d.Token()
	return n, err
}

func parseList(d *json.Decoder, depth int) (*node, error) {
	n := &node{kind: kindArray}
	for d.More() {
		member, err := parseNode(d, depth+1)
		if err != nil {
			return nil, err
		}
		n.members = append(n.members, member)
	}
	_, err := d.Token()
	return n, err
}

// parseNumber takes a number without point and exponent for an integer of the least
// size, else for a double. What is beyond 64 bits has no type.
func parseNumber(text string) (*node, error) {
	if !strings.ContainsAny(text, ".eE") {
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
			return nil, errNotExpanded
		case n >= math.MinInt32 && n <= math.MaxInt32:
			return &node{kind: kindInt32, integer: n}, nil
		default:
			return &node{kind: kindInt64, integer: n}, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, errNotExpanded
	}
	return &node{kind: kindDouble, float: f}, nil
}

// infer gives the schema of a node, nil for one that is left out of its object.
func (e expander) infer(path string, n *node) (*schema, error) {
	switch n.kind {
	case "":
		if e.keepNulls {
			return &schema{kind: kindBytes, optional: true}, nil
		}
		return nil, nil //nolint:nilnil // no schema is an answer
	case kindStruct:
		s := &schema{kind: kindStruct, name: path, optional: true}
		for i, name := range n.names {
			of, err := e.infer(path+"."+name, n.members[i])
			if err != nil {
				return nil, err
			}
			if of != nil {
				s.fields = append(s.fields, field{name, of})
			}
		}
		return s, nil
	case kindArray:
		return e.inferArray(path, n)
	default:
		return &schema{kind: n.kind, optional: true}, nil
	}
}

// inferArray gives the one schema of all elements but null.
func (e expander) inferArray(path string, n *node) (*schema, error) {
	if len(n.members) == 0 {
		return nil, nil //nolint:nilnil // an empty array is left out
	}
	var items *schema
	for _, m := range n.members {
		if m.kind == "" {
			continue
		}
		of, err := e.infer(path, m)
		switch {
		case err != nil:
			return nil, err
		case of == nil: // an empty array
			return nil, errNotExpanded
		case items == nil:
			items = of
			continue
		}
		if items, err = merge(items, of); err != nil {
			return nil, err
		}
	}
	if items == nil {
		if !e.keepNulls {
			return nil, errNotExpanded
		}
		items = &schema{kind: kindBytes, optional: true}
	}
	return &schema{kind: kindArray, items: items, optional: true}, nil
}

// merge gives a schema for values of both: objects get the members of either, in the
// order in which they first came.
func merge(a, b *schema) (*schema, error) {
	switch {
	case a.kind == kindBytes:
		return b, nil // only null so far
	case b.kind == kindBytes:
		return a, nil
	case a.kind != b.kind:
		return nil, errNotExpanded
	case a.kind == kindArray:
		items, err := merge(a.items, b.items)
		if err != nil {
			return nil, err
		}
		return &schema{kind: kindArray, items: items, optional: true}, nil
	case a.kind != kindStruct:
		return a, nil
	}
	merged := *a
	merged.fields = append([]field(nil), a.fields...)
	for _, f := range b.fields {
		at := fieldIndex(merged.fields, f.name)
		if at < 0 {
			merged.fields = append(merged.fields, f)
			continue
		}
		of, err := merge(merged.fields[at].schema, f.schema)
		if err != nil {
			return nil, err
		}
		merged.fields[at].schema = of
	}
	return &merged, nil
}

func fieldIndex(fields []field, name string) int {
	for i, f := range fields {
		if f.name == name {
			return i
		}
	}
	return -1
}

// fill gives a node the form of its schema.
func fill(s *schema, n *node) value {
	if n.kind == "" {
		return value{}
	}
	v := value{set: true, text: []byte(n.text), integer: n.integer, float: n.float}
	switch s.kind {
	case kindArray:
		v.members = make([]value, len(n.members))
		for i, m := range n.members {
			v.members[i] = fill(s.items, m)
		}
	case kindStruct:
		v.members = make([]value, len(s.fields))
		at := 0
		for i, f := range s.fields {
			// The names of both are in the same order but for what was left out.
			if at >= len(n.names) || n.names[at] != f.name {
				at = indexOfName(n.names, f.name)
			}
			if at < 0 {
				at = 0
				continue
			}
			v.members[i] = fill(f.schema, n.members[at])
			at++
		}
	default:
	}
	return v
}

func indexOfName(names []string, name string) int {
	for i, n := range names {
		if n == name {
			return i
		}
	}
	return -1
}
