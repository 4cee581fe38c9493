package debezium

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Converter is one of Connect's converters: how a key, a value or a header becomes
// bytes.
type Converter int

// The converters, by the words that options take for them.
const (
	ConverterSimple     Converter = iota // simple: SimpleHeaderConverter, for headers only
	ConverterString                      // string: StringConverter
	ConverterJSON                        // json: JsonConverter with schemas.enable=false
	ConverterJSONSchema                  // json-schema: JsonConverter with its default, schemas.enable=true
	ConverterBinary                      // binary: BinaryDataConverter or ByteArrayConverter
)

// DecimalMode is decimal.handling.mode.
type DecimalMode int

// The decimal modes.
const (
	DecimalPrecise DecimalMode = iota
	DecimalDouble
	DecimalString
)

// TimeMode is time.precision.mode.
type TimeMode int

// The time modes.
const (
	TimeAdaptive TimeMode = iota
	TimeAdaptiveMicroseconds
	TimeConnect
	TimeISO
	TimeMicroseconds
	TimeNanoseconds
)

// BinaryMode is binary.handling.mode.
type BinaryMode int

// The binary modes.
const (
	BinaryBytes BinaryMode = iota
	BinaryBase64
	BinaryBase64URL
	BinaryHex
)

// Place is where an additional column goes.
type Place int

// The places.
const (
	PlaceHeader Place = iota
	PlaceEnvelope
	PlacePartition
)

// Placement is an entry of table.fields.additional.placement.
type Placement struct {
	Column string
	Place  Place
	Alias  string // the column's name unless another is given
}

// Options are the options of the connector, its router and its converters that shape
// a record, under the names of ParseOptions.
type Options struct {
	Prefix           string // topic.prefix: a context header, and part of an envelope's schema name
	Key              Converter
	Value            Converter
	Header           Converter
	ContextHeaders   bool // extended.headers.enabled
	IDColumn         string
	KeyColumn        string
	PayloadColumn    string
	RouteColumn      string
	TimestampColumn  string // "" is none
	VersionColumn    string // "" is none
	Placements       []Placement
	IgnoreMissing    bool // table.field.additional.missing=ignore
	Expand           bool // table.expand.json.payload
	KeepNulls        bool // table.json.payload.null.behavior=optional_bytes
	Tombstones       bool // route.tombstone.on.empty.payload
	RouteRegex       string
	RouteReplacement string
	Decimal          DecimalMode
	Time             TimeMode
	Binary           BinaryMode
}

// DefaultOptions are Debezium's own, and Connect's where Debezium has none, for a
// connector of that topic prefix.
func DefaultOptions(prefix string) Options {
	return Options{
		Prefix: prefix,
		Key:    ConverterJSONSchema, Value: ConverterJSONSchema, Header: ConverterSimple,
		ContextHeaders: true,
		IDColumn:       "id", KeyColumn: "aggregateid", PayloadColumn: "payload", RouteColumn: "aggregatetype",
		RouteRegex: "(?<routedByValue>.*)", RouteReplacement: "outbox.event.${routedByValue}",
	}
}

// Option is an option of a connector's configuration, by its name without the
// prefix transforms.NAME of the router.
type Option struct{ Name, Value string }

// setter puts an option's value into its place.
type setter func(o *Options, value string) error

// setters are the options that shape a record, by name.
//
//nolint:gochecknoglobals // a constant
var setters = map[string]setter{
	"topic.prefix":                     text(func(o *Options) *string { return &o.Prefix }),
	"extended.headers.enabled":         boolean(func(o *Options) *bool { return &o.ContextHeaders }),
	"table.field.event.id":             column(func(o *Options) *string { return &o.IDColumn }),
	"table.field.event.key":            column(func(o *Options) *string { return &o.KeyColumn }),
	"table.field.event.payload":        column(func(o *Options) *string { return &o.PayloadColumn }),
	"route.by.field":                   column(func(o *Options) *string { return &o.RouteColumn }),
	"table.field.event.timestamp":      text(func(o *Options) *string { return &o.TimestampColumn }),
	"table.field.event.schema.version": text(func(o *Options) *string { return &o.VersionColumn }),
	"table.fields.additional.placement": func(o *Options, value string) (err error) {
		o.Placements, err = parsePlacements(value)
		return err
	},
	"table.field.additional.missing": choice(func(o *Options) *bool { return &o.IgnoreMissing },
		map[string]bool{"error": false, "ignore": true}),
	"table.expand.json.payload": boolean(func(o *Options) *bool { return &o.Expand }),
	"table.json.payload.null.behavior": choice(func(o *Options) *bool { return &o.KeepNulls },
		map[string]bool{"ignore": false, "optional_bytes": true}),
	"route.tombstone.on.empty.payload": boolean(func(o *Options) *bool { return &o.Tombstones }),
	"route.topic.regex":                column(func(o *Options) *string { return &o.RouteRegex }),
	"route.topic.replacement":          column(func(o *Options) *string { return &o.RouteReplacement }),
	"decimal.handling.mode": choice(func(o *Options) *DecimalMode { return &o.Decimal },
		map[string]DecimalMode{"precise": DecimalPrecise, "double": DecimalDouble, "string": DecimalString}),
	"time.precision.mode": choice(func(o *Options) *TimeMode { return &o.Time },
		map[string]TimeMode{
			"adaptive": TimeAdaptive, "adaptive_time_microseconds": TimeAdaptiveMicroseconds, "connect": TimeConnect,
			"isostring": TimeISO, "microseconds": TimeMicroseconds, "nanoseconds": TimeNanoseconds,
		}),
	"binary.handling.mode": choice(func(o *Options) *BinaryMode { return &o.Binary },
		map[string]BinaryMode{
			"bytes": BinaryBytes, "base64": BinaryBase64, "base64-url-safe": BinaryBase64URL, "hex": BinaryHex,
		}),
	"key.converter":    converter(func(o *Options) *Converter { return &o.Key }),
	"value.converter":  converter(func(o *Options) *Converter { return &o.Value }),
	"header.converter": converter(func(o *Options) *Converter { return &o.Header }),
	"key.converter.schemas.enable": func(o *Options, value string) error {
		return schemas(&o.Key, value)
	},
	"value.converter.schemas.enable": func(o *Options, value string) error {
		return schemas(&o.Value, value)
	},
	"header.converter.schemas.enable": func(o *Options, value string) error {
		return schemas(&o.Header, value)
	},
}

// Shapes says whether an option shapes a record, so that ParseOptions takes it.
func Shapes(name string) bool {
	_, known := setters[name]
	return known
}

// ParseOptions reads options on top of the defaults. Each error is a usage error;
// they come joined, all at once.
func ParseOptions(options []Option) (Options, error) {
	o := DefaultOptions("")
	var errs []error
	// A converter's class comes before its schemas.enable, which changes it.
	ordered := slices.Clone(options)
	slices.SortStableFunc(ordered, func(a, b Option) int {
		return strings.Compare(a.Name, b.Name)
	})
	for _, option := range ordered {
		set, known := setters[option.Name]
		if !known {
			errs = append(errs, fault.NewUsage(
				fmt.Errorf("%q is not an option of Debezium that shapes a record", option.Name),
				"docs/debezium.md lists those that are taken; outboxcdc migrate debezium says what becomes of the others"))
			continue
		}
		if err := set(&o, strings.TrimSpace(option.Value)); err != nil {
			errs = append(errs, fault.NewUsage(fmt.Errorf("%s: %w", option.Name, err), "docs/debezium.md lists what it takes"))
		}
	}
	if _, err := newRoute(o.RouteRegex, o.RouteReplacement); err != nil {
		errs = append(errs, fault.NewUsage(err, "it is Java's syntax as far as Go's RE2 or its lookarounds know it"))
	}
	return o, joined(errs)
}

func text(field func(*Options) *string) setter {
	return func(o *Options, value string) error {
		*field(o) = value
		return nil
	}
}

func column(field func(*Options) *string) setter {
	return func(o *Options, value string) error {
		if value == "" {
			return fmt.Errorf("it is empty")
		}
		*field(o) = value
		return nil
	}
}

func boolean(field func(*Options) *bool) setter {
	return choice(field, map[string]bool{"true": true, "false": false})
}

func choice[T any](field func(*Options) *T, choices map[string]T) setter {
	return func(o *Options, value string) error {
		chosen, known := choices[strings.ToLower(value)]
		if !known {
			names := make([]string, 0, len(choices))
			for name := range choices {
				names = append(names, name)
			}
			slices.Sort(names)
			return fmt.Errorf("%q is none of %s", value, strings.Join(names, ", "))
		}
		*field(o) = chosen
		return nil
	}
}

// converters are the classes that are known, and the short words for them.
//
//nolint:gochecknoglobals // a constant
var converters = map[string]Converter{
	"simple":      ConverterSimple,
	"string":      ConverterString,
	"json":        ConverterJSON,
	"json-schema": ConverterJSONSchema,
	"binary":      ConverterBinary,
	"org.apache.kafka.connect.storage.SimpleHeaderConverter": ConverterSimple,
	"org.apache.kafka.connect.storage.StringConverter":       ConverterString,
	"org.apache.kafka.connect.json.JsonConverter":            ConverterJSONSchema,
	"io.debezium.converters.BinaryDataConverter":             ConverterBinary,
	"io.debezium.converters.ByteBufferConverter":             ConverterBinary,
	"org.apache.kafka.connect.converters.ByteArrayConverter": ConverterBinary,
}

func converter(field func(*Options) *Converter) setter {
	return func(o *Options, value string) error {
		chosen, known := converters[value]
		if !known {
			return fmt.Errorf("%q is a converter that outboxcdc does not have; it has string, json, json-schema and binary", value)
		}
		*field(o) = chosen
		return nil
	}
}

// schemas is NAME.converter.schemas.enable, which means something to JsonConverter
// alone.
func schemas(c *Converter, value string) error {
	enabled, known := map[string]bool{"true": true, "false": false}[strings.ToLower(value)]
	switch {
	case !known:
		return fmt.Errorf("%q is neither true nor false", value)
	case *c == ConverterJSON || *c == ConverterJSONSchema:
		*c = ConverterJSON
		if enabled {
			*c = ConverterJSONSchema
		}
	}
	return nil
}

// parsePlacements reads column:place[:alias],… with blanks around any word.
func parsePlacements(list string) ([]Placement, error) {
	var placements []Placement
	for entry := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		parts := strings.Split(entry, ":")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
			return nil, fmt.Errorf("%q is not column:place or column:place:alias", entry)
		}
		p := Placement{Column: parts[0], Alias: parts[len(parts)-1]}
		if len(parts) == 2 {
			p.Alias = p.Column
		}
		places := map[string]Place{"header": PlaceHeader, "envelope": PlaceEnvelope, "partition": PlacePartition}
		place, known := places[strings.ToLower(parts[1])]
		if !known {
			return nil, fmt.Errorf("%q is neither header, envelope nor partition", parts[1])
		}
		p.Place = place
		placements = append(placements, p)
	}
	return placements, nil
}
