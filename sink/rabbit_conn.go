package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// rabbitConn is one connection to a broker.
type rabbitConn struct {
	*amqp.Connection

	broker string   // host and port
	socket net.Conn // under the connection; deadlines on it end calls that hang
}

// connect tries the brokers one after the other until one takes us. What one of them
// refuses for good the others refuse too.
func (s *rabbitSettings) connect(ctx context.Context, o Options) (*rabbitConn, error) {
	secure, err := s.config()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, broker := range s.brokers {
		conn, err := s.connectTo(ctx, o, broker, secure)
		if err == nil {
			return conn, nil
		}
		err = s.loginError(fmt.Errorf("connect to rabbitmq at %s: %w", broker, err), secure)
		if fault.Classify(err) == fault.Operator {
			return nil, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (s *rabbitSettings) connectTo(ctx context.Context, o Options, broker string, secure *tls.Config) (*rabbitConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	socket, err := o.Dial(ctx, "tcp", broker)
	if err != nil {
		return nil, err
	}
	// Whatever waits for the broker from here on ends with ctx.
	release := context.AfterFunc(ctx, func() { hangUp(socket) })
	conn, err := s.introduce(ctx, socket, broker, secure)
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	return &rabbitConn{Connection: conn, broker: broker, socket: socket}, nil
}

// introduce secures the connection and opens AMQP on it.
func (s *rabbitSettings) introduce(ctx context.Context, socket net.Conn, broker string, secure *tls.Config) (*amqp.Connection, error) {
	if secure != nil {
		host, _, err := net.SplitHostPort(broker)
		if err != nil {
			return nil, err
		}
		c := secure.Clone()
		c.ServerName = host
		secured := tls.Client(socket, c)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		socket = secured
	}
	heard := &hearing{Conn: socket}
	properties := amqp.NewConnectionProperties()
	properties["connection_name"] = "outboxcdc"
	properties["product"] = "outboxcdc"
	conn, err := amqp.Open(heard, amqp.Config{
		SASL:       []amqp.Authentication{s.authentication()},
		Vhost:      s.vhost,
		Heartbeat:  s.heartbeat,
		FrameSize:  rabbitFrameBytes,
		ChannelMax: 8,
		Properties: properties,
		Locale:     "en_US",
	})
	if why, ok := errors.AsType[*net.OpError](heard.last.get()); err != nil && ok && why.Op == "remote error" { // as in brokerTLSError
		return nil, why
	}
	return conn, err
}

// hearing remembers why the other side broke off, of which the client keeps the text
// only. With TLS 1.3 a certificate of ours is refused after the handshake.
type hearing struct {
	net.Conn
	last lastError
}

// Read is net.Conn's.
func (h *hearing) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if err != nil {
		h.last.set(err)
	}
	return n, err
}

func (s *rabbitSettings) authentication() amqp.Authentication {
	if s.external {
		return &amqp.ExternalAuth{}
	}
	return &amqp.PlainAuth{Username: s.username, Password: s.password}
}

// hangUp ends what waits on the connection, in either direction.
func hangUp(socket net.Conn) {
	socket.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // then it is closed already
}

// during calls do, which waits for the broker and takes no context, and hangs up when
// ctx ends before it.
func (c *rabbitConn) during(ctx context.Context, do func() error) error {
	release := context.AfterFunc(ctx, func() { hangUp(c.socket) })
	err := do()
	if !release() && err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

// bye closes the connection in order, or after a second in any way.
func (c *rabbitConn) bye() {
	const patience = time.Second
	last := time.AfterFunc(patience, func() { c.socket.Close() })
	c.CloseDeadline(time.Now().Add(patience)) //nolint:errcheck // it may be broken
	last.Stop()
	c.socket.Close()
}

// loginError is rabbitError while we introduce ourselves. Where our certificate says who
// we are, passwords are no part of it, and users are the broker's names for certificates.
func (s *rabbitSettings) loginError(err error, secure *tls.Config) error {
	closed, ok := errors.AsType[*amqp.Error](err)
	switch {
	case !s.external || !ok:
		return rabbitError(err)
	case errors.Is(err, amqp.ErrSASL):
		return fault.NewOperator(err, "the broker offers no login by certificate: rabbitmq-plugins enable rabbitmq_auth_mechanism_ssl, have auth_mechanisms.1 = EXTERNAL in its configuration, and let nobody between end TLS")
	case closed.Code == amqp.AccessRefused:
		return fault.NewOperator(err, fmt.Sprintf("our certificate is of %s: make the user that the broker takes that for, or for its common name where ssl_cert_login_from says so, with rabbitmqctl add_user, clear_password and set_permissions",
			secure.Certificates[0].Leaf.Subject))
	default:
		return rabbitError(err)
	}
}

// rabbitError gives err a class where who we are, or what is set up in the broker, is
// the trouble. The rest may mend itself. The codes are AMQP's (0-9-1, 1.2).
func rabbitError(err error) error {
	var closed *amqp.Error
	switch {
	case errors.Is(err, amqp.ErrSASL):
		return fault.NewOperator(err, "the broker offers no login with a password; set auth_mechanism=external with a certificate")
	case !errors.As(err, &closed):
		return brokerTLSError(err, "cacertfile", "certfile")
	}
	switch closed.Code {
	case amqp.AccessRefused:
		return fault.NewOperator(err, "check user and password in the sink's URL, and grant the user write on the exchange: rabbitmqctl set_permissions")
	case amqp.NotAllowed:
		return fault.NewOperator(err, "check the virtual host in the sink's URL, and the user's permissions on it")
	case amqp.NotFound:
		return fault.NewOperator(err, "find out who deleted it, and make it anew")
	case amqp.PreconditionFailed:
		return fault.NewOperator(err, "look at the broker's log and max_message_size, and set max_message_size in the sink's URL to the broker's")
	default:
		return err
	}
}
