package outbox_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// mapMessage maps a logical message.
func mapMessage(t *testing.T, mapping outbox.Mapping, content string) (sink.Message, error) {
	t.Helper()
	plan, err := outbox.NewPlan(outbox.Config{Messages: &mapping}, tables)
	if err != nil {
		t.Fatal(err)
	}
	r := row(content)
	r.Table = len(plan.Tables())
	got, err := outbox.NewMapper(plan).Map([]wal.Row{r}, nil)
	if err != nil {
		return sink.Message{}, err
	}
	return got[0], nil
}

func TestAMessageIsTheEventThatItsRowWouldBe(t *testing.T) {
	got, err := mapMessage(t, outbox.Mapping{}, `{"id": "f3", "aggregate_type": "order", "aggregate_id": 42, "event_type": "pl\u00e4ced", "payload": {"n": 1.50,  "z":"\u00e4"}, "headers": {"trace": "t", "id": "x"}, "other": [1]}`)
	if err != nil {
		t.Fatal(err)
	}
	want := sink.Message{
		Topic: "outbox.event.order", Key: []byte("42"), Value: []byte(`{"n": 1.50,  "z":"\u00e4"}`), Time: row().Time,
		Headers: []sink.Header{header("id", "f3"), header("event_type", "pläced"), header("aggregate_type", "order"), header("trace", "t"), header("outboxcdc-position", "00000000016B3748/3")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestAMessageWithoutAPayloadIsATombstone(t *testing.T) {
	for _, content := range []string{`{"aggregate_type": "o", "aggregate_id": "1", "event_type": "e", "payload": null}`, `{"aggregate_type": "o", "aggregate_id": "1", "event_type": "e"}`} {
		if got, err := mapMessage(t, outbox.Mapping{}, content); err != nil || got.Value != nil {
			t.Errorf("%s has value %q, %v; want null", content, got.Value, err)
		}
	}
}

func TestAMessageThatIsNoEventIsADataErrorThatNamesIt(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "bytes": "\x00s3cret\xff", "LATIN1": "{\"aggregate_id\": \"s3cret\xe9\"}", "blanks": "    ",
		"payload in LATIN1": "{\"aggregate_type\": \"o\", \"aggregate_id\": \"1\", \"event_type\": \"e\", \"payload\": \"s3cret\xe9\"}",
		"array":             `["s3cret"]`, "string": `"s3cret"`, "torn": `{"aggregate_id": "s3cret"`, "two": `{} {"s3cret": 1}`,
		"no key": `{"aggregate_type": "o", "event_type": "e", "payload": "s3cret"}`, "key is an object": `{"aggregate_type": "o", "aggregate_id": {"s3cret": 1}, "event_type": "e"}`,
		"half a letter": `{"aggregate_type": "o", "aggregate_id": "s3cret \ud83d", "event_type": "e"}`,
		"headers array": `{"aggregate_type": "o", "aggregate_id": "1", "event_type": "e", "headers": ["s3cret"]}`,
	} {
		_, err := mapMessage(t, outbox.Mapping{}, content)
		if fault.Classify(err) != fault.Data || err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "logical messages") {
			t.Errorf("%s: %v, want a data error without its content", name, err)
		}
	}
}
