package debezium

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/outboxcdc/outboxcdc/sink"
)

// errNoObject is a logical message that is not the JSON object that it should be.
var errNoObject = errors.New("logical message is not a JSON object")

// Message makes the record of a logical message (pg_logical_emit_message) whose
// content is a JSON object with the columns of an outbox row for its members. The
// connector takes it with the transform DecodeLogicalDecodingMessageContent before
// the router; it carries no context headers. An object for its payload is typed data,
// as if expanded.
func (f *Format) Message(content []byte, b *Buffer) (Record, error) {
	record := Record{Partition: NoPartition}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	root, err := parseNode(decoder, 0)
	if err != nil || root.kind != kindStruct {
		return record, errNoObject
	}
	o := &f.options
	member := func(name string, c Converter) ([]byte, error) { return f.member(root, name, c, b) }
	route := root.member(o.RouteColumn)
	if route == nil || route.kind != kindString {
		return record, fmt.Errorf("member %s: %w", o.RouteColumn, errNoRoute)
	}
	if record.Topic, err = f.route.topic([]byte(route.text)); err != nil {
		return record, err
	}
	if record.Key, err = member(o.KeyColumn, o.Key); err != nil {
		return record, err
	}
	if record.Value, err = member(o.PayloadColumn, o.Value); err != nil {
		return record, err
	}
	id, err := member(o.IDColumn, o.Header)
	record.Headers = append(record.Headers, sink.Header{Key: "id", Value: id})
	for _, p := range o.Placements {
		if p.Place != PlaceHeader || err != nil {
			continue
		}
		var text []byte
		text, err = member(p.Column, o.Header)
		record.Headers = append(record.Headers, sink.Header{Key: p.Alias, Value: text})
	}
	return record, err
}

func (n *node) member(name string) *node {
	if at := indexOfName(n.names, name); at >= 0 {
		return n.members[at]
	}
	return nil
}

func (f *Format) member(root *node, name string, c Converter, b *Buffer) ([]byte, error) {
	of := root.member(name)
	if of == nil {
		return nil, fmt.Errorf("logical message has no member %q", name)
	}
	s, err := (expander{keepNulls: true}).infer(name, of)
	if err != nil || s == nil {
		return nil, fmt.Errorf("logical message's member %s has no type", name)
	}
	e := encoding{converter: c, schema: s}
	e.prepare()
	v := fill(s, of)
	return e.encode(&v, b), nil
}
