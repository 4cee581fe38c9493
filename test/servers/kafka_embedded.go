package servers

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// kafkaPOM says which jars make a broker.
//
//go:embed kafka/pom.xml
var kafkaPOM []byte

// kafkaVersion is the release that kafkaPOM names, for Docker.
const kafkaVersion = "4.1.2"

// kafkaLogging sends the broker's log to its standard output, without the list of
// all settings that would fill it.
const kafkaLogging = `appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n
logger.config.name=org.apache.kafka.common.config.AbstractConfig
logger.config.level=warn
logger.kafka.name=kafka.server.KafkaConfig
logger.kafka.level=warn
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
`

// embeddedKafka runs a fetched Kafka as a child of this process.
func embeddedKafka(ctx context.Context, c Config) (*KafkaServer, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("find java, version 17 or later: %w", err)
	}
	jars, err := mavenJars(ctx, "kafka", kafkaPOM, c)
	if err != nil {
		return nil, err
	}
	return retried(func() (*KafkaServer, error) { return runKafka(ctx, java, jars, c) })
}

// mavenJars is the directory with the jars that a file lists. It is named after the
// file's content, so that another version is another directory.
func mavenJars(ctx context.Context, what string, list []byte, c Config) (string, error) {
	name := fmt.Sprintf("%s-%x", what, sha256.Sum256(list))[:len(what)+1+12]
	return fetched(ctx, name, func(dir string) error {
		mvn, err := exec.LookPath("mvn")
		if err != nil {
			return fmt.Errorf("find Maven, which fetches the jars of %s: %w", what, err)
		}
		c.logger().Info("fetching jars, once for this machine", slog.String("of", what))
		pom, repository := filepath.Join(dir, "pom.xml"), filepath.Join(dir, "repository")
		if err := os.WriteFile(pom, list, 0o600); err != nil {
			return err
		}
		// A repository of its own: the user's need not be writable, nor even exist,
		// and is none of our business. Checksums must match (-C).
		//nolint:gosec // to run the Maven that the user has is the purpose
		out, err := exec.CommandContext(ctx, mvn, "-B", "-q", "-C", "-f", pom,
			"-Dmaven.repo.local="+repository, "-DoutputDirectory="+dir,
			"dependency:copy-dependencies").CombinedOutput()
		if err != nil {
			return fmt.Errorf("fetch the jars of %s with Maven: %w: %s", what, err, strings.TrimSpace(string(out)))
		}
		return os.RemoveAll(repository)
	})
}

// runKafka formats a directory and starts a broker on it.
func runKafka(ctx context.Context, java, jars string, c Config) (*KafkaServer, error) {
	place, err := newPlace(ctx, 2+len(c.Listeners))
	if err != nil {
		return nil, err
	}
	address, controller := loopback(place.ports[0]), loopback(place.ports[1])
	base := merged(kafkaSettings(address, address, controller), map[string]string{"log.dirs": place.path("data")})
	listeners := map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		listeners[name] = loopback(place.ports[2+i])
		base["listeners"] += "," + name + "://" + listeners[name]
		base["advertised.listeners"] += "," + name + "://" + listeners[name]
		base["listener.security.protocol.map"] += "," + name + ":" + c.Listeners[name]
	}
	settings := c.over(base)
	cluster := newClusterID()
	command := kafkaCommand(place, java, jars, c.jvm()...)
	if err := formatKafka(ctx, place, cluster, command, settings); err != nil {
		return nil, errors.Join(err, place.remove())
	}
	m := newProcess(place, syscall.SIGKILL, func() *exec.Cmd {
		return command(context.Background(), "kafka.Kafka", place.path("server.properties"))
	})
	k := &KafkaServer{machine: m, brokers: []string{address}, listeners: listeners, cluster: cluster, dataDir: place.path("data")}
	if err := up(ctx, m, k.ready); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	return k, nil
}

// formatKafka writes the configuration and prepares the data directory for it.
func formatKafka(ctx context.Context, place *place, cluster string, command javaCommand, settings map[string]string) error {
	lines := sorted(settings, func(name, value string) string { return name + "=" + value + "\n" })
	properties, logging := place.path("server.properties"), place.path("log4j2.properties")
	err := errors.Join(
		bequeath(place.dir),
		os.WriteFile(properties, []byte(strings.Join(lines, "")), 0o600), bequeath(properties),
		os.WriteFile(logging, []byte(kafkaLogging), 0o600), bequeath(logging))
	if err != nil {
		return fmt.Errorf("configure Kafka: %w", err)
	}
	out, err := command(ctx, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", properties).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format Kafka's storage: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// javaCommand runs a class of the broker's jars.
type javaCommand func(ctx context.Context, class string, args ...string) *exec.Cmd

// jvm is how Java is to run: small and starting fast, because tests start brokers
// often and give them little to do, or as Kafka's own kafka-run-class.sh has it.
func (c Config) jvm() []string {
	if c.Steady {
		return []string{
			"-server", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
			"-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent",
		}
	}
	return []string{"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
}

func kafkaCommand(place *place, java, jars string, jvm ...string) javaCommand {
	return func(ctx context.Context, class string, args ...string) *exec.Cmd {
		options := append(slices.Clone(jvm),
			"-XX:-UsePerfData",
			"-Djava.io.tmpdir="+place.dir,
			"-Dlog4j2.configurationFile="+place.path("log4j2.properties"),
			"-cp", filepath.Join(jars, "*"), class)
		return asServant(ctx, place.dir, java, append(options, args...)...)
	}
}

// newClusterID is a random id in the form that Kafka wants: 16 bytes, base64.
func newClusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // a leading dash would read as an option
	return base64.RawURLEncoding.EncodeToString(id[:])
}
