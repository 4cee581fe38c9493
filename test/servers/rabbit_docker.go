package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
)

// dockerRabbit runs the official image.
func dockerRabbit(ctx context.Context, c Config) (*RabbitServer, error) {
	place, err := newPlace(ctx, 1)
	if err != nil {
		return nil, err
	}
	host, err := dockerHost(ctx)
	if err != nil {
		return nil, errors.Join(err, place.remove())
	}
	lines := sorted(c.over(rabbitSettings()), func(name, value string) string { return name + " = " + value + "\n" })
	c.logger().Info("starting RabbitMQ in Docker")
	m, err := newContainer(ctx, place, host, "5672/tcp", testcontainers.ContainerRequest{
		Image: rabbitImage,
		// The node's name holds the host's, and its data the node's.
		Hostname: "rabbit",
		Files: []testcontainers.ContainerFile{{
			Reader:            strings.NewReader(strings.Join(lines, "")),
			ContainerFilePath: "/etc/rabbitmq/conf.d/90-outboxcdc.conf",
			FileMode:          0o644,
		}},
	})
	if err != nil {
		return nil, errors.Join(err, place.remove())
	}
	r := &RabbitServer{
		machine: m, url: rabbitURL(fmt.Sprintf("%s:%d", host, place.ports[0])),
		ctl: func(ctx context.Context, args ...string) (string, error) {
			status, out, err := m.Exec(ctx, append([]string{"rabbitmqctl", "--quiet"}, args...), exec.Multiplexed())
			if err != nil {
				return "", fmt.Errorf("rabbitmqctl %s: %w", args[0], err)
			}
			text, err := io.ReadAll(out)
			if err == nil && status != 0 {
				err = fmt.Errorf("exit status %d: %s", status, strings.TrimSpace(string(text)))
			}
			return string(text), err
		},
	}
	if err := up(ctx, m, r.ready); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	return r, nil
}
