package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/connector"
	"github.com/outboxcdc/outboxcdc/outbox/debezium"
)

// TestMigrateDebeziumPrintsSettingsThatConfigReads: what is printed comes back as it
// was, though --config puts the environment in the place of ${NAME}.
func TestMigrateDebeziumPrintsSettingsThatConfigReads(t *testing.T) {
	translation := connector.Translation{
		Slot: "orders", Publication: "it's", DatabaseURL: "postgres://cdc@db/shop", Sink: "kafka://b1:9092",
		Format: []debezium.Option{{Name: "route.topic.replacement", Value: "${routedByValue}.$1"}, {Name: "topic.prefix", Value: "a: b # c"}},
	}
	var out strings.Builder
	if err := printTranslation(&out, "orders", &translation, []string{`public."Outbox"`}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "outboxcdc.yaml")
	if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := readSettings(file, (&program{}).knownFlags())
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	for name, want := range map[string][]string{
		"slot": {"orders"}, "publication": {"it's"}, "sink": {"kafka://b1:9092"}, "table": {`public."Outbox"`}, "format": {"debezium"},
		"debezium": {"route.topic.replacement=${routedByValue}.$1", "topic.prefix=a: b # c"},
	} {
		if got := settings[name].values; !slices.Equal(got, want) {
			t.Errorf("%s is read as %q, want %q", name, got, want)
		}
	}
}
