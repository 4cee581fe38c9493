package sink

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// FuzzRabbitMessage routes a message of any topic, key and header. None reaches the
// broker's own exchange where another was configured, nor what is the broker's own, and
// what RabbitMQ or a consumer goes by is ours.
func FuzzRabbitMessage(f *testing.F) {
	f.Add("order", "42", "CC", []byte("elsewhere"))
	f.Add("amq.direct", "amq.gen-x", "x-death", []byte("1"))
	f.Add("", "", "", []byte(nil))
	f.Add("{key}", "{topic}", "outboxcdc-key", []byte("forged"))
	f.Add("amq.rabbitmq.reply-to", "\xff", "timestamp_in_ms", []byte("7"))
	f.Add("a", "k", "outboxcdc-null", []byte("x"))
	f.Add("a", "k", "x-opt-deaths", []byte("x"))
	var all []*rabbitSettings
	for _, url := range []string{"amqp://h", "amqp://h?exchange=", "amqp://h?exchange={topic}&routing_key={key}", "amqp://h?exchange=e.{topic}&routing_key={topic}.{key}"} {
		all = append(all, rabbitOf(f, url))
	}
	f.Fuzz(func(t *testing.T, topic, key, header string, value []byte) {
		m := Message{Topic: topic, Key: []byte(key), Time: time.UnixMilli(5)}
		m.Headers = []Header{{Key: header, Value: value}, {Key: "outboxcdc-position", Value: []byte("ours")}}
		for _, s := range all {
			r, err := s.route(&m)
			if err != nil {
				continue
			}
			switch {
			case r.exchange == "" && (s.exchange != "" || r.key != topic || strings.HasPrefix(r.key, "amq.")):
				t.Errorf("topic %q and key %q reach queue %q", topic, key, r.key)
			case strings.HasPrefix(r.exchange, "amq."), s.exchange == "outbox" && r.exchange != "outbox":
				t.Errorf("topic %q and key %q reach exchange %q", topic, key, r.exchange)
			}
		}
		table := publishing(&m).Headers
		if fmt.Sprint(table[rabbitKeyHeader]) != fmt.Sprint(tableValue(m.Key)) || table[rabbitTimeHeader] != int64(5) || table[rabbitNullHeader] != true {
			t.Errorf("header %q forges what is ours: %v", header, table)
		}
		for _, name := range []string{"CC", "BCC", "x-death", "x-received-from"} {
			if _, there := table[name]; there {
				t.Errorf("header %q is sent", name)
			}
		}
		if err := table.Validate(); err != nil {
			t.Errorf("RabbitMQ would not take the headers: %v", err)
		}
	})
}
