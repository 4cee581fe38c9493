package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaServer is a running Apache Kafka: one node that is broker and controller
// (KRaft). Its first listener, which tests go to, has neither TLS nor authentication.
type KafkaServer struct {
	machine   machine
	brokers   []string
	listeners map[string]string // addresses of further ones, by their names
	cluster   string            // the cluster id, empty when it was given
	dataDir   string            // empty when the server is not an embedded one
	shared    bool              // several tests use it, so none may disturb it
}

// StartKafka runs a Kafka for a program that is not a test. Close ends it.
func StartKafka(ctx context.Context, c Config) (*KafkaServer, error) {
	if text := os.Getenv(EnvKafkaBrokers); text != "" {
		return givenKafka(ctx, text, c)
	}
	if dockerAnswers() && len(c.Listeners) == 0 {
		return retried(func() (*KafkaServer, error) { return dockerKafka(ctx, c) })
	}
	k, err := embeddedKafka(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("run an embedded Kafka: %w; %s names a running one, and Docker is used when its daemon answers", err, EnvKafkaBrokers)
	}
	return k, nil
}

// givenKafka takes the brokers that the environment names.
func givenKafka(ctx context.Context, text string, c Config) (*KafkaServer, error) {
	if len(c.Settings)+len(c.Listeners) > 0 {
		return nil, fmt.Errorf("this test wants a Kafka with settings of its own, which the one that %s names need not have; unset the variable", EnvKafkaBrokers)
	}
	k := &KafkaServer{machine: given{EnvKafkaBrokers}, brokers: strings.Split(text, ","), shared: true}
	if err := answers(ctx, k.machine, k.ready); err != nil {
		return nil, fmt.Errorf("use the Kafka that %s names: %w", EnvKafkaBrokers, err)
	}
	return k, nil
}

// kafkaSettings is the configuration of one node whose clients find it at
// address; it listens for them and for itself as the two listeners say. A topic
// that nobody made is an error, as it should be in production.
func kafkaSettings(address, clients, controller string) map[string]string {
	return map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          "1",
		"controller.quorum.voters":                         "1@" + controller,
		"listeners":                                        "PLAINTEXT://" + clients + ",CONTROLLER://" + controller,
		"advertised.listeners":                             "PLAINTEXT://" + address,
		"controller.listener.names":                        "CONTROLLER",
		"listener.security.protocol.map":                   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name":                       "PLAINTEXT",
		"auto.create.topics.enable":                        "false",
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "1",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "1",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"share.coordinator.state.topic.num.partitions":     "1",
		// Tests send records of any time. With the default, the broker removes those of
		// more than a week ago when it looks, half a minute after it began.
		"log.retention.ms": "-1",
		// A broker that was killed may register again only when its old session has
		// run out; the default is nine seconds.
		"broker.session.timeout.ms":        "3000",
		"broker.heartbeat.interval.ms":     "500",
		"group.initial.rebalance.delay.ms": "0",
	}
}

// Close ends the server and deletes its data. A given server stays as it is.
func (k *KafkaServer) Close() error { return k.machine.remove() }

// Bootstrap is the addresses that a client starts from.
func (k *KafkaServer) Bootstrap() []string { return append([]string(nil), k.brokers...) }

// Listener is the address of a further listener.
func (k *KafkaServer) Listener(name string) string { return k.listeners[name] }

// Log is the end of the server's log.
func (k *KafkaServer) Log() string { return k.machine.log() }

// admin calls do with a client for administration.
func (k *KafkaServer) admin(do func(*kadm.Client) error) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.brokers...))
	if err != nil {
		return fmt.Errorf("make a client of the test server: %w", err)
	}
	defer client.Close()
	return do(kadm.NewClient(client))
}

var (
	errFenced  = errors.New("no broker has registered yet")
	errForeign = errors.New("another Kafka answers on this port")
)

// ready says whether the server answers, is ours, and has let its broker take
// part in the cluster.
func (k *KafkaServer) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return k.admin(func(admin *kadm.Client) error {
		metadata, err := admin.BrokerMetadata(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("ask the test server for its brokers: %w", err)
		case k.cluster != "" && metadata.Cluster != k.cluster:
			return errForeign
		case len(metadata.Brokers) == 0:
			return errFenced
		default:
			return nil
		}
	})
}

// disturbs refuses to disturb a server that other tests use.
func (k *KafkaServer) disturbs(what string) error {
	if _, ok := k.machine.(given); !ok && k.shared {
		return fmt.Errorf("%s a shared server: other tests use it; take one with servers.Kafka", what)
	}
	return nil
}

// stop sends sig and waits until nothing of the server runs.
func (k *KafkaServer) stop(ctx context.Context, sig syscall.Signal) error {
	if err := k.disturbs("stop"); err != nil {
		return err
	}
	return down(ctx, k.machine, sig)
}

// start brings a stopped server up again.
func (k *KafkaServer) start(ctx context.Context) error {
	if err := k.disturbs("start"); err != nil {
		return err
	}
	return up(ctx, k.machine, k.ready)
}
