// Package servers gives a test a real Postgres, a real Apache Kafka and a real
// RabbitMQ.
//
// A server comes from the first of three sources that this machine has:
//
//  1. an address given in OUTBOXCDC_TEST_PG_URL (a superuser's URL),
//     OUTBOXCDC_TEST_KAFKA_BROKERS (host:port, comma separated) or
//     OUTBOXCDC_TEST_RABBITMQ_URL (amqp://user:password@host:port/); such a server
//     is not ours to stop, and what needs that fails with a sentence,
//  2. Docker, when a daemon answers; OUTBOXCDC_TEST_DOCKER=off leaves it out,
//  3. binaries and jars that are fetched once and kept in a cache of the user's
//     own, OUTBOXCDC_TEST_CACHE when set; RabbitMQ's are Debian's packages, unpacked
//     there and not installed. They run as children of this process.
//
// OUTBOXCDC_TEST_PG chooses the major version of Postgres, 14 to 18. A machine
// with none of the three fails its tests: a test that is skipped promises nothing.
//
// It knows servers. It does not know outboxcdc: what is in the database or on the
// topic is the tests' own matter.
package servers

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"
)

// The environment that chooses the source of a server.
const (
	EnvPostgresURL   = "OUTBOXCDC_TEST_PG_URL"
	EnvPostgresMajor = "OUTBOXCDC_TEST_PG"
	EnvKafkaBrokers  = "OUTBOXCDC_TEST_KAFKA_BROKERS"
	EnvRabbitURL     = "OUTBOXCDC_TEST_RABBITMQ_URL"
	EnvDocker        = "OUTBOXCDC_TEST_DOCKER"
	EnvCache         = "OUTBOXCDC_TEST_CACHE"
)

// startTimeout is how long a server may take until it answers. A machine that runs
// other things too has been seen to need more than a minute; a healthy one needs a
// second or two.
const startTimeout = 3 * time.Minute

// Config says which server is wanted. Its zero value is the usual one.
type Config struct {
	// Major is the major version of Postgres; 0 means OUTBOXCDC_TEST_PG, else
	// DefaultMajor. The brokers have one version only.
	Major int

	// Settings go to the server's configuration file, over our own.
	Settings map[string]string

	// Listeners are further ones of a Kafka, by the protocol that each speaks, such as
	// SASL_SSL. A Kafka that has them is an embedded one.
	Listeners map[string]string

	// Plugins are those of a RabbitMQ that are switched on. One that has any is an
	// embedded one, and listens for TLS where ssl_options.certfile is set.
	Plugins []string

	// Steady asks for a Kafka that runs fast, for measurements, rather than one that
	// starts fast.
	Steady bool

	// Logger is told what takes long, such as a download; nil discards it.
	Logger *slog.Logger
}

// Option changes a Config.
type Option func(*Config)

// Major asks for a major version of Postgres, whatever the environment says.
func Major(major int) Option {
	return func(c *Config) { c.Major = major }
}

// Setting sets one parameter of the server's configuration file, such as
// wal_level for Postgres, message.max.bytes for Kafka or max_message_size for
// RabbitMQ.
func Setting(name, value string) Option {
	return func(c *Config) { c.Settings[name] = value }
}

// Listener gives a Kafka a further listener, whose address is KafkaServer.Listener's.
// What it needs, such as a certificate, is set with Setting under its name in small
// letters: listener.name.mtls.ssl.client.auth.
func Listener(name, protocol string) Option {
	return func(c *Config) { c.Listeners[name] = protocol }
}

// Plugin switches a plugin of RabbitMQ's own on, such as rabbitmq_auth_mechanism_ssl.
func Plugin(name string) Option {
	return func(c *Config) { c.Plugins = append(c.Plugins, name) }
}

// newConfig is the Config that the options make.
func newConfig(opts []Option) Config {
	c := Config{Settings: map[string]string{}, Listeners: map[string]string{}}
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

// logger is the Config's, never nil.
func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// over gives base with the Config's own settings on top.
func (c Config) over(base map[string]string) map[string]string {
	return merged(base, c.Settings)
}

// major is the version of Postgres to run.
func (c Config) major() (int, error) {
	if c.Major != 0 {
		return c.Major, nil
	}
	text := os.Getenv(EnvPostgresMajor)
	if text == "" {
		return DefaultMajor, nil
	}
	major, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s=%q is not the number of a major version such as %d", EnvPostgresMajor, text, DefaultMajor)
	}
	return major, nil
}

// sorted gives the settings as lines of name and value, in order of name, so that
// two runs write the same file.
func sorted(settings map[string]string, line func(name, value string) string) []string {
	lines := make([]string, 0, len(settings))
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		lines = append(lines, line(name, settings[name]))
	}
	return lines
}

// shut closes c when its error could change nothing.
func shut(c io.Closer) { _ = c.Close() }

// poll calls try every interval until it gives nil, and gives its last error when
// ctx ends first.
func poll(ctx context.Context, interval time.Duration, try func(context.Context) error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// merged gives base with over on top.
func merged(base, over map[string]string) map[string]string {
	all := maps.Clone(base)
	maps.Copy(all, over)
	return all
}
