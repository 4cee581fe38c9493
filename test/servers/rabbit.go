package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitServer is a running RabbitMQ: one node, without TLS unless its Config says so,
// whose user may do everything in the virtual host "/".
type RabbitServer struct {
	machine machine
	url     string // amqp://user:password@host:port/
	secure  string // host and port of the listener for TLS; empty when there is none
	shared  bool   // several tests use it, so none may disturb it

	// ctl runs rabbitmqctl and gives what it printed; nil when the server was given.
	ctl func(ctx context.Context, args ...string) (string, error)
}

// rabbitImage is the release for Docker.
const rabbitImage = "rabbitmq:4.1"

// rabbitUser is the user of servers that we run, with the password of the same name:
// they listen on the loopback and hold nothing.
const rabbitUser = "outboxcdc"

// StartRabbit runs a RabbitMQ for a program that is not a test. Close ends it.
func StartRabbit(ctx context.Context, c Config) (*RabbitServer, error) {
	if text := os.Getenv(EnvRabbitURL); text != "" {
		return givenRabbit(ctx, text, c)
	}
	if dockerAnswers() && len(c.Plugins) == 0 {
		return retried(func() (*RabbitServer, error) { return dockerRabbit(ctx, c) })
	}
	r, err := embeddedRabbit(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("run an embedded RabbitMQ: %w; %s names a running one, and Docker is used when its daemon answers", err, EnvRabbitURL)
	}
	return r, nil
}

// givenRabbit takes the server that the environment names.
func givenRabbit(ctx context.Context, text string, c Config) (*RabbitServer, error) {
	if len(c.Settings)+len(c.Plugins) > 0 {
		return nil, fmt.Errorf("this test wants a RabbitMQ with settings of its own, which the one that %s names need not have; unset the variable", EnvRabbitURL)
	}
	if _, err := amqp.ParseURI(text); err != nil {
		return nil, fmt.Errorf("use the RabbitMQ that %s names: it is no amqp:// URL", EnvRabbitURL)
	}
	r := &RabbitServer{machine: given{EnvRabbitURL}, url: text, shared: true}
	if err := answers(ctx, r.machine, r.ready); err != nil {
		return nil, fmt.Errorf("use the RabbitMQ that %s names: %w", EnvRabbitURL, err)
	}
	return r, nil
}

// rabbitURL is that of a server that we run.
func rabbitURL(address string) string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword(rabbitUser, rabbitUser), Host: address, Path: "/"}
	return u.String()
}

// rabbitSettings is the configuration of one node. The user is not RabbitMQ's guest,
// who may come from the loopback only, which a container is not.
func rabbitSettings() map[string]string {
	return map[string]string{
		"default_user":      rabbitUser,
		"default_pass":      rabbitUser,
		"loopback_users":    "none",
		"log.console":       "true",
		"log.console.level": "info",
		"log.file":          "false",
		// A machine whose memory others use must not raise an alarm by chance, nor one
		// whose disk is almost full.
		"vm_memory_high_watermark.relative": "0.9",
		"disk_free_limit.absolute":          "1MB",
	}
}

// Close ends the server and deletes its data. A given server stays as it is.
func (r *RabbitServer) Close() error { return r.machine.remove() }

// URL is where a client connects, with user and password.
func (r *RabbitServer) URL() string { return r.url }

// URLAt is URL by way of another address, such as a proxy's.
func (r *RabbitServer) URLAt(address string) string {
	u, err := url.Parse(r.url)
	if err != nil {
		return r.url // it was parsed before
	}
	u.Host = address
	return u.String()
}

// Address is the server's host and port.
func (r *RabbitServer) Address() string {
	u, err := url.Parse(r.url)
	if err != nil {
		return "" // it was parsed before
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "5672")
	}
	return u.Host
}

// SecureAddress is the host and port where it listens for TLS; empty when it does not.
func (r *RabbitServer) SecureAddress() string { return r.secure }

// Log is the end of the server's log.
func (r *RabbitServer) Log() string { return r.machine.log() }

// ready says whether the server answers us.
func (r *RabbitServer) ready(ctx context.Context) error {
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	shut(conn)
	return nil
}

// connect gives a connection that the caller closes.
func (r *RabbitServer) connect(ctx context.Context) (*amqp.Connection, error) {
	conn, err := amqp.DialConfig(r.url, amqp.Config{
		Dial: func(network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				if deadline, ok := ctx.Deadline(); ok {
					err = conn.SetDeadline(deadline) // until the handshake is over
				}
			}
			return conn, err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the test server: %w", err)
	}
	return conn, nil
}

// disturbs refuses to disturb a server that other tests use.
func (r *RabbitServer) disturbs(what string) error {
	if g, ok := r.machine.(given); ok {
		return g.errGiven(what)
	}
	if r.shared {
		return fmt.Errorf("%s a shared server: other tests use it; take one with servers.Rabbit", what)
	}
	return nil
}

// stop sends sig and waits until nothing of the server runs.
func (r *RabbitServer) stop(ctx context.Context, sig syscall.Signal) error {
	if err := r.disturbs("stop"); err != nil {
		return err
	}
	return down(ctx, r.machine, sig)
}

// start brings a stopped server up again.
func (r *RabbitServer) start(ctx context.Context) error {
	if err := r.disturbs("start"); err != nil {
		return err
	}
	return up(ctx, r.machine, r.ready)
}

// control runs rabbitmqctl.
func (r *RabbitServer) control(ctx context.Context, args ...string) (string, error) {
	if err := r.disturbs("control"); err != nil {
		return "", err
	}
	if r.ctl == nil {
		return "", errors.New("run rabbitmqctl: this server has none")
	}
	return r.ctl(ctx, args...)
}
