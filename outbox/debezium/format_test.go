package debezium

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// mapped is a golden file with what a mapper needs to take its rows.
type mapped struct {
	format *Format
	plan   *outbox.Plan
	rows   []wal.Row
}

func newMapped(t *testing.T, g *goldenFile, config outbox.Config) mapped {
	t.Helper()
	f, err := New(g.options(t), g.run())
	if err != nil {
		t.Fatal(err)
	}
	f.DescribeBy(func(string, string) ([]wal.ColumnFacts, error) {
		var facts []wal.ColumnFacts
		for _, c := range g.Table.Columns {
			facts = append(facts, wal.ColumnFacts{Name: c.Name, Type: c.Type, Modifier: c.Mod, Labels: c.Labels, NotNull: c.NotNull, Default: c.Default})
		}
		return facts, nil
	})
	config.Format, config.Default, config.WithoutPosition = f, f.Mapping(), true
	config.Default.Allow = nil
	plan, err := outbox.NewPlan(config, []wal.Table{{Schema: g.Table.Schema, Name: g.Table.Name}})
	if err != nil {
		t.Fatal(err)
	}
	m := mapped{format: f, plan: plan}
	columns := plan.Tables()[0].Columns
	shape := &wal.Shape{Schema: g.Table.Schema, Name: g.Table.Name}
	for _, c := range g.Table.Columns {
		name := c.Type
		if c.Labels != nil {
			name = "public." + name
		}
		shape.Columns = append(shape.Columns, wal.ColumnShape{Name: c.Name, Modifier: c.Mod, TypeName: name})
	}
	for _, c := range columns {
		shape.Read = append(shape.Read, slices.IndexFunc(shape.Columns, func(s wal.ColumnShape) bool { return s.Name == c.Name }))
	}
	for _, row := range g.Rows {
		texts := make([][]byte, len(columns))
		for i, c := range columns {
			if v := row.Values[c.Name]; v != nil {
				texts[i] = []byte(*v)
			}
		}
		m.rows = append(m.rows, wal.Row{Columns: texts, Shape: shape, Time: time.UnixMilli(1)})
	}
	return m
}

// TestTheMapperSendsWhatTheFormatMakes takes every golden file through the way that
// rows go in a stream: the records are the same, and a topic that no broker would take
// is a data error before it is sent.
func TestTheMapperSendsWhatTheFormatMakes(t *testing.T) {
	t.Parallel()
	for _, file := range goldenFiles(t) {
		g := readGolden(t, file)
		if departures[g.Profile] == refused || g.Profile == "logical-message" {
			continue
		}
		t.Run(g.Profile, func(t *testing.T) {
			t.Parallel()
			m := newMapped(t, g, outbox.Config{})
			messages, err := outbox.NewMapper(m.plan).Map(m.rows, nil)
			stopped := departures[g.Profile] == stops ||
				strings.HasPrefix(g.Profile, "error-topic-") && g.Profile != "error-topic-longest" && g.Profile != "error-topic-collision"
			if (err != nil) != stopped || stopped && fault.Classify(err) != fault.Data {
				t.Fatalf("mapping ends with %v", err)
			}
			var got []Record
			for i := range messages {
				got = append(got, recordOf(&messages[i]))
			}
			compareGolden(t, g, got, departures[g.Profile])
		})
	}
}

func recordOf(m *sink.Message) Record {
	r := Record{Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: m.Headers, Partition: NoPartition}
	if m.Placed {
		r.Partition = m.Partition
	}
	if m.Time != time.UnixMilli(1) {
		r.Time = m.Time
	}
	return r
}

func golden(t *testing.T, profile string) *goldenFile {
	t.Helper()
	return readGolden(t, "testdata/"+profile+".json")
}

func TestATopicOutsideTheAllowedOnesIsRefused(t *testing.T) {
	t.Parallel()
	m := newMapped(t, golden(t, "connect-string"), outbox.Config{Reserved: []string{"outbox.event.Order"}})
	if _, err := outbox.NewMapper(m.plan).Map(m.rows, nil); fault.Classify(err) != fault.Data {
		t.Errorf("a reserved topic gives %v, want a data error", err)
	}
}

func TestBindSaysWhyTheCatalogCannotBeAsked(t *testing.T) {
	t.Parallel()
	m := newMapped(t, golden(t, "connect-string"), outbox.Config{})
	away := &fault.Error{Class: fault.Transient, Err: errors.New("connection refused")}
	m.format.DescribeBy(func(string, string) ([]wal.ColumnFacts, error) { return nil, away })
	if _, err := outbox.NewMapper(m.plan).Map(m.rows, nil); fault.Classify(err) != fault.Transient {
		t.Errorf("mapping ends with %v, want the transient error: the next session asks again", err)
	}
}

func TestJudgeNamesEveryProblemAtOnce(t *testing.T) {
	t.Parallel()
	options := DefaultOptions("shop")
	options.Placements = []Placement{{"part", PlacePartition, "part"}, {"tenant", PlaceHeader, "tenant"}, {"point", PlaceHeader, "point"}}
	f, err := New(options, "run")
	if err != nil {
		t.Fatal(err)
	}
	err = f.Judge("public", "outbox", []wal.ColumnFacts{
		{Name: "id", Type: "uuid"},
		{Name: "aggregatetype", Type: "int4"},
		{Name: "aggregateid", Type: "text"},
		{Name: "part", Type: "int8"},
		{Name: "point", Type: "point"},
	})
	if fault.Classify(err) != fault.Operator {
		t.Fatalf("the table is judged %v, want an operator's error", err)
	}
	for _, column := range []string{"aggregatetype", "payload", "part", "tenant", "point"} {
		if !strings.Contains(err.Error(), column) {
			t.Errorf("%v does not name column %s", err, column)
		}
	}
}

func TestParseOptionsGivesEveryProblemAtOnce(t *testing.T) {
	t.Parallel()
	_, err := ParseOptions([]Option{
		{"no.such.option", "x"},
		{"key.converter", "avro"},
		{"table.expand.json.payload", "yes"},
		{"table.fields.additional.placement", "type:body"},
		{"route.topic.regex", "("},
	})
	if fault.Classify(err) != fault.Usage {
		t.Fatalf("bad options give %v, want a usage error", err)
	}
	for _, name := range []string{"no.such.option", "key.converter", "table.expand.json.payload", "placement", "topic regex"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

// TestNoErrorShowsAValue: errors about rows go to logs, where payloads must not.
func TestNoErrorShowsAValue(t *testing.T) {
	t.Parallel()
	const secret = "secret"
	for _, c := range []Column{
		{Name: "c", Type: "int4"},
		{Name: "c", Type: "float8"},
		{Name: "c", Type: "bool"},
		{Name: "c", Type: "numeric", Mod: -1},
		{Name: "c", Type: "timestamptz", Mod: -1},
		{Name: "c", Type: "date", Mod: -1},
		{Name: "c", Type: "time", Mod: -1},
		{Name: "c", Type: "interval", Mod: -1},
		{Name: "c", Type: "bytea"},
		{Name: "c", Type: "_int4"},
		{Name: "c", Type: "money"},
		{Name: "c", Type: "bit", Mod: 1},
	} {
		o := DefaultOptions("")
		made, err := codecFor(c, &o)
		if err != nil {
			t.Fatal(err)
		}
		var v value
		if err := made.read([]byte(secret), &v); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s reads %q as %v", c.Type, secret, err)
		}
	}
}

// FuzzColumns: whatever text a column holds, reading it ends in a value or an error,
// and what is made of a value is made again of the same text.
func FuzzColumns(f *testing.F) {
	types := []Column{
		{Type: "numeric", Mod: -1},
		{Type: "numeric", Mod: 12<<16 + 3 + 4},
		{Type: "timestamp", Mod: -1},
		{Type: "timestamptz", Mod: 3},
		{Type: "date", Mod: -1},
		{Type: "time", Mod: 2},
		{Type: "timetz", Mod: -1},
		{Type: "interval", Mod: -1},
		{Type: "bytea", Mod: -1},
		{Type: "_text", Mod: -1},
		{Type: "_int8", Mod: -1},
		{Type: "money", Mod: -1},
		{Type: "float8", Mod: -1},
		{Type: "jsonb", Mod: -1},
	}
	for i, text := range []string{
		"12.50", "-0.001", "2024-05-06 07:08:09.5", "infinity", "0044-03-15 BC", "23:59:59.9", "01:02:03+05:30",
		"1 year -2 mons 04:05:06", `\x00ff`, `{a,"b\"c",NULL}`, "{1,2}", "$1,234.50", "1e-300", `{"a":[{"b":1},{"c":[2.5,null]}]}`,
	} {
		f.Add(i, text)
	}
	f.Fuzz(func(t *testing.T, which int, text string) {
		c := types[uint(which)%uint(len(types))]
		c.Name = "c"
		o := DefaultOptions("")
		made, err := codecFor(c, &o)
		if err != nil {
			t.Fatal(err)
		}
		var results [2]string
		for i := range results {
			var v value
			if err := made.read([]byte(text), &v); err != nil {
				return
			}
			results[i] = string(appendJSON(nil, made.schema, &v)) + string(appendSimple(nil, made.schema, &v, false))
			if c.Type == "jsonb" {
				if s, expanded, ok := (expander{i == 0}).expand(v.text); ok {
					results[i] = string(appendJSON(nil, s, &expanded))[:1]
				}
			}
		}
		if diff := cmp.Diff(results[0], results[1]); diff != "" {
			t.Errorf("%s differs from one time to the next:\n%s", c.Type, diff)
		}
	})
}
