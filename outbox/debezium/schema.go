package debezium

import (
	"math/big"
	"strconv"
)

// kind is one of Connect's types, as its JSON schemas name them
// (org.apache.kafka.connect.json.JsonSchema).
type kind string

const (
	kindBoolean kind = "boolean"
	kindInt16   kind = "int16"
	kindInt32   kind = "int32"
	kindInt64   kind = "int64"
	kindFloat   kind = "float"
	kindDouble  kind = "double"
	kindString  kind = "string"
	kindBytes   kind = "bytes"
	kindArray   kind = "array"
	kindStruct  kind = "struct"
)

// Names of logical types. Connect's own are Java objects to its converters, which
// print them in their own way; Debezium's are plain values with a name.
const (
	nameDecimal     = "org.apache.kafka.connect.data.Decimal"
	nameConnectDate = "org.apache.kafka.connect.data.Date"
	nameConnectTime = "org.apache.kafka.connect.data.Time"
	nameConnectTS   = "org.apache.kafka.connect.data.Timestamp"
	nameVariable    = "io.debezium.data.VariableScaleDecimal"
	nameJSON        = "io.debezium.data.Json"
	nameUUID        = "io.debezium.data.Uuid"
	nameXML         = "io.debezium.data.Xml"
	nameEnum        = "io.debezium.data.Enum"
)

// schema is what Connect knows of a value's type. It is immutable once it is in a
// plan.
type schema struct {
	kind     kind
	name     string
	version  int // meaningful with hasVersion
	versions bool
	doc      string
	params   []param
	optional bool
	fallback *value // the column's DEFAULT, which takes the place of null
	items    *schema
	fields   []field
}

type param struct{ name, value string }

type field struct {
	name   string
	schema *schema
}

func named(k kind, name string) *schema {
	return &schema{kind: k, name: name, version: 1, versions: true}
}

// isDate says whether Connect's converters see a java.util.Date.
func (s *schema) isDate() bool {
	return s.name == nameConnectDate || s.name == nameConnectTime || s.name == nameConnectTS
}

// appendSchema writes the schema as JsonConverter does: the members in its order,
// and the field's name last (JsonConverter.java, asJsonSchema).
func appendSchema(dst []byte, s *schema, fieldName string, inField bool) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, s.kind...)
	dst = append(dst, '"')
	switch s.kind {
	case kindArray:
		dst = append(dst, `,"items":`...)
		dst = appendSchema(dst, s.items, "", false)
	case kindStruct:
		dst = append(dst, `,"fields":[`...)
		for i, f := range s.fields {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendSchema(dst, f.schema, f.name, true)
		}
		dst = append(dst, ']')
	default:
	}
	dst = append(dst, `,"optional":`...)
	dst = strconv.AppendBool(dst, s.optional)
	dst = appendSchemaDetails(dst, s)
	if inField {
		dst = append(dst, `,"field":`...)
		dst = appendQuoted(dst, fieldName)
	}
	return append(dst, '}')
}

func appendSchemaDetails(dst []byte, s *schema) []byte {
	if s.name != "" {
		dst = append(dst, `,"name":`...)
		dst = appendQuoted(dst, s.name)
	}
	if s.versions {
		dst = append(dst, `,"version":`...)
		dst = strconv.AppendInt(dst, int64(s.version), 10)
	}
	if s.doc != "" {
		dst = append(dst, `,"doc":`...)
		dst = appendQuoted(dst, s.doc)
	}
	for i, p := range s.params {
		if i == 0 {
			dst = append(dst, `,"parameters":{`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, p.name)
		dst = append(dst, ':')
		dst = appendQuoted(dst, p.value)
	}
	if len(s.params) > 0 {
		dst = append(dst, '}')
	}
	if s.fallback != nil {
		dst = append(dst, `,"default":`...)
		dst = appendJSON(dst, s, s.fallback)
	}
	return dst
}

// value is what Connect holds for a column: null, or what its schema's kind says.
type value struct {
	set     bool // not null
	text    []byte
	integer int64 // integers, and 0 or 1 for a boolean
	float   float64
	decimal *big.Int // the unscaled value of a nameDecimal
	scale   int
	members []value // of an array or a struct, in the order of the schema
}

// or gives the DEFAULT in the place of null, as Connect's Struct.get does.
func (v *value) or(s *schema) *value {
	if !v.set && s.fallback != nil {
		return s.fallback
	}
	return v
}
