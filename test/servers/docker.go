package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	containerapi "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// probeTimeout is how long a Docker daemon may take to say that it is there.
const probeTimeout = 3 * time.Second

// dockerAnswers says whether servers come from Docker.
func dockerAnswers() bool { return os.Getenv(EnvDocker) != "off" && daemon() != nil }

// daemon is the Docker daemon that testcontainers finds, nil when none answers. It
// is asked once in the life of a process: to learn that nobody is there takes time
// too.
//
//nolint:gochecknoglobals // an answer, not a state
var daemon = sync.OnceValue(func() *testcontainers.DockerProvider {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	answer := make(chan *testcontainers.DockerProvider, 1)
	// The library takes no context for this. When the socket is there and nobody
	// answers, the goroutine waits on, for nothing.
	go func() {
		provider, err := testcontainers.NewDockerProvider()
		if err == nil {
			err = provider.Health(ctx)
		}
		if err != nil {
			provider = nil
		}
		answer <- provider
	}()
	select {
	case provider := <-answer:
		return provider
	case <-ctx.Done():
		return nil
	}
})

// container is a machine: a container of a Docker daemon. When this process is
// killed, testcontainers' reaper removes it.
type container struct {
	testcontainers.Container
	api   client.APIClient
	place *place // holds the port
}

// newContainer makes a container, which fetches its image; start starts it. The
// server's port inside is published on a port of the daemon's host that stays the
// same over restarts.
func newContainer(ctx context.Context, place *place, host, inside string, request testcontainers.ContainerRequest) (*container, error) {
	provider := daemon()
	request.ExposedPorts = []string{inside}
	request.HostConfigModifier = func(c *containerapi.HostConfig) {
		c.PortBindings = network.PortMap{
			network.MustParsePort(inside): {{HostIP: publish(host), HostPort: fmt.Sprint(place.ports[0])}},
		}
	}
	made, err := provider.CreateContainer(ctx, request)
	if err != nil {
		if made != nil {
			err = errors.Join(err, made.Terminate(context.WithoutCancel(ctx)))
		}
		return nil, fmt.Errorf("make a container of %s: %w", request.Image, err)
	}
	return &container{Container: made, api: provider.Client(), place: place}, nil
}

// publish is the address of the daemon's host on which a port is published: the
// loopback when that is where we are, else all of them.
func publish(host string) netip.Addr {
	if host == "127.0.0.1" {
		return netip.MustParseAddr(host)
	}
	return netip.IPv4Unspecified()
}

// dockerHost is where published ports are found.
func dockerHost(ctx context.Context) (string, error) {
	host, err := daemon().DaemonHost(ctx)
	if err != nil {
		return "", fmt.Errorf("ask where Docker publishes ports: %w", err)
	}
	if host == "localhost" {
		host = "127.0.0.1" // the one loopback on which the port was found free
	}
	return host, nil
}

func (c *container) start(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return fmt.Errorf("start the container: %w: %w", errDown, err)
	}
	return nil
}

func (c *container) signal(ctx context.Context, sig syscall.Signal) error {
	_, err := c.api.ContainerKill(ctx, c.GetContainerID(), client.ContainerKillOptions{Signal: fmt.Sprint(int(sig))})
	if err != nil {
		return fmt.Errorf("send %v to the container: %w", sig, err)
	}
	return nil
}

var errRuns = errors.New("the container still runs")

func (c *container) wait(ctx context.Context) error {
	return poll(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		state, err := c.State(ctx)
		if err == nil && state.Running {
			err = errRuns
		}
		return err
	})
}

func (c *container) ended(ctx context.Context) bool {
	state, err := c.State(ctx)
	return err == nil && !state.Running
}

// pid is 0 unless the daemon runs on this very host: elsewhere it would name some
// other process. We cannot tell, so it is always 0.
func (c *container) pid(context.Context) int { return 0 }

func (c *container) log() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	logs, err := c.Logs(ctx)
	if err != nil {
		return fmt.Sprintf("(not readable: %v)\n", err)
	}
	defer shut(logs)
	var end tail
	_, _ = io.Copy(&end, logs) // what could be read is shown
	return end.String()
}

func (c *container) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return errors.Join(c.Terminate(ctx, testcontainers.StopTimeout(0)), c.place.remove())
}

// dockerPostgres runs the official image.
func dockerPostgres(ctx context.Context, major int, c Config) (*PostgresServer, error) {
	place, err := newPlace(ctx, 1)
	if err != nil {
		return nil, err
	}
	host, err := dockerHost(ctx)
	if err != nil {
		return nil, errors.Join(err, place.remove())
	}
	password := newPassword()
	c.logger().Info("starting Postgres in Docker")
	m, err := newContainer(ctx, place, host, "5432/tcp", testcontainers.ContainerRequest{
		Image: fmt.Sprintf("postgres:%d", major),
		Env: map[string]string{
			"POSTGRES_PASSWORD":    password,
			"POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C",
		},
		Files: []testcontainers.ContainerFile{{
			Reader:            strings.NewReader(settingsScript(c.over(postgresSettings()))),
			ContainerFilePath: "/docker-entrypoint-initdb.d/settings.sh",
			FileMode:          0o644,
		}},
	})
	if err != nil {
		return nil, errors.Join(err, place.remove())
	}
	p := newPostgres(m, host, place.ports[0], password)
	if err := up(ctx, m, p.ready); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	return p, nil
}

// settingsScript appends the settings to the server's file when the image makes
// its cluster: there ALTER SYSTEM overrides them, which it could not do with
// arguments of the server.
func settingsScript(settings map[string]string) string {
	return "cat >> \"$PGDATA/postgresql.conf\" <<'END_OF_SETTINGS'\n" +
		strings.Join(sorted(settings, postgresSetting), "") + "END_OF_SETTINGS\n"
}

// dockerKafka runs the image of the Kafka project.
func dockerKafka(ctx context.Context, c Config) (*KafkaServer, error) {
	place, err := newPlace(ctx, 1)
	if err != nil {
		return nil, err
	}
	host, err := dockerHost(ctx)
	if err != nil {
		return nil, errors.Join(err, place.remove())
	}
	// Inside it is the same port: a broker names one port, for itself and for us.
	port := fmt.Sprint(place.ports[0])
	address, cluster := host+":"+port, newClusterID()
	env := map[string]string{"CLUSTER_ID": cluster, "KAFKA_HEAP_OPTS": "-Xmx512m"}
	for name, value := range c.over(kafkaSettings(address, "0.0.0.0:"+port, "127.0.0.1:9093")) {
		env[kafkaVariable(name)] = value
	}
	c.logger().Info("starting Kafka in Docker")
	m, err := newContainer(ctx, place, host, port+"/tcp", testcontainers.ContainerRequest{
		Image: "apache/kafka:" + kafkaVersion,
		Env:   env,
	})
	if err != nil {
		return nil, errors.Join(err, place.remove())
	}
	k := &KafkaServer{machine: m, brokers: []string{address}, cluster: cluster}
	if err := up(ctx, m, k.ready); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	return k, nil
}

// kafkaVariable is the environment variable from which the image takes a setting:
// KAFKA_ and the name in capitals, with a dot as one underscore, an underscore as
// two and a dash as three (Kafka's documentation of the image).
func kafkaVariable(name string) string {
	return "KAFKA_" + strings.ToUpper(strings.NewReplacer(".", "_", "_", "__", "-", "___").Replace(name))
}
