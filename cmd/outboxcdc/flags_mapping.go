package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/outbox/debezium"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
)

// mappingFlags say how rows become messages. Each that is a list may be given for one
// table, as SCHEMA.NAME:VALUE, or for logical messages, as messages:VALUE.
func mappingFlags() []cli.Flag {
	return []cli.Flag{
		text("format", "native", "`FORMAT` of events: native, cloudevents or debezium"),
		list("debezium", "", "`OPTION=VALUE` of a Debezium connector that shapes records, by its own name, for --format debezium"),
		list("topic", outbox.DefaultTopic, "`TEMPLATE` of the topic's name, with columns in braces"),
		list("topic-route", "", "`PATTERN=TOPIC`: the topic of names that match a regular expression, such as (.*)-v1=legacy.$1"),
		list("topic-allow", "", "`PATTERN` of topics that may be sent to, a regular expression for whole names"),
		list("column", "", "`ROLE=COLUMN`: the column for id, aggregate_type, aggregate_id, event_type, payload or headers; ROLE= when there is none"),
		list("partition-column", "", "integer `COLUMN` that chooses the partition"),
		list("timestamp-column", "", "`COLUMN` with the record's time, instead of the time of the commit"),
		list("header-column", "", "`COLUMN` or COLUMN=HEADER that is sent as a header"),
		text("cloudevents-mode", "binary", "`MODE` of --format cloudevents: binary (attributes are headers) or structured (all is JSON in the value)"),
		text("cloudevents-source", "", "source of CloudEvents, a `URI`; empty is the table's name"),
		text("cloudevents-content-type", "", "content `TYPE` of payloads in CloudEvents; empty is by the type of the column"),
		list("tombstones", "null", "`WHICH` payloads are a null value: null, empty (also blank text) or off (a null payload is an error)"),
	}
}

// list is a flag that may be repeated; in the environment its values are separated by
// semicolons.
func list(name, value, usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, EnvVars: []string{twin(name)}, DefaultText: value, Usage: usage}
}

// mappingValue is one value of a mapping flag.
type mappingValue struct {
	flag, value string
	own         bool // for one table only
}

// outboxConfig reads mappingFlags, for tables that have been read.
func outboxConfig(c *cli.Context, tables []wal.Table) (outbox.Config, error) {
	config := outbox.Config{Tables: map[outbox.TableName]outbox.Mapping{}}
	if c.String("message-prefix") != "" {
		tables = append(slices.Clone(tables), forMessages())
	}
	var errs []error
	var formatErr error
	if config.Format, formatErr = formatOf(c); formatErr != nil {
		errs = append(errs, formatErr)
	}
	var general []mappingValue
	own := map[outbox.TableName][]mappingValue{}
	if format, ok := config.Format.(*debezium.Format); ok {
		config.WithoutPosition = true
		config.Default = format.Mapping()
		format.DescribeBy(describeBy(c, tables))
		return config, errors.Join(append(errs, notWithDebezium(c, &config.Default))...)
	}
	if len(mappingValues(c, "debezium")) > 0 {
		errs = append(errs, fault.NewUsage(errors.New("--debezium is given without --format debezium"), "give both or neither"))
	}
	if _, cloud := config.Format.(outbox.CloudEvents); !cloud && formatErr == nil {
		errs = append(errs, notWithoutCloudEvents(c))
	}
	for _, flag := range mappingFlags() {
		name := flag.Names()[0]
		if _, perTable := flag.(*cli.StringSliceFlag); !perTable {
			continue
		}
		for _, text := range mappingValues(c, name) {
			if table, value, ok := cutTable(text, tables); ok {
				own[table] = append(own[table], mappingValue{name, value, true})
			} else {
				general = append(general, mappingValue{name, text, false})
			}
		}
	}
	var err error
	config.Default, err = mappingOf(general)
	errs = append(errs, err)
	for table, settings := range own {
		shared := general
		if table.Schema == "" { // messages
			shared = slices.DeleteFunc(slices.Clone(general), ofTables)
		}
		config.Tables[table], err = mappingOf(slices.Concat(without(shared, settings), settings))
		if err != nil {
			errs = append(errs, err)
		}
	}
	if c.String("message-prefix") != "" {
		errs = append(errs, mapMessages(&config, general))
	}
	return config, errors.Join(errs...)
}

// forMessages stands for the logical messages in the place of a table.
func forMessages() wal.Table { return wal.Table{Name: "messages"} }

// mapMessages takes what is said of messages apart from the tables. The names of
// columns are of tables: members have the names of their roles unless messages:
// says another.
func mapMessages(config *outbox.Config, general []mappingValue) error {
	mapping, own := config.Tables[outbox.TableName{Name: forMessages().Name}]
	var err error
	if !own {
		mapping, err = mappingOf(slices.DeleteFunc(slices.Clone(general), ofTables))
	}
	delete(config.Tables, outbox.TableName{Name: forMessages().Name})
	config.Messages = &mapping
	return err
}

func ofTables(s mappingValue) bool { return s.flag == "column" }

func formatOf(c *cli.Context) (outbox.Format, error) {
	switch stringOf(c, "format", "native") {
	case "native":
		return outbox.Native{}, nil
	case "cloudevents":
		return cloudEventsOf(c)
	case "debezium":
		return debeziumFormat(c)
	default:
		return nil, fault.NewUsage(errors.New("--format is not a format"), "use native, cloudevents or debezium")
	}
}

// notWithoutCloudEvents refuses settings that would change nothing.
func notWithoutCloudEvents(c *cli.Context) error {
	var errs []error
	for _, name := range []string{"cloudevents-mode", "cloudevents-source", "cloudevents-content-type"} {
		if c.String(name) != "" && c.IsSet(name) {
			errs = append(errs, fault.NewUsage(fmt.Errorf("--%s is given without --format cloudevents", name), "give both or neither"))
		}
	}
	return errors.Join(errs...)
}

func cloudEventsOf(c *cli.Context) (outbox.Format, error) {
	format := outbox.CloudEvents{Source: c.String("cloudevents-source"), ContentType: c.String("cloudevents-content-type")}
	var modeErr error
	switch stringOf(c, "cloudevents-mode", "binary") {
	case "binary":
	case "structured":
		format.Structured = true
	default:
		modeErr = fault.NewUsage(errors.New("--cloudevents-mode is not a mode"), "use binary or structured")
	}
	return format, errors.Join(modeErr, format.Validate())
}

// mappingValues are the values of a list flag. A pattern may hold a semicolon in no topic,
// so on the command line one separates as well.
func mappingValues(c *cli.Context, name string) []string {
	var values []string
	for _, text := range c.StringSlice(name) {
		for value := range strings.SplitSeq(text, ";") {
			if value = strings.TrimSpace(value); value != "" {
				values = append(values, value)
			}
		}
	}
	return values
}

// cutTable takes the name of one of tables and a colon off a value.
func cutTable(text string, tables []wal.Table) (table outbox.TableName, value string, ok bool) {
	for at := range text {
		if text[at] != ':' {
			continue
		}
		if text[:at] == forMessages().Name && slices.ContainsFunc(tables, isMessages) {
			return outbox.TableName{Name: forMessages().Name}, text[at+1:], true
		}
		named, err := parseTableList(text[:at])
		if err != nil || len(named) != 1 {
			continue
		}
		for _, t := range tables {
			if t.Schema == named[0].Schema && t.Name == named[0].Name {
				return outbox.TableName{Schema: t.Schema, Name: t.Name}, text[at+1:], true
			}
		}
	}
	return outbox.TableName{}, text, false
}

func isMessages(t wal.Table) bool { return t.Schema == "" && t.Name == forMessages().Name }

// without leaves out what a table has mappingValues of its own for: a flag as a whole, and
// of --column the role.
func without(general, own []mappingValue) []mappingValue {
	key := func(s mappingValue) string {
		if role, _, found := strings.Cut(s.value, "="); s.flag == "column" && found {
			return s.flag + " " + role
		}
		return s.flag
	}
	return slices.DeleteFunc(slices.Clone(general), func(s mappingValue) bool {
		return slices.ContainsFunc(own, func(o mappingValue) bool { return key(o) == key(s) })
	})
}

func mappingOf(settings []mappingValue) (outbox.Mapping, error) {
	m := outbox.Mapping{Columns: map[outbox.Role]string{}}
	var errs []error
	seen := map[string]bool{}
	for _, s := range settings {
		err := apply(&m, s)
		if single := s.flag == "topic" || s.flag == "partition-column" || s.flag == "timestamp-column" || s.flag == "tombstones"; single && seen[s.flag] {
			err = fault.NewUsage(fmt.Errorf("--%s is given twice for one table", s.flag), "give it once, or once for each table as SCHEMA.NAME:VALUE")
		}
		seen[s.flag] = true
		errs = append(errs, err)
	}
	return m, errors.Join(errs...)
}

func apply(m *outbox.Mapping, s mappingValue) error {
	switch s.flag {
	case "topic":
		m.Topic = s.value
	case "topic-route":
		at := strings.LastIndex(s.value, "=")
		if at < 0 {
			return fault.NewUsage(errors.New("--topic-route has no topic"), "write PATTERN=TOPIC")
		}
		m.Routes = append(m.Routes, outbox.Route{Pattern: s.value[:at], Replacement: s.value[at+1:]})
	case "topic-allow":
		m.Allow = append(m.Allow, s.value)
	case "column":
		role, column, found := strings.Cut(s.value, "=")
		_, again := m.Columns[outbox.Role(role)]
		switch {
		case !found:
			return fault.NewUsage(errors.New("--column has no equals sign"), "write ROLE=COLUMN such as aggregate_id=order_id")
		case again:
			return fault.NewUsage(fmt.Errorf("--column names role %s twice", role), "name it once, or once for each table as SCHEMA.NAME:ROLE=COLUMN")
		}
		m.Columns[outbox.Role(role)] = column
	case "partition-column":
		m.Partition = s.value
	case "timestamp-column":
		m.Timestamp = s.value
	case "header-column":
		column, header, _ := strings.Cut(s.value, "=")
		m.Headers = append(m.Headers, outbox.HeaderColumn{Column: column, Header: header})
	case "tombstones":
		kind, err := outbox.ParseTombstones(s.value)
		m.Tombstones = kind
		return err
	}
	return nil
}
