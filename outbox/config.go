package outbox

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Role is what a column is for.
type Role string

// The roles that every Format knows. Without a Mapping, a role's column has its name.
const (
	RoleID            Role = "id"             // identity of the event
	RoleAggregateType Role = "aggregate_type" // kind of the aggregate
	RoleAggregateID   Role = "aggregate_id"   // the aggregate: the key, and so the order
	RoleEventType     Role = "event_type"     // what happened
	RolePayload       Role = "payload"        // the value
	RoleHeaders       Role = "headers"        // a JSON object; its entries are headers
)

// Where a role's column is kept in a tablePlan; the order of Roles.
const (
	atID = iota
	atAggregateType
	atAggregateID
	atEventType
	atPayload
	atHeaders
	roleCount
)

// Roles are all roles, in the order in which Columns gives their columns.
func Roles() []Role {
	return []Role{
		atID: RoleID, atAggregateType: RoleAggregateType, atAggregateID: RoleAggregateID,
		atEventType: RoleEventType, atPayload: RolePayload, atHeaders: RoleHeaders,
	}
}

// DefaultTopic is the template of a Mapping that has none.
const DefaultTopic = "outbox.event.{aggregate_type}"

// Config says how the rows of all tables become messages. The zero value maps tables
// like the one that `outboxcdc init` makes.
type Config struct {
	Format  Format                // nil is Native
	Default Mapping               // of the tables that have none of their own
	Tables  map[TableName]Mapping // takes the place of Default, as a whole

	// Messages maps logical messages, whose members are its columns; nil when there
	// are none. Every member but that of the aggregate's id may be absent.
	Messages *Mapping

	// Reserved are topics that no row may reach, beside those of the broker.
	Reserved []string

	// WithoutPosition leaves out the position header, for consumers that must not
	// see it. They cannot tell an event from its redelivery by it then.
	WithoutPosition bool
}

// TableName names an outbox table as wal.Table does.
type TableName struct{ Schema, Name string }

// Mapping says what the columns of a table mean. Names are those of columns.
type Mapping struct {
	// Columns are the columns of roles that have another name than their role; an
	// empty name says that the table has no such column.
	Columns map[Role]string

	// Topic is the template of the topic's name: text with columns or roles in
	// braces; empty is DefaultTopic.
	Topic string

	// Routes change the name that Topic gives: the first whose pattern matches all
	// of it, by its replacement. A name that none matches is refused.
	Routes []Route

	// Allow lists the topics that may be sent to, as regular expressions that match
	// a whole name; empty allows all.
	Allow []string

	Partition string         // integer column that chooses the partition; where it is null the key does
	Timestamp string         // column with the message's time; without one, and where it is null, the time of the commit
	Headers   []HeaderColumn // columns that are headers

	Tombstones Tombstones
}

// Route is a pattern of Go's regexp package with its replacement, in which $1 or
// ${name} stand for groups.
type Route struct{ Pattern, Replacement string }

// HeaderColumn sends a column as a header; an empty Header is the column's name.
type HeaderColumn struct{ Column, Header string }

// Tombstones says which payloads become a null value, which in a compacted topic
// deletes what is kept of the key.
type Tombstones int

// The kinds of Tombstones.
const (
	NullTombstones  Tombstones = iota // a null payload
	EmptyTombstones                   // a null payload, and a text of nothing or white space
	NoTombstones                      // none: a row whose payload is null cannot be mapped
)

// ParseTombstones reads null, empty or off. The error is a usage error.
func ParseTombstones(text string) (Tombstones, error) {
	switch text {
	case "", "null":
		return NullTombstones, nil
	case "empty":
		return EmptyTombstones, nil
	case "off":
		return NoTombstones, nil
	default:
		return 0, fault.NewUsage(errors.New("that is no kind of tombstones"), "use null, empty or off")
	}
}

// column is the name of a role's column; explicit says that somebody chose it.
func (m *Mapping) column(role Role) (name string, explicit bool) {
	name, explicit = m.Columns[role]
	if !explicit {
		name = string(role)
	}
	return name, explicit
}

// maxHeaderName bounds the name of a header that is made of a column.
const maxHeaderName = 249

// validate gives every problem that shows without the table, as usage errors.
func (m *Mapping) validate(format Format) error {
	var errs []error
	for role := range m.Columns {
		if !slices.Contains(Roles(), role) {
			errs = append(errs, fault.NewUsage(fmt.Errorf("%q is not a role of a column", role), "use "+roleNames()))
		}
	}
	for _, role := range []Role{RoleAggregateID, RolePayload} {
		if name, _ := m.column(role); name == "" {
			errs = append(errs, fault.NewUsage(fmt.Errorf("no column is named for %s", role), "every event needs one"))
		}
	}
	seen := map[string]bool{}
	for _, h := range m.Headers {
		name := h.name()
		switch {
		case h.Column == "" || name == "" || len(name) > maxHeaderName:
			errs = append(errs, fault.NewUsage(fmt.Errorf("header column %q has no usable name", h.Column), "write COLUMN or COLUMN=HEADER"))
		case ours(name) || format.Reserved(name):
			errs = append(errs, fault.NewUsage(fmt.Errorf("header %q is set by outboxcdc", name), "give the column's header another name, as COLUMN=HEADER"))
		case seen[name]:
			errs = append(errs, fault.NewUsage(fmt.Errorf("header %q is named twice", name), "name it once"))
		}
		seen[name] = true
	}
	return errors.Join(errs...)
}

func roleNames() string {
	names := make([]string, 0, roleCount)
	for _, role := range Roles() {
		names = append(names, string(role))
	}
	return strings.Join(names, ", ")
}

func (h HeaderColumn) name() string {
	if h.Header == "" {
		return h.Column
	}
	return h.Header
}

// compileWhole makes an expression that matches whole names only.
func compileWhole(pattern string) (*regexp.Regexp, error) {
	expression, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, fault.NewUsage(fmt.Errorf("%q is not a regular expression", pattern), "use the syntax of Go's regexp package (RE2)")
	}
	return expression, nil
}
