package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// check looks at the broker and at the places of the topics that are known. What is
// bound to them AMQP does not tell; RabbitMQ's management API does, where we are given
// its URL.
func (s *rabbitSettings) check(ctx context.Context, o Options) []fault.Finding {
	var findings []fault.Finding
	if s.clear() {
		findings = append(findings, fault.Finding{
			Code: "rabbitmq.clear_password", Severity: fault.Warning, Subject: s.subject(),
			Problem: "the password is sent over connections that are not encrypted",
			Fix:     "use amqps://",
		})
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := s.connect(ctx, o)
	if err != nil {
		return append(findings, findingOf("rabbitmq.unreachable", s.subject(), err))
	}
	defer conn.bye()
	if !confirms(conn.Connection) {
		findings = append(findings, fault.Finding{
			Code: "rabbitmq.no_confirms", Severity: fault.Failure, Subject: s.subject(),
			Problem: "the broker confirms nothing that it is sent", Fix: "use RabbitMQ, which does",
		})
	}
	findings = append(findings, fault.Finding{
		Code: "rabbitmq.reachable", Severity: fault.OK, Subject: s.subject(), Problem: productOf(conn) + " answers",
	})
	places := newRabbitPlaces(s, conn, o)
	for _, topic := range s.lookedAt(o.Topics) {
		findings = append(findings, s.checkTopic(ctx, places, topic, o)...)
	}
	return findings
}

func (s *rabbitSettings) subject() string { return "rabbitmq at " + strings.Join(s.brokers, ", ") }

func productOf(conn *rabbitConn) string {
	product, _ := conn.Properties["product"].(string)
	version, _ := conn.Properties["version"].(string)
	return strings.TrimSpace(product + " " + version)
}

// lookedAt are the topics whose places are known. The exchange may be, when they are
// not: then it is looked at with a topic that is none.
func (s *rabbitSettings) lookedAt(topics []string) []string {
	if len(topics) == 0 && s.exchange != "" && !strings.Contains(s.exchange, placeTopic) {
		return []string{""}
	}
	return topics
}

func (s *rabbitSettings) checkTopic(ctx context.Context, places *rabbitPlaces, topic string, o Options) []fault.Finding {
	at := route{exchange: s.exchange, key: s.routingKey}
	if topic != "" {
		var err error
		if at, err = s.route(&Message{Topic: topic, Key: []byte("-")}); err != nil {
			return []fault.Finding{findingOf("topic.unusable", "topic "+topic, err)}
		}
	}
	if at.exchange == "" && s.routingKey != placeTopic {
		return nil // its queues are named by rows
	}
	finding := func(code string, severity fault.Severity, problem, fix string) []fault.Finding {
		return []fault.Finding{{Code: code, Severity: severity, Subject: at.place().String(), Problem: problem, Fix: fix}}
	}
	exists, err := places.look(ctx, at.place())
	switch {
	case err != nil:
		return []fault.Finding{findingOf("topic.unusable", at.place().String(), rabbitError(err))}
	case !exists && o.CreateTopics:
		return finding("topic.to_make", fault.OK, "it does not exist and will be made", "")
	case !exists:
		f := findingOf("topic.missing", at.place().String(), errNoPlace(at.place()))
		f.Problem = "it does not exist"
		return []fault.Finding{f}
	case at.exchange == "":
		return finding("topic.exists", fault.OK, "it exists", "")
	case s.management == nil:
		return finding("topic.bindings_unseen", fault.Warning,
			"it exists, but AMQP does not tell which queues are bound to it; a message that none of them takes stops the stream",
			"add management_url to the sink's URL, or look with rabbitmqctl list_bindings")
	default:
		return s.checkBindings(ctx, at, topic != "" && !strings.Contains(s.routingKey, placeKey), o)
	}
}

// binding and queue are what the management API says of them (rabbitmq.com/docs/http-api-reference).
type binding struct {
	Destination     string `json:"destination"`
	DestinationType string `json:"destination_type"`
	RoutingKey      string `json:"routing_key"`
}

type rabbitQueueInfo struct {
	Durable   bool           `json:"durable"`
	Type      string         `json:"type"`
	Arguments map[string]any `json:"arguments"`
}

// checkBindings looks at the queues that get what is sent to at: whether there is one,
// and whether it keeps what it confirmed. keyed says that the routing key is known.
func (s *rabbitSettings) checkBindings(ctx context.Context, at route, keyed bool, o Options) []fault.Finding {
	subject := at.place().String()
	var bindings []binding
	path := "exchanges/" + url.PathEscape(s.vhost) + "/" + url.PathEscape(at.exchange)
	var exchange struct {
		Type string `json:"type"`
	}
	if err := s.ask(ctx, o, path, &exchange); err != nil {
		return []fault.Finding{findingOf("rabbitmq.management", "RabbitMQ's management API", err)}
	}
	if err := s.ask(ctx, o, path+"/bindings/source", &bindings); err != nil {
		return []fault.Finding{findingOf("rabbitmq.management", "RabbitMQ's management API", err)}
	}
	var findings []fault.Finding
	bound := 0
	for _, b := range bindings {
		if keyed && !matches(exchange.Type, b.RoutingKey, at.key) {
			continue
		}
		bound++
		if b.DestinationType == "queue" {
			findings = append(findings, s.checkQueue(ctx, o, b.Destination)...)
		}
	}
	switch {
	case bound == 0 && keyed:
		return append(findings, fault.Finding{
			Code: "topic.unbound", Severity: fault.Warning, Subject: subject,
			Problem: fmt.Sprintf("no queue is bound for routing key %s, so that the first message stops the stream, unless the exchange has an alternate one", at.key),
			Fix:     "bind a durable queue for it",
		})
	case bound == 0:
		return append(findings, fault.Finding{
			Code: "topic.unbound", Severity: fault.Warning, Subject: subject,
			Problem: "no queue is bound to it, so that the first message stops the stream, unless the exchange has an alternate one",
			Fix:     "bind a durable queue to it",
		})
	case len(findings) == 0:
		return []fault.Finding{{
			Code: "topic.bound", Severity: fault.OK, Subject: subject, Problem: fmt.Sprintf("%d bindings lead on from it", bound),
		}}
	default:
		return findings
	}
}

// checkQueue says what of a queue may lose what it confirmed.
func (s *rabbitSettings) checkQueue(ctx context.Context, o Options, name string) []fault.Finding {
	var q rabbitQueueInfo
	if err := s.ask(ctx, o, "queues/"+url.PathEscape(s.vhost)+"/"+url.PathEscape(name), &q); err != nil {
		return []fault.Finding{findingOf("rabbitmq.management", "RabbitMQ's management API", err)}
	}
	var findings []fault.Finding
	warn := func(code, problem, fix string) {
		findings = append(findings, fault.Finding{Code: code, Severity: fault.Warning, Subject: "queue " + name, Problem: problem, Fix: fix})
	}
	if !q.Durable {
		warn("queue.transient", "it is not durable: a restart of the broker loses what it confirmed", "declare it anew as durable")
	}
	if q.Type == "classic" {
		warn("queue.one_copy", "it is a classic queue, on one node: the loss of that disk loses events that Postgres has forgotten", "declare it anew as a quorum queue")
	}
	_, long := q.Arguments["x-max-length"]
	_, large := q.Arguments["x-max-length-bytes"]
	if overflow, _ := q.Arguments["x-overflow"].(string); (long || large) && !strings.HasPrefix(overflow, "reject-publish") && q.Type != "stream" {
		warn("queue.drops", "when it is full it drops its oldest messages, which it had confirmed", "give it x-overflow=reject-publish: then the stream waits instead")
	}
	return findings
}

// matches says whether a binding takes a routing key. Of types that we do not know,
// each binding does.
func matches(exchangeType, pattern, key string) bool {
	switch exchangeType {
	case amqp.ExchangeDirect:
		return pattern == key
	case amqp.ExchangeTopic:
		return matchesTopic(strings.Split(pattern, "."), strings.Split(key, "."))
	default:
		return true
	}
}

// matchesTopic is RabbitMQ's rule: * is one word, # any number of them.
func matchesTopic(pattern, key []string) bool {
	switch {
	case len(pattern) == 0:
		return len(key) == 0
	case pattern[0] == "#":
		for skip := range len(key) + 1 {
			if matchesTopic(pattern[1:], key[skip:]) {
				return true
			}
		}
		return false
	case len(key) == 0 || pattern[0] != "*" && pattern[0] != key[0]:
		return false
	default:
		return matchesTopic(pattern[1:], key[1:])
	}
}

// ask reads one object of the management API. Errors hold no URL: it may hold a
// password.
func (s *rabbitSettings) ask(ctx context.Context, o Options, path string, into any) error {
	const most = 16 << 20
	address := *s.management
	user := address.User
	address.User = nil
	// What is escaped stays escaped: the virtual host / is %2F.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address.String(), "/")+"/api/"+path, http.NoBody)
	if err != nil {
		return fault.NewUsage(fmt.Errorf("ask the management API: its URL cannot be used"), "check management_url")
	}
	request.SetBasicAuth(s.username, s.password)
	if user != nil {
		password, _ := user.Password()
		request.SetBasicAuth(user.Username(), password)
	}
	secure, err := s.config()
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return o.Dial(ctx, network, address)
		},
		TLSClientConfig: secure, DisableKeepAlives: true,
	}}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the management API: %w", reasonOf(err))
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	if answer.StatusCode != http.StatusOK {
		return fault.NewOperator(fmt.Errorf("ask the management API: it answers %s", answer.Status),
			"give the user the tag monitoring, or another user in management_url")
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, most)).Decode(into); err != nil {
		return fmt.Errorf("understand the management API: %w", err)
	}
	return nil
}

// reasonOf is what went wrong, without the URL that net/http puts before it.
func reasonOf(err error) error {
	if u, ok := err.(*url.Error); ok { //nolint:errorlint // it is what Do gives
		return u.Err
	}
	return err
}
