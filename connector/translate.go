package connector

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/outbox/debezium"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Fate is what becomes of an option.
type Fate int

// The fates.
const (
	Kept     Fate = iota // an option or a flag of ours does the same
	Differs              // we do something else, which Remark says
	Needless             // what it was for does not arise
	Missing              // we cannot do it: Remark says what that means
)

// Remark says what becomes of an option.
type Remark struct {
	Option string // its full name
	Fate   Fate
	Text   string
}

// Translation is the equivalent of a connector's configuration.
type Translation struct {
	Slot        string
	Publication string
	Tables      []string // as regular expressions or names of table.include.list; empty where it is not given
	DatabaseURL string   // without a password; empty where no host is given
	Sink        string   // kafka://… ; without brokers where the configuration names none
	Format      []debezium.Option
	Remarks     []Remark // one for each option, in order of name
}

// Settled says that nothing is Missing.
func (t *Translation) Settled() bool {
	return !slices.ContainsFunc(t.Remarks, func(r Remark) bool { return r.Fate == Missing })
}

// translator works through the options of one configuration.
type translator struct {
	options map[string]string
	router  string // transforms.NAME. of the router
	decoder string // of the transform that decodes logical messages
	out     Translation
}

const (
	routerClass  = "io.debezium.transforms.outbox.EventRouter"
	decoderClass = "io.debezium.connector.postgresql.transforms.DecodeLogicalDecodingMessageContent"
	source       = "io.debezium.connector.postgresql.PostgresConnector"
)

// Translate gives the equivalent of a configuration. The error is a usage error: the
// connector is none that could be taken over.
func Translate(c Config) (Translation, error) {
	t := translator{options: c.Options}
	if class, given := c.Options["connector.class"]; given && class != source && class != "postgres" {
		return Translation{}, fault.NewUsage(errForeign, "outboxcdc takes over connectors of "+source+" alone")
	}
	for name := range strings.SplitSeq(c.Options["transforms"], ",") {
		prefix := "transforms." + strings.TrimSpace(name) + "."
		switch c.Options[prefix+"type"] {
		case routerClass:
			t.router = prefix
		case decoderClass:
			t.decoder = prefix
		}
	}
	if t.router == "" {
		return Translation{}, fault.NewUsage(errNoRouter, "outboxcdc streams outbox tables: only connectors with the transform "+routerClass+" have an equivalent")
	}
	t.out.Slot = t.or("slot.name", "debezium")
	t.out.Publication = t.or("publication.name", "dbz_publication")
	t.tables()
	t.database()
	t.brokers()
	names := make([]string, 0, len(t.options))
	for name := range t.options {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.judge(name, t.options[name])
	}
	t.defaults()
	return t.out, nil
}

func (t *translator) or(name, fallback string) string {
	if value := strings.TrimSpace(t.options[name]); value != "" {
		return value
	}
	return fallback
}

func (t *translator) tables() {
	for entry := range strings.SplitSeq(t.options["table.include.list"], ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			t.out.Tables = append(t.out.Tables, strings.ReplaceAll(entry, `\.`, "."))
		}
	}
}

// database gives a URL without the password, which belongs into the environment.
func (t *translator) database() {
	host := t.or("database.hostname", "")
	if host == "" {
		return
	}
	u := url.URL{Scheme: "postgres", Host: host, Path: "/" + t.or("database.dbname", "postgres")}
	if port := t.or("database.port", ""); port != "" {
		u.Host = net.JoinHostPort(host, port)
	}
	if user := t.or("database.user", ""); user != "" {
		u.User = url.User(user)
	}
	query := url.Values{}
	for _, pair := range [...][2]string{
		{"database.sslmode", "sslmode"},
		{"database.sslrootcert", "sslrootcert"},
		{"database.sslcert", "sslcert"},
		{"database.sslkey", "sslkey"},
	} {
		if value := t.or(pair[0], ""); value != "" {
			query.Set(pair[1], strings.ReplaceAll(value, "_", "-"))
		}
	}
	u.RawQuery = query.Encode()
	t.out.DatabaseURL = u.String()
}

// producerPrefix begins options of the producer that Connect hands through.
const producerPrefix = "producer.override."

// sinkSettings are the producer's options that the sink's URL takes under the same
// name.
func sinkSettings() []string {
	return []string{
		"linger.ms", "compression.type", "max.request.size", "request.timeout.ms", "client.id", "security.protocol",
		"sasl.mechanism", "ssl.truststore.location", "ssl.keystore.location",
	}
}

func (t *translator) brokers() {
	u := url.URL{Scheme: "kafka", Host: t.or(producerPrefix+"bootstrap.servers", "")}
	query := url.Values{}
	for _, name := range sinkSettings() {
		if value := t.or(producerPrefix+name, ""); value != "" {
			query.Set(name, value)
		}
	}
	u.RawQuery = query.Encode()
	t.out.Sink = u.String()
}

// defaults says what a connector does where an option is not given and we differ.
func (t *translator) defaults() {
	if _, given := t.options["plugin.name"]; !given {
		t.judge("plugin.name", "decoderbufs")
	}
	if _, given := t.options["snapshot.mode"]; !given {
		t.judge("snapshot.mode", "initial")
	}
	for _, part := range []string{"key.converter", "value.converter"} {
		if _, given := t.options[part]; !given {
			t.remark(part, Differs, "it is not given here, so the Connect worker's counts: find it there, and set it as an option of --debezium; until then it is JSON with schemas, Connect's own")
		}
	}
	slices.SortStableFunc(t.out.Remarks, func(a, b Remark) int { return strings.Compare(a.Option, b.Option) })
}

func (t *translator) remark(option string, fate Fate, text string) {
	t.out.Remarks = append(t.out.Remarks, Remark{option, fate, text})
}

// judge says what becomes of one option.
func (t *translator) judge(name, value string) {
	if rest, ofRouter := strings.CutPrefix(name, t.router); ofRouter {
		t.judgeRouter(name, rest, value)
		return
	}
	if t.decoder != "" && strings.HasPrefix(name, t.decoder) {
		t.remark(name, Kept, "logical messages are read with it")
		return
	}
	if debezium.Shapes(name) {
		t.shape(name, name, value)
		return
	}
	for _, rule := range rules() {
		if rule.matches(name, value) {
			t.remark(name, rule.fate, rule.text)
			return
		}
	}
	t.remark(name, Missing, "outboxcdc does not know it: find out what it does before you move")
}

func (t *translator) shape(full, name, value string) {
	option := debezium.Option{Name: name, Value: value}
	if _, err := debezium.ParseOptions([]debezium.Option{option}); err != nil {
		t.remark(full, Missing, "outboxcdc cannot do that: "+err.Error())
		return
	}
	t.out.Format = append(t.out.Format, option)
	t.remark(full, Kept, "an option of --debezium, by the same name")
}

func (t *translator) judgeRouter(full, name, value string) {
	switch {
	case debezium.Shapes(name):
		t.shape(full, name, value)
	case name == "type":
		t.remark(full, Kept, "--format debezium")
	case name == "table.field.event.type":
		t.remark(full, Needless, "the router itself uses it for nothing; a placement of that column makes it a header")
	case name == "table.op.invalid.behavior":
		t.remark(full, Differs, "only inserts are events: updates are passed over without a word, and never stop the stream")
	case name == "table.json.payload.empty.array.behavior" && value == "ignore":
		t.remark(full, Kept, "empty arrays are left out of an expanded payload")
	case name == "predicate" || name == "negate":
		t.remark(full, Needless, "only the tables of --table are read")
	case strings.HasPrefix(name, "tracing."):
		t.remark(full, Differs, "a traceparent goes on as a header when its column is placed as one; spans are not read from java.util.Properties")
	default:
		t.remark(full, Missing, "outboxcdc does not know this option of the router")
	}
}
