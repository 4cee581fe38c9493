package debezium

import (
	"fmt"
	"strconv"
)

// envelope is the struct that a value becomes when a column has the envelope for its
// place: the payload first, then those columns.
type envelope struct {
	members []placed
	prefix  string            // of the schema's name: topic prefix, schema and table
	names   map[string]string // see name
}

// maxNames bounds what an envelope remembers.
const maxNames = 10_000

func (e *envelope) schema(payload *schema, name string, version *int64) *schema {
	s := &schema{kind: kindStruct, name: name, fields: []field{{"payload", payload}}}
	for i := range e.members {
		s.fields = append(s.fields, field{e.members[i].alias, e.members[i].codec.schema})
	}
	if version != nil {
		s.versions, s.version = true, int(*version)
	}
	return s
}

// name gives the name of the schema of an envelope. It ends in the route value of the
// first row of that payload schema, or of that version where versions are given,
// since this process began: the router keeps the schema that it first made, also for
// other topics, and consumers know it by that name.
func (e *envelope) name(payload *schema, version *int64, route []byte) string {
	key := string(appendSchema(nil, payload, "", false))
	if version != nil {
		key = strconv.FormatInt(*version, 10)
	}
	if name, known := e.names[key]; known {
		return name
	}
	if len(e.names) >= maxNames {
		clear(e.names)
	}
	name := e.prefix + string(route) + ".Value"
	e.names[key] = name
	return name
}

// wrap gives the envelope around a payload.
func (p *Plan) wrap(payload *schema, v value, values [][]byte, route []byte, b *Buffer) ([]byte, error) {
	wrapped := value{set: true, members: []value{v}}
	for i := range p.envelope.members {
		m := &p.envelope.members[i]
		member, err := m.load(values)
		if err == nil && m.codec.schema.kind == kindString {
			text := encoding{converter: p.format.options.Value, schema: m.codec.schema}
			err = text.valid(&member)
		}
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", m.name, err)
		}
		wrapped.members = append(wrapped.members, member)
	}
	name := ""
	var version *int64
	if p.version != nil {
		n, err := p.version.load(values)
		if err != nil {
			return nil, err
		}
		if n.set {
			version = &n.integer
		}
	}
	if p.format.options.Value == ConverterJSONSchema {
		name = p.envelope.name(payload, version, route)
	}
	e := encoding{converter: p.format.options.Value, schema: p.envelope.schema(payload, name, version)}
	e.prepare()
	return e.encode(&wrapped, b), nil
}
