package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// parseTables reads what --table is given: names as SQL writes them, several
// separated by commas, which is how the environment gives more than one.
func parseTables(texts []string) ([]wal.Table, error) {
	var tables []wal.Table
	var errs []error
	for _, text := range texts {
		found, err := parseTableList(text)
		if err != nil {
			errs = append(errs, fault.NewUsage(fmt.Errorf("--table %s: %w", text, err),
				`write schema.table, with quotes around a name that needs them in SQL, such as sales."Outbox"`))
		}
		tables = append(tables, found...)
	}
	return tables, errors.Join(errs...)
}

func parseTableList(text string) ([]wal.Table, error) {
	var tables []wal.Table
	for rest := text; ; {
		var t wal.Table
		var err error
		if t.Schema, rest, err = cutName(rest); err != nil {
			return nil, err
		}
		var dotted bool
		if rest, dotted = strings.CutPrefix(rest, "."); !dotted {
			return nil, fmt.Errorf("%q stands without a schema", t.Schema)
		}
		if t.Name, rest, err = cutName(rest); err != nil {
			return nil, err
		}
		tables = append(tables, t)
		if rest == "" {
			return tables, nil
		}
		var more bool
		if rest, more = strings.CutPrefix(rest, ","); !more {
			return nil, fmt.Errorf("%q follows a table's name", rest)
		}
	}
}

// cutName takes one identifier off text, with the white space around it. As in
// SQL, one without quotes is folded to lower case, in ASCII only (scansup.c,
// downcase_identifier).
func cutName(text string) (name, rest string, err error) {
	text = strings.TrimLeft(text, spaces)
	if strings.HasPrefix(text, `"`) {
		name, rest, err = cutQuoted(text[1:])
	} else {
		end := 0
		for end < len(text) && nameByte(text[end], end) {
			end++
		}
		name, rest = strings.Map(lowerASCII, text[:end]), text[end:]
	}
	if err == nil && name == "" {
		err = fmt.Errorf("a name is missing before %q", text)
	}
	return name, strings.TrimLeft(rest, spaces), err
}

const spaces = " \t\r\n"

// cutQuoted reads to the closing quote; a doubled one stands for itself.
func cutQuoted(text string) (name, rest string, err error) {
	var b strings.Builder
	for {
		part, after, closed := strings.Cut(text, `"`)
		if !closed {
			return "", "", errors.New("a quote is not closed")
		}
		b.WriteString(part)
		if !strings.HasPrefix(after, `"`) {
			return b.String(), after, nil
		}
		b.WriteByte('"')
		text = after[1:]
	}
}

// nameByte is what SQL takes for part of a name without quotes (scan.l,
// identifier).
func nameByte(c byte, at int) bool {
	first := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
	return first || at > 0 && ('0' <= c && c <= '9' || c == '$')
}

func lowerASCII(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}
