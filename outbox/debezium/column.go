package debezium

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Column is a column of the outbox table as the catalog describes it.
type Column struct {
	Name    string
	Type    string   // pg_type.typname of the type, of a domain's base type
	Mod     int32    // pg_attribute.atttypmod, of a domain its pg_type.typtypmod; -1 is none
	Labels  []string // of an enum, in its order; nil for any other type
	Domain  bool     // Type is that below a domain
	NotNull bool
	Default string // pg_get_expr of the DEFAULT, "" is none
}

// codec reads a column's text, as Postgres sends it, into what Debezium makes of it.
type codec struct {
	schema *schema
	read   func(text []byte, into *value) error
}

// errUnsupported is a column type that this package does not know to give as
// Debezium does.
var errUnsupported = errors.New("its type is not supported")

// errText is a value that is not what its column's type says.
var errText = errors.New("the server sent a text that is not of the column's type")

// codecFor gives the codec of a column that is used, with its optionality and its
// DEFAULT.
func codecFor(c Column, o *Options) (codec, error) {
	made, err := typeCodec(c, o)
	if err != nil {
		return codec{}, fmt.Errorf("column %s has type %s: %w", c.Name, c.Type, err)
	}
	s := *made.schema
	s.optional = !c.NotNull
	made.schema = &s
	text, ok := defaultText(&c)
	if !ok {
		return made, nil
	}
	fallback := value{}
	if err := made.read([]byte(text), &fallback); err == nil {
		s.fallback = &fallback
	}
	return made, nil
}

func typeCodec(c Column, o *Options) (codec, error) {
	if c.Labels != nil {
		s := named(kindString, nameEnum)
		s.params = []param{{"allowed", strings.Join(c.Labels, ",")}}
		return codec{s, readText}, nil
	}
	if element, isArray := strings.CutPrefix(c.Type, "_"); isArray {
		return arrayCodec(element, c.Mod, o)
	}
	if made, ok := plainCodec(c.Type); ok {
		return made, nil
	}
	switch c.Type {
	case "numeric":
		return numericCodec(c.Mod, o.Decimal)
	case "money":
		return moneyCodec(o.Decimal)
	case "bytea":
		return byteaCodec(o.Binary)
	case "bit":
		if c.Mod == 1 {
			return codec{&schema{kind: kindBoolean}, readBit}, nil
		}
	default:
	}
	return timeCodec(c.Type, c.Mod, o.Time)
}

// plainCodec gives the codec of a type that no option changes.
func plainCodec(name string) (codec, bool) {
	switch name {
	case "bool":
		return codec{&schema{kind: kindBoolean}, readBool}, true
	case "int2":
		return codec{&schema{kind: kindInt16}, readInteger}, true
	case "int4":
		return codec{&schema{kind: kindInt32}, readInteger}, true
	case "int8", "oid":
		return codec{&schema{kind: kindInt64}, readInteger}, true
	case "float4":
		return codec{&schema{kind: kindFloat}, readFloat(32)}, true
	case "float8":
		return codec{&schema{kind: kindDouble}, readFloat(64)}, true
	case "uuid":
		return codec{named(kindString, nameUUID), readText}, true
	case "json", "jsonb":
		return codec{named(kindString, nameJSON), readText}, true
	case "xml":
		return codec{named(kindString, nameXML), readText}, true
	case "text", "varchar", "bpchar", "citext", "inet", "cidr", "macaddr", "macaddr8",
		"int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange":
		return codec{&schema{kind: kindString}, readText}, true
	default:
		return codec{}, false
	}
}

func readText(text []byte, into *value) error {
	into.set, into.text = true, text
	return nil
}

func readBool(text []byte, into *value) error {
	switch string(text) {
	case "t", "true":
		into.integer = 1
	case "f", "false":
		into.integer = 0
	default:
		return errText
	}
	into.set = true
	return nil
}

func readBit(text []byte, into *value) error {
	switch string(text) {
	case "1":
		into.integer = 1
	case "0":
		into.integer = 0
	default:
		return errText
	}
	into.set = true
	return nil
}

func readInteger(text []byte, into *value) error {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return errText
	}
	into.set, into.integer = true, n
	return nil
}

func readFloat(bits int) func([]byte, *value) error {
	return func(text []byte, into *value) error {
		f, err := strconv.ParseFloat(string(text), bits)
		if err != nil {
			return errText
		}
		into.set, into.float = true, f
		return nil
	}
}

// errNoNumber is a numeric that has no digits, such as NaN.
var errNoNumber = errors.New("a numeric that is NaN or infinite has no form with --debezium-decimal-handling-mode=precise")

// numericCodec gives the three forms of decimal.handling.mode. A precise number of a
// column with a precision has the column's scale; one of a column without has its
// own, without zeros at its end.
func numericCodec(mod int32, mode DecimalMode) (codec, error) {
	switch {
	case mode == DecimalDouble:
		return codec{&schema{kind: kindDouble}, readFloat(64)}, nil
	case mode == DecimalString:
		return codec{&schema{kind: kindString}, readText}, nil
	case mod < 0:
		return variableCodec(), nil
	}
	// numeric.c, make_numeric_typmod: the precision above 16 bits, below it the scale,
	// signed, in 11.
	packed := mod - 4
	precision, scale := packed>>16&0xFFFF, packed&0x7FF
	if scale >= 1<<10 {
		scale -= 1 << 11
	}
	s := named(kindBytes, nameDecimal)
	s.params = []param{
		{"scale", strconv.Itoa(int(scale))},
		{"connect.decimal.precision", strconv.Itoa(int(precision))},
	}
	return codec{s, readDecimal(int(scale))}, nil
}

// readDecimal reads a number into a scale, with zeros at its end where the text has
// fewer digits.
func readDecimal(scale int) func([]byte, *value) error {
	return func(text []byte, into *value) error {
		unscaled, own, err := parseDecimal(string(text))
		if err != nil {
			return err
		}
		for ; own < scale; own++ {
			unscaled.Mul(unscaled, ten)
		}
		if own > scale {
			if scale >= 0 {
				return errText
			}
			unscaled.Quo(unscaled, new(big.Int).Exp(ten, big.NewInt(int64(own-scale)), nil))
		}
		into.set, into.decimal, into.scale = true, unscaled, scale
		return nil
	}
}

var ten = big.NewInt(10) //nolint:gochecknoglobals // a constant

func parseDecimal(text string) (unscaled *big.Int, scale int, err error) {
	whole, fraction, _ := strings.Cut(text, ".")
	unscaled, ok := new(big.Int).SetString(whole+fraction, 10)
	switch text {
	case "NaN", "Infinity", "-Infinity":
		return nil, 0, errNoNumber
	}
	if !ok {
		return nil, 0, errText
	}
	return unscaled, len(fraction), nil
}

// variableCodec is Debezium's form of a number whose column has no scale: a struct
// of the number's own scale and digits (VariableScaleDecimal.java).
func variableCodec() codec {
	s := named(kindStruct, nameVariable)
	s.doc = "Variable scaled decimal"
	s.fields = []field{
		{"scale", &schema{kind: kindInt32}},
		{"value", &schema{kind: kindBytes}},
	}
	return codec{s, func(text []byte, into *value) error {
		unscaled, scale, err := parseDecimal(string(text))
		if err != nil {
			return err
		}
		quotient, rest := new(big.Int), new(big.Int)
		for scale > 0 {
			quotient.QuoRem(unscaled, ten, rest)
			if rest.Sign() != 0 {
				break
			}
			unscaled.Set(quotient)
			scale--
		}
		into.set = true
		into.members = []value{{set: true, integer: int64(scale)}, {set: true, text: twosComplement(unscaled)}}
		return nil
	}}
}

// moneyCodec reads an amount of money, which the server prints in its own locale:
// the last two digits are the fraction (money.fraction.digits=2).
func moneyCodec(mode DecimalMode) (codec, error) {
	if mode != DecimalPrecise {
		return codec{}, errUnsupported
	}
	s := named(kindBytes, nameDecimal)
	s.params = []param{{"scale", "2"}}
	return codec{s, func(text []byte, into *value) error {
		digits := make([]byte, 0, len(text))
		for _, c := range text {
			if '0' <= c && c <= '9' || c == '-' {
				digits = append(digits, c)
			}
		}
		unscaled, ok := new(big.Int).SetString(string(digits), 10)
		if !ok {
			return errText
		}
		into.set, into.decimal, into.scale = true, unscaled, 2
		return nil
	}}, nil
}

// byteaCodec gives the forms of binary.handling.mode.
func byteaCodec(mode BinaryMode) (codec, error) {
	read := func(encode func(raw []byte) []byte) func([]byte, *value) error {
		return func(text []byte, into *value) error {
			digits, ok := strings.CutPrefix(string(text), `\x`)
			if !ok {
				return errText
			}
			raw, err := hex.DecodeString(digits)
			if err != nil {
				return errText
			}
			into.set, into.text = true, encode(raw)
			return nil
		}
	}
	base64In := func(e *base64.Encoding) func([]byte) []byte {
		return func(raw []byte) []byte { return e.AppendEncode([]byte{}, raw) }
	}
	switch mode {
	case BinaryBase64:
		return codec{&schema{kind: kindString}, read(base64In(base64.StdEncoding))}, nil
	case BinaryBase64URL:
		return codec{&schema{kind: kindString}, read(base64In(base64.URLEncoding))}, nil
	case BinaryHex:
		return codec{&schema{kind: kindString}, read(func(raw []byte) []byte { return hex.AppendEncode([]byte{}, raw) })}, nil
	default:
		return codec{&schema{kind: kindBytes}, read(func(raw []byte) []byte { return raw })}, nil
	}
}

// arrayCodec gives an array of a plain type, in one dimension.
func arrayCodec(element string, mod int32, o *Options) (codec, error) {
	of, ok := plainCodec(element)
	switch {
	case element == "numeric" && o.Decimal == DecimalPrecise:
		made, err := numericCodec(mod, o.Decimal)
		if err != nil {
			return codec{}, err
		}
		of = made
	case !ok:
		return codec{}, errUnsupported
	}
	items := *of.schema
	items.optional = true
	return codec{&schema{kind: kindArray, items: &items}, func(text []byte, into *value) error {
		members, err := parseArray(text)
		if err != nil {
			return err
		}
		into.set, into.members = true, make([]value, len(members))
		for i, m := range members {
			if m == nil {
				continue
			}
			if err := of.read(m, &into.members[i]); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// parseArray reads the text of an array of one dimension: {a,"b c",NULL}. A NULL
// without quotes is a nil element. (array_out in arrayfuncs.c.)
func parseArray(text []byte) ([][]byte, error) {
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		return nil, errText
	}
	rest, members := text[1:len(text)-1], [][]byte{}
	if len(rest) == 0 {
		return members, nil
	}
	for {
		member, after, err := parseElement(rest)
		if err != nil {
			return nil, err
		}
		members = append(members, member)
		if len(after) == 0 {
			return members, nil
		}
		if after[0] != ',' {
			return nil, errText
		}
		rest = after[1:]
	}
}

func parseElement(rest []byte) (member, after []byte, err error) {
	quoted := len(rest) > 0 && rest[0] == '"'
	member = []byte{}
	i := 0
	if quoted {
		i = 1
	}
	for ; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '\\' && i+1 < len(rest):
			i++
			member = append(member, rest[i])
		case quoted && c == '"':
			return member, rest[i+1:], nil
		case !quoted && c == ',':
			return unquoted(member), rest[i:], nil
		case !quoted && (c == '{' || c == '}' || c == '"'):
			return nil, nil, errText
		default:
			member = append(member, c)
		}
	}
	if quoted {
		return nil, nil, errText
	}
	return unquoted(member), nil, nil
}

func unquoted(member []byte) []byte {
	if string(member) == "NULL" {
		return nil
	}
	return member
}
