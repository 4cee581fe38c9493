package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// kafkaSecurity is how we prove who we are, and learn who the broker is.
type kafkaSecurity struct {
	tls, sasl          bool
	mechanism          string
	username, password string
	caFile, keyFile    string            // PEM; empty means the system's authorities, and no certificate of our own
	jaas               map[string]string // options of sasl.jaas.config; what has a setting of its own is there instead
	oauth              kafkaOAuth
}

const (
	mechanismOAuth = "OAUTHBEARER"
	mechanismIAM   = "AWS_MSK_IAM"
)

// errSASL has no value in it: any of them may be the password in the wrong place.
func errSASL(problem, advice string) error {
	return fault.NewUsage(fmt.Errorf("the sink's URL: %s", problem), advice)
}

func (s *kafkaSecurity) setProtocol(value string) error {
	switch value {
	case "PLAINTEXT":
	case "SSL":
		s.tls = true
	case "SASL_PLAINTEXT":
		s.sasl = true
	case "SASL_SSL":
		s.tls, s.sasl = true, true
	default:
		return badValue("security.protocol", "one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL")
	}
	return nil
}

func (s *kafkaSecurity) setMechanism(value string) error {
	switch value {
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", mechanismOAuth, mechanismIAM:
		s.mechanism = value
		return nil
	default:
		return badValue("sasl.mechanism", "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, AWS_MSK_IAM")
	}
}

// setJAAS takes the options out of the text that Java clients are given:
//
//	org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="p";
func (s *kafkaSecurity) setJAAS(value string) error {
	options, err := jaasOptions(value)
	s.jaas = options
	return err
}

func jaasOptions(text string) (map[string]string, error) {
	bad := badValue("sasl.jaas.config", `…LoginModule required username="…" password="…";`)
	if !strings.Contains(text, "LoginModule") {
		return nil, bad
	}
	options := make(map[string]string)
	for {
		name, rest, found := strings.Cut(text, `="`)
		if !found {
			break
		}
		if fields := strings.Fields(name); len(fields) > 0 {
			name = fields[len(fields)-1]
		}
		value, behind, closed := quoted(rest)
		if !closed {
			return nil, bad
		}
		options[name], text = value, behind
	}
	if strings.Contains(text, "=") { // one without quotes
		return nil, bad
	}
	return options, nil
}

// quoted reads up to the closing quote; a backslash takes the next character as it is.
func quoted(text string) (value, rest string, closed bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:], true
		case text[i] == '\\' && i+1 < len(text):
			i++
		}
		b.WriteByte(text[i])
	}
	return "", "", false
}

// complete takes from sasl.jaas.config what no setting of its own says, as Java clients
// do, and gives what is wrong with all of them together.
func (s *kafkaSecurity) complete() error {
	orJAAS(&s.username, s.jaas["username"])
	orJAAS(&s.password, s.jaas["password"])
	orJAAS(&s.oauth.clientID, s.jaas["clientId"])
	orJAAS(&s.oauth.clientSecret, s.jaas["clientSecret"])
	orJAAS(&s.oauth.scope, s.jaas["scope"])
	named := s.mechanism != "" || s.username != "" || s.password != "" || s.jaas != nil || s.oauth != (kafkaOAuth{})
	switch {
	case named && !s.sasl:
		return errSASL("there are sasl settings, but security.protocol does not ask for SASL", "add security.protocol=SASL_SSL")
	case s.sasl && s.mechanism == "":
		return errSASL("security.protocol asks for SASL, but sasl.mechanism is missing", "add sasl.mechanism=SCRAM-SHA-512 or what the broker offers")
	case !s.tls && (s.caFile != "" || s.keyFile != "") && s.oauth.endpoint == "":
		return errSASL("there are ssl settings, but security.protocol does not ask for TLS", "add security.protocol=SSL")
	case !s.sasl:
		return nil
	}
	switch s.mechanism {
	case mechanismOAuth:
		return s.completeOAuth()
	case mechanismIAM:
		return s.completeIAM()
	default:
		return s.completePassword()
	}
}

func orJAAS(into *string, value string) {
	if *into == "" {
		*into = value
	}
}

func (s *kafkaSecurity) completePassword() error {
	switch {
	case s.username == "" || s.password == "":
		return errSASL("security.protocol asks for SASL, but user or password is missing", "add sasl.username and sasl.password")
	case s.oauth != (kafkaOAuth{}):
		return errSASL("there are sasl.oauthbearer settings, but sasl.mechanism is another one", "add sasl.mechanism=OAUTHBEARER or leave them out")
	default:
		return nil
	}
}

// clear says that what lets us in travels readable, and lets in who reads it.
func (s *kafkaSecurity) clear() bool {
	return s.sasl && !s.tls && (s.mechanism == "PLAIN" || s.mechanism == mechanismOAuth)
}

func (s *kafkaSecurity) mechanisms() []sasl.Mechanism {
	if !s.sasl {
		return nil
	}
	switch s.mechanism {
	case "SCRAM-SHA-256":
		return []sasl.Mechanism{scram.Auth{User: s.username, Pass: s.password}.AsSha256Mechanism()}
	case "SCRAM-SHA-512":
		return []sasl.Mechanism{scram.Auth{User: s.username, Pass: s.password}.AsSha512Mechanism()}
	case mechanismOAuth:
		return []sasl.Mechanism{s.oauthMechanism()}
	case mechanismIAM:
		return []sasl.Mechanism{s.iamMechanism()}
	default:
		return []sasl.Mechanism{plain.Auth{User: s.username, Pass: s.password}.AsMechanism()}
	}
}

// config is nil when the connection is not to be encrypted.
func (s *kafkaSecurity) config() (*tls.Config, error) {
	if !s.tls {
		return nil, nil //nolint:nilnil // no configuration is a configuration
	}
	return tlsFiles{
		authorities: s.caFile, certificate: s.keyFile, key: s.keyFile,
		trustAdvice: "check ssl.truststore.location, a PEM file; Java's stores must be converted",
		ownAdvice:   "ssl.keystore.location names a PEM file with both",
	}.config()
}

// kafkaDialer connects to brokers: through the network or a simulated one, with or
// without TLS, and always behind the barrier.
type kafkaDialer struct {
	network func(ctx context.Context, network, address string) (net.Conn, error)
	tls     *tls.Config
	barrier *barrier
	last    lastError // for who asks why nothing could be opened

	unreached lastError // the same, until a broker was reached
}

const dialTimeout = 10 * time.Second

func (d *kafkaDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := d.network(ctx, network, address)
	if err != nil {
		err = asDialError(err, network)
		d.failed(err)
		return nil, err
	}
	if conn, err = d.secure(ctx, conn, address); err != nil {
		d.failed(err)
		return nil, err
	}
	d.unreached.forget()
	return &guardedConn{Conn: conn, barrier: d.barrier}, nil
}

// failed keeps why a broker was not reached.
func (d *kafkaDialer) failed(err error) {
	d.last.set(err)
	d.unreached.set(err)
}

// asDialError gives errors of a simulated network the type of the real one's: the
// client takes any other error for one that no retry can mend, and fails messages.
func asDialError(err error, network string) error {
	if _, known := errors.AsType[*net.OpError](err); known {
		return err
	}
	return &net.OpError{Op: "dial", Net: network, Err: err}
}

func (d *kafkaDialer) secure(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	if d.tls == nil {
		return conn, nil
	}
	config := d.tls.Clone()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("secure the connection to a broker: %w", err)
	}
	config.ServerName = host
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("secure the connection to broker %s: %w", address, err)
	}
	return secured, nil
}

// options are those of the client that concern its connections.
func (d *kafkaDialer) options(s *kafkaSettings) []kgo.Opt {
	options := []kgo.Opt{kgo.Dialer(d.dial), kgo.WithHooks(d.barrier)}
	if mechanisms := s.security.mechanisms(); mechanisms != nil {
		options = append(options, kgo.SASL(mechanisms...))
	}
	return options
}
