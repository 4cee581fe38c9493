package debezium

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/sink"
)

// goldenFile is a profile of testdata: what the real Debezium 3.6.1 made of the rows
// that the log held.
type goldenFile struct {
	Profile    string
	Connector  map[string]string
	Partitions int32 `json:"topic_partitions"`
	Table      struct {
		Schema, Name string
		Columns      []struct {
			Name, Type string
			Mod        int32
			Labels     []string
			NotNull    bool `json:"not_null"`
			Default    string
		}
	}
	Rows []struct {
		SQL     int
		Values  map[string]*string
		Message *string
	}
	Records []goldenRecord
	Error   *struct {
		At        string
		Statement int
	}
}

type goldenRecord struct {
	Topic     string
	Partition *int32 // null: any is right
	Key       goldenBytes
	Value     goldenBytes
	ValueOf   string `json:"value_of"` // the value is that column's text
	Headers   []goldenHeader
	Kind      string `json:"timestamp_kind"` // column or processing
	Time      int64  `json:"timestamp_ms"`
}

type goldenHeader struct {
	name  string
	value goldenBytes
}

func (h *goldenHeader) UnmarshalJSON(raw []byte) error {
	return json.Unmarshal(raw, &[]any{&h.name, &h.value})
}

// goldenBytes is text, {"base64": …} for bytes that are none, or null.
type goldenBytes []byte

func (b *goldenBytes) UnmarshalJSON(raw []byte) error {
	var coded struct{ Base64 []byte }
	var text *string
	switch raw[0] {
	case '{':
		err := json.Unmarshal(raw, &coded)
		*b = coded.Base64
		return err
	default:
		err := json.Unmarshal(raw, &text)
		if text != nil {
			*b = append(goldenBytes{}, *text...)
		}
		return err
	}
}

// outcome is what becomes of a row where it is not Debezium's record.
type outcome string

const (
	refused outcome = "refused" // by the configuration check, before any row
	stops   outcome = "stops"   // a data error: the stream stops before the row
	ours    outcome = "ours"    // a record of our own
)

// departures are the profiles in which the real connector stops, hangs or gives what
// no consumer can use. docs/debezium.md lists the same.
var departures = map[string]outcome{
	"binary-connect-string":          refused, // a Java buffer's name in the place of the bytes
	"key-bytea-string":               refused, // the same
	"placements-header-string":       refused, // the same
	"error-binary-text-payload":      refused,
	"error-bytearray-text-payload":   refused,
	"error-missing-envelope-column":  refused,
	"error-missing-header-column":    refused,
	"error-missing-id":               refused,
	"error-missing-key":              refused,
	"error-missing-partition-column": refused,
	"error-missing-payload":          refused,
	"error-missing-route":            refused,
	"error-missing-timestamp":        refused,
	"error-partition-bigint":         refused,
	"error-partition-smallint":       refused,
	"error-route-by-int":             refused,
	"error-timestamp-bigint":         refused,
	"error-timestamp-time":           refused,
	"error-partition-negative":       stops,
	"error-route-null":               stops,
	"error-timestamp-infinity":       stops,
	"error-timestamp-negative":       stops,
	"errors-tolerated":               stops, // it drops rows; see also --on-error
	"error-expand-array":             ours,
	"error-expand-array-schema":      ours,
	"error-expand-bigint":            ours,
	"error-expand-exponent":          ours,
	"error-expand-member-types":      ours,
	"error-timestamp-connect-mode":   ours,
	"error-timestamp-date":           ours,
	"error-timestamp-timestamptz":    ours,
	// The broker or the sink refuses the record, not this package.
	"error-partition-out-of-range": ours,
	"error-timestamp-future":       ours,
	"error-topic-collision":        ours,
	"error-topic-slash":            ours,
	"error-topic-space":            ours,
	"error-topic-too-long":         ours,
	"error-topic-unicode":          ours,
	// Only inserts are events to us.
	"dml-update-of-key":  ours,
	"error-update-fatal": ours,
}

func readGolden(tb testing.TB, file string) *goldenFile {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	var g goldenFile
	if err := json.Unmarshal(text, &g); err != nil {
		tb.Fatalf("%s: %v", file, err)
	}
	return &g
}

// options are those of the connector that shape a record.
func (g *goldenFile) options(tb testing.TB) Options {
	tb.Helper()
	var options []Option
	for name, value := range g.Connector {
		if name = strings.TrimPrefix(name, "transforms.outbox."); Shapes(name) {
			options = append(options, Option{name, value})
		}
	}
	o, err := ParseOptions(options)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func (g *goldenFile) table() Table {
	t := Table{Schema: g.Table.Schema, Name: g.Table.Name}
	for _, c := range g.Table.Columns {
		t.Columns = append(t.Columns, Column{Name: c.Name, Type: c.Type, Mod: c.Mod, Labels: c.Labels, NotNull: c.NotNull, Default: c.Default})
	}
	return t
}

// run gives the sample that the file has for the header that varies.
func (g *goldenFile) run() string {
	for i := range g.Records {
		for _, h := range g.Records[i].Headers {
			if h.name == contextPrefix+"runId" {
				return strings.Trim(string(h.value), `"`)
			}
		}
	}
	return "none"
}

func goldenFiles(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 182 {
		tb.Fatalf("find the golden files: %v, %d", err, len(files))
	}
	return files
}

// TestRecordsAreDebeziums maps the rows of every golden file: key, value, headers in
// order, topic, partition and time are those of the real connector, or the file is
// one of the departures.
func TestRecordsAreDebeziums(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, file := range goldenFiles(t) {
		g := readGolden(t, file)
		seen[g.Profile] = true
		t.Run(g.Profile, func(t *testing.T) {
			t.Parallel()
			checkGolden(t, g)
		})
	}
	for profile := range departures {
		if !seen[profile] {
			t.Errorf("there is no golden file %s, which the departures name", profile)
		}
	}
}

func checkGolden(t *testing.T, g *goldenFile) {
	t.Helper()
	want := departures[g.Profile]
	f, err := New(g.options(t), g.run())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := f.Plan(g.table())
	if (err != nil) != (want == refused) {
		t.Fatalf("the configuration check says %v, want %q", err, want)
	}
	if want == refused {
		return
	}
	var b Buffer
	var got []Record
	var stopped error
	for _, row := range g.Rows {
		var record Record
		if row.Message != nil {
			record, stopped = f.Message([]byte(*row.Message), &b)
		} else {
			record, stopped = plan.Map(valuesOf(f, row.Values), &b)
		}
		if stopped != nil {
			break
		}
		got = append(got, record)
	}
	if (stopped != nil) != (want == stops) {
		t.Fatalf("row %d: %v, want %q", len(got), stopped, want)
	}
	compareGolden(t, g, got, want)
}

func valuesOf(f *Format, row map[string]*string) [][]byte {
	var values [][]byte
	for _, n := range f.Needed() {
		var text []byte
		if v := row[n.Name]; v != nil {
			text = append([]byte{}, *v...)
		}
		values = append(values, text)
	}
	return values
}

func compareGolden(t *testing.T, g *goldenFile, got []Record, want outcome) {
	t.Helper()
	records := g.Records
	if want == "" && len(got) != len(records) {
		t.Fatalf("%d rows became records, Debezium made %d", len(got), len(records))
	}
	for i := range min(len(got), len(records)) {
		if g.Profile == "dml-update-of-key" && i > 0 {
			records = append(records[:1:1], g.Records[2:]...) // without the republished row
			if i >= len(records) {
				break
			}
		}
		if g.Profile == "error-topic-collision" && i > 0 || g.Profile == "errors-tolerated" && i > 0 {
			break
		}
		compareRecord(t, i, &records[i], &got[i], g)
	}
}

func compareRecord(t *testing.T, i int, want *goldenRecord, got *Record, g *goldenFile) {
	t.Helper()
	if want.ValueOf != "" {
		want.Value = goldenBytes(*g.Rows[i].Values[want.ValueOf])
	}
	if got.Topic != want.Topic {
		t.Errorf("record %d: topic %q, want %q", i, got.Topic, want.Topic)
	}
	compareBytes(t, i, "key", got.Key, want.Key)
	compareBytes(t, i, "value", got.Value, want.Value)
	var headers []sink.Header
	for _, h := range want.Headers {
		headers = append(headers, sink.Header{Key: h.name, Value: h.value})
	}
	if diff := cmp.Diff(readable(headers), readable(got.Headers)); diff != "" {
		t.Errorf("record %d: headers (-Debezium +ours):\n%s", i, diff)
	}
	var at time.Time
	if want.Kind == "column" {
		at = time.UnixMilli(want.Time).UTC()
	}
	if !got.Time.Equal(at) {
		t.Errorf("record %d: time %v, want %v", i, got.Time, at)
	}
	if p := partitionOf(got, g.Partitions); want.Partition != nil && p != *want.Partition {
		t.Errorf("record %d: partition %d, want %d", i, p, *want.Partition)
	}
}

func compareBytes(t *testing.T, i int, what string, got []byte, want goldenBytes) {
	t.Helper()
	if (got == nil) != (want == nil) || string(got) != string(want) {
		t.Errorf("record %d: %s\n got %s\nwant %s", i, what, show(got), show(want))
	}
}

func readable(headers []sink.Header) [][2]string {
	var out [][2]string
	for _, h := range headers {
		out = append(out, [2]string{h.Key, show(h.Value)})
	}
	return out
}

func show(b []byte) string {
	if b == nil {
		return "null"
	}
	return "=" + string(b)
}
