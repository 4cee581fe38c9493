package connector

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outboxcdc/outboxcdc/outbox/debezium"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func TestReadTakesWhatConnectAndDebeziumServerTake(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       Config
	}{
		{
			"an object", `{"name": "o", "slot.name": "s", "tasks.max": 1, "x": true}`,
			Config{"o", map[string]string{"name": "o", "slot.name": "s", "tasks.max": "1", "x": "true"}},
		},
		{"what is posted", ` {"name": "orders", "config": {"slot.name": "s"}}`, Config{"orders", map[string]string{"slot.name": "s"}}},
		{
			"what GET answers", `{"name": "orders", "config": {"slot.name": "s", "name": "orders"}, "tasks": [{"connector": "orders", "task": 0}], "type": "source"}`,
			Config{"orders", map[string]string{"slot.name": "s", "name": "orders"}},
		},
		{
			"properties", "# a comment\n! another\nname=orders\r\nslot.name : s \n  a b\nlist = x,\\\n   y\nregex=a\\\\.b\\u0041\nkey\\=1=v\nempty=\n",
			Config{"orders", map[string]string{"name": "orders", "slot.name": "s", "a": "b", "list": "x,y", "regex": `a\.bA`, "key=1": "v", "empty": ""}},
		},
		{
			"Debezium Server", "debezium.source.slot.name=s\ndebezium.sink.type=kafka\ndebezium.sink.kafka.producer.bootstrap.servers=b:9092\n" +
				"debezium.format.value=simplestring\ndebezium.format.key=json\ndebezium.format.key.schemas.enable=false\n" +
				"debezium.transforms=outbox\ndebezium.transforms.outbox.route.topic.replacement=$${routedByValue}\n",
			Config{"", map[string]string{
				"slot.name": "s", "sink.type": "kafka", "producer.override.bootstrap.servers": "b:9092", "value.converter": "string",
				"key.converter": "json-schema", "key.converter.schemas.enable": "false", "header.converter": "json-schema",
				"transforms": "outbox", "transforms.outbox.route.topic.replacement": "${routedByValue}",
			}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Read([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadRefusesWhatIsNoConfiguration(t *testing.T) {
	for _, text := range []string{
		"", "{}", "{", `{"a": "1", "a": "2"}`, `{"a": {"b": 1}}`, `{"a": 1} {"b": 2}`, `{"name": 1, "config": {"a": "b"}}`,
		"a=1\na=2", "=x", `a=\u12`, strings.Repeat("x", maxBytes+1),
	} {
		if _, err := Read([]byte(text)); fault.Classify(err) != fault.Usage {
			t.Errorf("%.40q is read: %v, want a usage error", text, err)
		}
	}
}

// outboxConnector is a usual connector, with options on top.
func outboxConnector(more map[string]string) Config {
	options := map[string]string{
		"connector.class":   source,
		"plugin.name":       "pgoutput",
		"snapshot.mode":     "no_data",
		"database.hostname": "db", "database.port": "5433", "database.user": "cdc", "database.password": "s3cret", "database.dbname": "shop",
		"database.sslmode":   "verify-full",
		"topic.prefix":       "shop",
		"slot.name":          "orders",
		"publication.name":   "orders_pub",
		"table.include.list": `sales\.outbox`,
		"key.converter":      "org.apache.kafka.connect.storage.StringConverter", "value.converter": "org.apache.kafka.connect.storage.StringConverter",
		"transforms":             "outbox",
		"transforms.outbox.type": routerClass,
		"transforms.outbox.table.fields.additional.placement":       "type:header:eventType",
		"producer.override.bootstrap.servers":                       "b1:9092,b2:9092",
		"producer.override.compression.type":                        "lz4",
		"heartbeat.interval.ms":                                     "10000",
		"transforms.outbox.route.topic.replacement":                 "${routedByValue}.events",
		"transforms.outbox.table.op.invalid.behavior":               "warn",
		"transforms.outbox.table.json.payload.empty.array.behavior": "ignore",
	}
	maps.Copy(options, more)
	return Config{Name: "orders", Options: options}
}

func TestTranslateGivesTheEquivalent(t *testing.T) {
	got, err := Translate(outboxConnector(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := Translation{
		Slot: "orders", Publication: "orders_pub", Tables: []string{"sales.outbox"},
		DatabaseURL: "postgres://cdc@db:5433/shop?sslmode=verify-full",
		Sink:        "kafka://b1:9092,b2:9092?compression.type=lz4",
		Format: []debezium.Option{
			{Name: "key.converter", Value: "org.apache.kafka.connect.storage.StringConverter"},
			{Name: "topic.prefix", Value: "shop"},
			{Name: "route.topic.replacement", Value: "${routedByValue}.events"},
			{Name: "table.fields.additional.placement", Value: "type:header:eventType"},
			{Name: "value.converter", Value: "org.apache.kafka.connect.storage.StringConverter"},
		},
	}
	remarks := got.Remarks
	got.Remarks = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("translation (-want +got):\n%s", diff)
	}
	if len(remarks) != len(outboxConnector(nil).Options) {
		t.Errorf("%d remarks for %d options: some are passed over in silence", len(remarks), len(outboxConnector(nil).Options))
	}
	if !(&Translation{Remarks: remarks}).Settled() {
		t.Errorf("a usual connector has no equivalent: %v", remarks)
	}
}

// TestTranslateNamesWhatHasNoEquivalent: each of these would change what consumers
// see, or lose the slot, were it passed over.
func TestTranslateNamesWhatHasNoEquivalent(t *testing.T) {
	for name, value := range map[string]string{
		"plugin.name":                                               "decoderbufs",
		"slot.drop.on.stop":                                         "true",
		"value.converter":                                           "io.confluent.connect.avro.AvroConverter",
		"transforms.rename.type":                                    "org.apache.kafka.connect.transforms.RegexRouter",
		"column.mask.hash.v2.SHA-256.with.salt.x":                   "public.outbox.payload",
		"post.processors":                                           "x",
		"schema.name.adjustment.mode":                               "avro",
		"transforms.outbox.route.topic.regex":                       "(?<a>",
		"transforms.outbox.no.such.option":                          "x",
		"no.such.option":                                            "x",
		"producer.override.ssl.engine.factory.class":                "x",
		"key.converter.decimal.format":                              "NUMERIC",
		"transforms.outbox.table.json.payload.empty.array.behavior": "optional_string",
	} {
		got, err := Translate(outboxConnector(map[string]string{name: value}))
		if err != nil {
			t.Fatal(err)
		}
		missing := false
		for _, r := range got.Remarks {
			missing = missing || r.Option == name && r.Fate == Missing && r.Text != ""
		}
		if !missing || got.Settled() {
			t.Errorf("%s=%s counts as settled", name, value)
		}
	}
}

// TestTranslateSaysWhatDefaultsMean: an option that is absent has a default in
// Debezium, and some of those cannot be taken over.
func TestTranslateSaysWhatDefaultsMean(t *testing.T) {
	config := outboxConnector(nil)
	for _, name := range []string{"plugin.name", "snapshot.mode", "value.converter"} {
		delete(config.Options, name)
	}
	got, err := Translate(config)
	if err != nil {
		t.Fatal(err)
	}
	fates := map[string]Fate{}
	for _, r := range got.Remarks {
		fates[r.Option] = r.Fate
	}
	if fates["plugin.name"] != Missing || fates["snapshot.mode"] != Differs || fates["value.converter"] != Differs {
		t.Errorf("absent options are judged %v", fates)
	}
}

func TestTranslateRefusesOtherConnectors(t *testing.T) {
	for _, more := range []map[string]string{
		{"connector.class": "io.debezium.connector.mysql.MySqlConnector"},
		{"transforms.outbox.type": "io.debezium.transforms.ByLogicalTableRouter"},
	} {
		if _, err := Translate(outboxConnector(more)); fault.Classify(err) != fault.Usage {
			t.Errorf("%v is translated: %v", more, err)
		}
	}
}

// FuzzRead: whatever a file holds, reading and translating it ends, gives a usage
// error or a translation that says something of every option, and never repeats the
// password.
func FuzzRead(f *testing.F) {
	text, err := json.Marshal(outboxConnector(nil).Options)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"name": "orders", "config": {"transforms": "o", "transforms.o.type": "` + routerClass + `"}}`))
	f.Add([]byte("name=orders\ntransforms=o\ntransforms.o.type=" + routerClass + "\ndatabase.password=p\\\n  q\n"))
	f.Add([]byte("debezium.source.slot.name=s\ndebezium.transforms=o\ndebezium.transforms.o.type=" + routerClass + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		config, err := Read(text)
		if err != nil {
			if fault.Classify(err) != fault.Usage {
				t.Fatalf("%v is no usage error", err)
			}
			return
		}
		password := "s3cret-p4ssword"
		config.Options["database.password"] = password
		got, err := Translate(config)
		if err != nil {
			if fault.Classify(err) != fault.Usage {
				t.Fatalf("%v is no usage error", err)
			}
			return
		}
		if strings.Contains(fmt.Sprint(got), password) {
			t.Fatal("the translation repeats the password")
		}
		judged := map[string]bool{}
		for _, r := range got.Remarks {
			judged[r.Option] = true
		}
		for name := range config.Options {
			if !judged[name] {
				t.Fatalf("option %q is passed over in silence", name)
			}
		}
	})
}
