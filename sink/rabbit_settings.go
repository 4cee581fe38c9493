package sink

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Defaults of the settings that ride in the URL.
const (
	defaultExchange     = "outbox"
	defaultExchangeType = "topic"
	defaultQueueType    = "quorum" // has copies; a classic queue has one
	defaultRoutingKey   = placeTopic

	// defaultMaxMessage is what RabbitMQ 4 takes by default (max_message_size); a
	// server closes the channel at a larger one, whatever else is on it.
	defaultMaxMessage = 16 << 20

	defaultHeartbeat = 10 * time.Second
	defaultAMQPPort  = "5672"
	defaultAMQPSPort = "5671"
	maxShortString   = 255 // bytes of a name, a routing key and a property (AMQP 0-9-1, 4.2.5.3)
)

// Places in the templates of exchange and routing key that a message fills.
const (
	placeTopic = "{topic}"
	placeKey   = "{key}"
)

// rabbitSettings is an amqp:// or amqps:// URL, understood.
type rabbitSettings struct {
	brokers            []string
	username, password string
	vhost              string
	external           bool // who we are is what our certificate says
	tls                bool
	caFile             string // PEM; empty means the system's authorities
	certFile, keyFile  string

	exchange     string // a template; empty is the broker's own exchange, which knows queues by name
	routingKey   string // a template
	exchangeType string
	queueType    string
	maxMessage   int
	heartbeat    time.Duration
	management   *url.URL // of the API that check asks; nil to not ask
}

func init() {
	for scheme, port := range map[string]string{"amqp": defaultAMQPPort, "amqps": defaultAMQPSPort} {
		register(scheme, kind{
			example:       scheme + "://user:password@host:" + port + "/vhost",
			unpartitioned: true,
			parse: func(address, query string) (target, error) {
				return parseRabbit(address, query, scheme == "amqps")
			},
		})
	}
}

// rabbitKnows are settings under the names of RabbitMQ's own URIs where those have
// one (rabbitmq.com/docs/uri-query-parameters).
var rabbitKnows = settings[*rabbitSettings]{rabbitSetters, rabbitFixed} //nolint:gochecknoglobals // a table that nobody changes

var rabbitSetters = map[string]func(s *rabbitSettings, value string) error{ //nolint:gochecknoglobals // as above
	"auth_mechanism":   setAuthMechanism,
	"cacertfile":       func(s *rabbitSettings, v string) error { s.caFile = v; return nil },
	"certfile":         func(s *rabbitSettings, v string) error { s.certFile = v; return nil },
	"exchange":         setExchange,
	"exchange_type":    setExchangeType,
	"heartbeat":        setHeartbeat,
	"keyfile":          func(s *rabbitSettings, v string) error { s.keyFile = v; return nil },
	"management_url":   setManagement,
	"max_message_size": setMaxMessage,
	"queue_type":       setQueueType,
	"routing_key":      setRoutingKey,
}

// rabbitFixed are names that cannot be set here, and why.
var rabbitFixed = map[string]string{ //nolint:gochecknoglobals,gosec // as above, and it holds no password
	"channel_max":            "one channel keeps the order",
	"connection_timeout":     "a broker that does not answer is asked again",
	"delivery_mode":          "messages are persistent",
	"mandatory":              "a message that no queue takes is a failure, not a loss",
	"verify":                 "the broker's certificate is always verified; trust its authority with cacertfile",
	"server_name_indication": "it is the name of the host",
	"password":               "it stands in front of the host: amqps://user:password@host",
}

// parseRabbit understands user:password@host:port,host:port/vhost and
// name=value&name=value.
func parseRabbit(address, query string, secure bool) (target, error) {
	s := &rabbitSettings{
		username: "guest", password: "guest", vhost: "/", tls: secure,
		exchange: defaultExchange, routingKey: defaultRoutingKey,
		exchangeType: defaultExchangeType, queueType: defaultQueueType,
		maxMessage: defaultMaxMessage, heartbeat: defaultHeartbeat,
	}
	if err := s.readAddress(address); err != nil {
		return nil, err
	}
	if err := rabbitKnows.read(s, query); err != nil {
		return nil, err
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// readAddress never repeats what it reads: the password may be anywhere in it.
func (s *rabbitSettings) readAddress(address string) error {
	const advice = "write amqp://user:…@host:5672/vhost, with % escapes for characters such as @ and / in user, password and vhost"
	if at := strings.LastIndex(address, "@"); at >= 0 {
		user, password, _ := strings.Cut(address[:at], ":")
		var userErr, passwordErr error
		s.username, userErr = url.PathUnescape(user)
		s.password, passwordErr = url.PathUnescape(password)
		if userErr != nil || passwordErr != nil || s.username == "" || strings.ContainsAny(address[:at], "@/") {
			return fault.NewUsage(errors.New("the sink's URL: user and password cannot be read"), advice)
		}
		address = address[at+1:]
	}
	hosts, vhost, named := strings.Cut(address, "/")
	if named && vhost != "" {
		unescaped, err := url.PathUnescape(vhost)
		if err != nil || strings.Contains(vhost, "/") {
			return fault.NewUsage(errors.New("the sink's URL: the virtual host cannot be read"), advice)
		}
		s.vhost = unescaped
	}
	port := defaultAMQPPort
	if s.tls {
		port = defaultAMQPSPort
	}
	var err error
	s.brokers, err = parseBrokers(hosts, port, advice)
	return err
}

func (s *rabbitSettings) validate() error {
	switch {
	case !s.tls && (s.caFile != "" || s.certFile != "" || s.keyFile != ""):
		return fault.NewUsage(errors.New("the sink's URL: there are certificates, but amqp:// asks for no TLS"), "write amqps://")
	case (s.certFile == "") != (s.keyFile == ""):
		return fault.NewUsage(errors.New("the sink's URL: certfile and keyfile go together"), "give both")
	case s.external && s.certFile == "":
		return fault.NewUsage(errors.New("the sink's URL: auth_mechanism=external says who we are by our certificate, which is missing"), "add certfile and keyfile")
	case s.exchange == "" && s.routingKey == "":
		return fault.NewUsage(errors.New("the sink's URL: without an exchange the routing key names the queue, and it is empty"), "set routing_key={topic}")
	case s.exchange == "" && strings.Contains(s.routingKey, placeKey):
		return fault.NewUsage(errors.New("the sink's URL: without an exchange the routing key names the queue, and with {key} a row could name any"), "set routing_key={topic}, or an exchange")
	default:
		return nil
	}
}

// clear says that the password travels readable through a network.
func (s *rabbitSettings) clear() bool {
	if s.tls || s.external {
		return false
	}
	for _, broker := range s.brokers {
		host, _, err := net.SplitHostPort(broker)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return true
		}
	}
	return false
}

// config is nil when the connection is not to be encrypted.
func (s *rabbitSettings) config() (*tls.Config, error) {
	if !s.tls {
		return nil, nil //nolint:nilnil // no configuration is a configuration
	}
	return tlsFiles{
		authorities: s.caFile, certificate: s.certFile, key: s.keyFile,
		trustAdvice: "check cacertfile, a PEM file",
		ownAdvice:   "certfile and keyfile name PEM files",
	}.config()
}

func setAuthMechanism(s *rabbitSettings, value string) error {
	switch strings.ToLower(value) {
	case "plain":
		s.external = false
	case "external":
		s.external = true
	default:
		return badValue("auth_mechanism", "plain or external")
	}
	return nil
}

// setExchange takes a template. A name that begins with amq. is the broker's own.
func setExchange(s *rabbitSettings, value string) error {
	if err := checkPlaces("exchange", value, placeTopic); err != nil {
		return err
	}
	s.exchange = value
	return nil
}

func setRoutingKey(s *rabbitSettings, value string) error {
	if err := checkPlaces("routing_key", value, placeTopic, placeKey); err != nil {
		return err
	}
	s.routingKey = value
	return nil
}

// checkPlaces refuses braces other than those of places, and what is too long before
// anything is filled in.
func checkPlaces(name, template string, places ...string) error {
	literal := template
	for _, place := range places {
		literal = strings.ReplaceAll(literal, place, "")
	}
	if strings.ContainsAny(literal, "{}") || len(literal) > maxShortString {
		return badValue(name, fmt.Sprintf("up to %d characters with %s for what a message fills in", maxShortString, strings.Join(places, " and ")))
	}
	return nil
}

func setExchangeType(s *rabbitSettings, value string) error {
	if value == "" || len(value) > maxShortString {
		return badValue("exchange_type", "a type such as topic, direct, fanout, headers or x-consistent-hash")
	}
	s.exchangeType = value
	return nil
}

func setQueueType(s *rabbitSettings, value string) error {
	switch value {
	case "quorum", "classic", "stream":
		s.queueType = value
		return nil
	default:
		return badValue("queue_type", "quorum, classic or stream")
	}
}

func setMaxMessage(s *rabbitSettings, value string) error {
	const least, most = 1 << 10, 512 << 20 // the largest that a server can be set to
	number, err := strconv.ParseInt(value, 10, 32)
	if err != nil || number < least || number > most {
		return badValue("max_message_size", fmt.Sprintf("a number of bytes from %d to %d", least, most))
	}
	s.maxMessage = int(number)
	return nil
}

func setManagement(s *rabbitSettings, value string) error {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return badValue("management_url", "the address of RabbitMQ's management API, such as http://host:15672")
	}
	s.management = u
	return nil
}

func setHeartbeat(s *rabbitSettings, value string) error {
	const least, most = 1, 3600
	number, err := strconv.Atoi(value)
	if err != nil || number < least || number > most {
		return badValue("heartbeat", fmt.Sprintf("a number of seconds from %d to %d", least, most))
	}
	s.heartbeat = time.Duration(number) * time.Second
	return nil
}
