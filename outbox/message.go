package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/outboxcdc/outboxcdc/wal"
)

// MessagePrefix is the prefix of the logical messages that the function
// outboxcdc.publish_message writes.
const MessagePrefix = "outboxcdc"

// members reads the content of logical messages: a JSON object whose members are what
// columns are in a row. A string stands for its text, a number, true and false for
// themselves, null and what is absent for null. payload and headers are taken as the
// JSON that they are.
type members struct {
	at      map[string]int // the place of each name among the columns
	raw     map[int]bool   // places whose JSON is taken as it is
	columns [][]byte       // of the message at hand
}

func newMembers(p *tablePlan) *members {
	m := &members{at: map[string]int{}, raw: map[int]bool{}, columns: make([][]byte, len(p.table.Columns))}
	for i, c := range p.table.Columns {
		m.at[c.Name] = i
	}
	m.raw[p.roles[atPayload]], m.raw[p.roles[atHeaders]] = true, true
	return m
}

var (
	errNoObject = errors.New("the message is not a JSON object")
	errNoUTF8   = errors.New("the message is not UTF-8, to which outboxcdc.publish_message converts it")
)

// read gives the columns of a message. They live as long as the content does.
func (m *members) read(row *wal.Row) ([][]byte, error) {
	if len(row.Columns) != 1 || row.Columns[0] == nil {
		return nil, errNoObject
	}
	content := row.Columns[0]
	if !utf8.Valid(content) {
		return nil, errNoUTF8
	}
	clear(m.columns)
	if rest := bytes.TrimLeft(content, jsonSpace); len(rest) == 0 || rest[0] != '{' || !json.Valid(content) {
		return nil, errNoObject
	}
	o := object{bytes.TrimLeft(content, jsonSpace)[1:]}
	for {
		rawName, value, ok := o.next()
		if !ok {
			return m.columns, nil
		}
		name, err := stringValue(rawName)
		if err != nil {
			continue // no member of ours
		}
		at, wanted := m.at[string(name)]
		if !wanted {
			continue
		}
		if m.columns[at], err = m.text(at, value); err != nil {
			return nil, fmt.Errorf("member %s %w", name, err)
		}
	}
}

func (m *members) text(at int, value []byte) ([]byte, error) {
	switch {
	case value[0] == 'n':
		return nil, nil
	case m.raw[at]:
		return value, nil
	case value[0] == '{' || value[0] == '[':
		return nil, errors.New("is no single value")
	default:
		return headerValue(value)
	}
}
