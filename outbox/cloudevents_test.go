package outbox_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/format"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// kafkaMessage lets the official SDK read a record as the Kafka protocol binding says:
// attributes are headers that begin with ce_, and the content type tells the mode.
type kafkaMessage struct {
	sink.Message
}

var attributes = spec.WithPrefix("ce_")

func (m kafkaMessage) header(name string) string {
	for _, h := range m.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func (m kafkaMessage) ReadEncoding() binding.Encoding {
	switch {
	case format.Lookup(m.header("content-type")) != nil:
		return binding.EncodingStructured
	case attributes.Version(m.header("ce_specversion")) != nil:
		return binding.EncodingBinary
	default:
		return binding.EncodingUnknown
	}
}

func (m kafkaMessage) ReadStructured(ctx context.Context, w binding.StructuredWriter) error {
	if m.ReadEncoding() != binding.EncodingStructured {
		return binding.ErrNotStructured
	}
	return w.SetStructuredEvent(ctx, format.Lookup(m.header("content-type")), bytes.NewReader(m.Value))
}

func (m kafkaMessage) ReadBinary(_ context.Context, w binding.BinaryWriter) error {
	if m.ReadEncoding() != binding.EncodingBinary {
		return binding.ErrNotBinary
	}
	version := attributes.Version(m.header("ce_specversion"))
	for _, h := range m.Headers {
		var err error
		if attribute := version.Attribute(h.Key); attribute != nil {
			err = w.SetAttribute(attribute, string(h.Value))
		} else if h.Key == "content-type" {
			err = w.SetAttribute(version.AttributeFromKind(spec.DataContentType), string(h.Value))
		} else if name, extension := strings.CutPrefix(h.Key, "ce_"); extension {
			err = w.SetExtension(name, string(h.Value))
		}
		if err != nil {
			return err
		}
	}
	if m.Value == nil {
		return nil
	}
	return w.SetData(io.NopCloser(bytes.NewReader(m.Value)))
}

func (m kafkaMessage) GetAttribute(kind spec.Kind) (spec.Attribute, any) {
	version := attributes.Version(m.header("ce_specversion"))
	attribute := version.AttributeFromKind(kind)
	if kind == spec.DataContentType {
		return attribute, m.header("content-type")
	}
	return attribute, m.header(attribute.PrefixedName())
}

func (m kafkaMessage) GetExtension(name string) any { return m.header("ce_" + name) }

func (m kafkaMessage) Finish(error) error { return nil }

// cloudEventsOf maps a row whose payload has a type, and gives the record.
func cloudEventsOf(t *testing.T, form outbox.CloudEvents, payloadType string, r wal.Row) (sink.Message, error) {
	t.Helper()
	plan, err := outbox.NewPlan(outbox.Config{Format: form}, tables)
	if err != nil {
		t.Fatal(err)
	}
	r.Shape = &wal.Shape{Columns: []wal.ColumnShape{{TypeName: payloadType}}, Read: []int{-1, -1, -1, -1, 0, -1}}
	got, err := outbox.NewMapper(plan).Map([]wal.Row{r}, nil)
	if err != nil {
		return sink.Message{}, err
	}
	return got[0], nil
}

func TestTheOfficialSDKReadsOurCloudEvents(t *testing.T) {
	for name, c := range map[string]struct {
		format            outbox.CloudEvents
		payloadType       string
		payload           any
		data, contentType string
	}{
		"jsonb":             {outbox.CloudEvents{}, "jsonb", `{"n": 1.50}`, `{"n": 1.50}`, "application/json"},
		"json scalar":       {outbox.CloudEvents{}, "json", `"ü\n"`, `"ü\n"`, "application/json"},
		"text":              {outbox.CloudEvents{}, "text", "a \"b\"\n\x01ü\\", "a \"b\"\n\x01ü\\", "text/plain; charset=utf-8"},
		"bytes":             {outbox.CloudEvents{}, "bytea", `\x00ff22`, "\x00\xff\"", "application/octet-stream"},
		"text that is JSON": {outbox.CloudEvents{ContentType: "application/json; charset=utf-8"}, "text", ` {"n":1} `, `{"n":1}`, "application/json; charset=utf-8"},
		"null":              {outbox.CloudEvents{}, "jsonb", nil, "", ""},
	} {
		for _, structured := range []bool{false, true} {
			c.format.Structured = structured
			m, err := cloudEventsOf(t, c.format, c.payloadType, row("f3", "order", "o-1", "com.example.placed", c.payload, `{"traceparent": "00-1", "ce_id": "forged", "Content-Type": "forged"}`))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			e, err := binding.ToEvent(t.Context(), kafkaMessage{m})
			if err != nil {
				t.Errorf("%s, structured %v: the SDK reads %q %q: %v", name, structured, m.Headers, m.Value, err)
				continue
			}
			wantCloudEvent(t, name, e, strings.TrimSpace(c.data), c.contentType)
			if string(m.Key) != "o-1" || (m.Value == nil) != (c.payload == nil && !structured) {
				t.Errorf("%s, structured %v: key %q, value %q", name, structured, m.Key, m.Value)
			}
			if k := (kafkaMessage{m}); k.header("traceparent") != "00-1" || k.header("outboxcdc-position") != "00000000016B3748/3" {
				t.Errorf("%s: headers %q", name, m.Headers)
			}
		}
	}
}

func wantCloudEvent(t *testing.T, name string, e *event.Event, data, contentType string) {
	t.Helper()
	if err := e.Validate(); err != nil {
		t.Errorf("%s: it is not valid: %v", name, err)
	}
	if e.ID() != "f3" || e.Source() != "/public.outbox" || e.Type() != "com.example.placed" || e.Subject() != "o-1" ||
		!e.Time().Equal(time.Unix(1700000000, 0)) || e.Extensions()["aggregatetype"] != "order" || e.DataContentType() != contentType {
		t.Errorf("%s: the SDK reads %v", name, e)
	}
	if got := strings.TrimSpace(string(e.Data())); got != data {
		t.Errorf("%s: its data are %q, want %q", name, got, data)
	}
}

func TestACloudEventWithoutAnIDHasItsPosition(t *testing.T) {
	m, err := cloudEventsOf(t, outbox.CloudEvents{Source: "https://shop.example.com/"}, "jsonb", row(nil, "order", "o-1", "e", "{}", nil))
	if k := (kafkaMessage{m}); err != nil || k.header("ce_id") != "00000000016B3748/3" || k.header("ce_source") != "https://shop.example.com/" {
		t.Errorf("headers %q, %v", m.Headers, err)
	}
}

// A row of a table has no position: the same text would be the id of all of them.
func TestACloudEventFromATableNeedsAnID(t *testing.T) {
	r := row(nil, "order", "o-1", "e", "{}", nil)
	r.Commit = 0
	if m, err := cloudEventsOf(t, outbox.CloudEvents{}, "jsonb", r); fault.Classify(err) != fault.Data || err == nil {
		t.Errorf("headers %q, %v; want a data error", m.Headers, err)
	}
	r.Columns[0] = []byte("f3")
	if m, err := cloudEventsOf(t, outbox.CloudEvents{}, "jsonb", r); err != nil || (kafkaMessage{m}).header("ce_id") != "f3" {
		t.Errorf("headers %q, %v; want the id of the row", m.Headers, err)
	}
}

func TestATimeThatHasNoTextIsADataError(t *testing.T) {
	r := row("f3", "order", "o-1", "e", "{}", nil)
	r.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if m, err := cloudEventsOf(t, outbox.CloudEvents{}, "jsonb", r); fault.Classify(err) != fault.Data || err == nil {
		t.Errorf("headers %q, %v; want a data error", m.Headers, err)
	}
}

func TestWhatIsNoCloudEventIsADataError(t *testing.T) {
	for name, r := range map[string]wal.Row{
		"no type":            row("f3", "order", "o-1", nil, "{}", nil),
		"empty type":         row("f3", "order", "o-1", "", "{}", nil),
		"control character":  row("f3", "order", "o-1", "s3cret\n", "{}", nil),
		"no UTF-8":           row("f3", "order", "o-1", "s3cret\xff", "{}", nil),
		"id of a character":  row("s3cret\u0085", "order", "o-1", "e", "{}", nil),
		"non-character":      row("f3", "s3cret\uffff", "o-1", "e", "{}", nil),
		"payload is no JSON": row("f3", "order", "o-1", "e", "s3cret", nil),
	} {
		m, err := cloudEventsOf(t, outbox.CloudEvents{Structured: true}, "json", r)
		if fault.Classify(err) != fault.Data || err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %+v, %v; want a data error that shows no value", name, m, err)
		}
	}
	// A key that is no text is a key and no subject.
	m, err := cloudEventsOf(t, outbox.CloudEvents{}, "json", row("f3", "order", "o\x01", "e", "{}", nil))
	if k := (kafkaMessage{m}); err != nil || k.header("ce_subject") != "" || string(m.Key) != "o\x01" {
		t.Errorf("headers %q, %v", m.Headers, err)
	}
}

func TestSettingsThatMakeNoCloudEventsAreRefused(t *testing.T) {
	for _, form := range []outbox.CloudEvents{{Source: "a\nb"}, {Source: ":"}, {ContentType: "a\nb"}} {
		if err := form.Validate(); fault.Classify(err) != fault.Usage || err == nil {
			t.Errorf("%+v: %v, want a usage error", form, err)
		}
	}
	if _, err := outbox.NewPlan(outbox.Config{Format: outbox.CloudEvents{}, Default: outbox.Mapping{Headers: []outbox.HeaderColumn{{Column: "c", Header: "CE_id"}}}}, tables); fault.Classify(err) != fault.Usage {
		t.Errorf("a column may be an attribute: %v", err)
	}
}

func TestCloudEventsAllocateForTheCallNotForTheRow(t *testing.T) {
	plan, err := outbox.NewPlan(outbox.Config{Format: outbox.CloudEvents{}}, tables)
	if err != nil {
		t.Fatal(err)
	}
	if n := allocations(t, outbox.NewMapper(plan)); n > 20 {
		t.Errorf("%v allocations for 500 rows, want a few for the call", n)
	}
}
