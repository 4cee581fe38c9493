package servers

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// connectPOM says which jars make Kafka Connect with Debezium's connector.
//
//go:embed connect/pom.xml
var connectPOM []byte

// connectLogging sends Connect's log to its standard output, without the many lines
// that list settings.
const connectLogging = `appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
`

// Connect is a running Kafka Connect, one worker in standalone mode, that has
// Debezium's Postgres connector: the real one, to compare with and to take over from.
type Connect struct {
	process *process
	url     string
}

// SharedConnect gives the Connect that the tests of this package share, on the Kafka
// that they share; each test adds connectors of its own. It needs a JDK, and Maven the
// first time; a machine without fails the test. A package that calls it has the
// TestMain of SharedPostgres.
func SharedConnect(tb testing.TB) *Connect {
	tb.Helper()
	kafka := SharedKafka(tb)
	c, err := sharedConnect.take(func() (*Connect, error) {
		ctx, cancel := context.WithTimeout(context.Background(), bringUp)
		defer cancel()
		return startConnect(ctx, kafka, forTest(tb, nil))
	})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Close ends Connect with its connectors.
func (c *Connect) Close() error { return c.process.remove() }

func startConnect(ctx context.Context, kafka *KafkaServer, config Config) (*Connect, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("find java, version 17 or later, to run the real Debezium: %w", err)
	}
	jars, err := mavenJars(ctx, "connect", connectPOM, config)
	if err != nil {
		return nil, err
	}
	return retried(func() (*Connect, error) { return runConnect(ctx, kafka, java, jars) })
}

// runConnect starts a worker in a directory of its own.
func runConnect(ctx context.Context, kafka *KafkaServer, java, jars string) (*Connect, error) {
	place, err := newPlace(ctx, 1)
	if err != nil {
		return nil, err
	}
	address := loopback(place.ports[0])
	settings := map[string]string{
		"bootstrap.servers":            strings.Join(kafka.Bootstrap(), ","),
		"listeners":                    "http://" + address,
		"offset.storage.file.filename": place.path("offsets"),
		"offset.flush.interval.ms":     "1000",
		"key.converter":                "org.apache.kafka.connect.json.JsonConverter",
		"value.converter":              "org.apache.kafka.connect.json.JsonConverter",
		"plugin.discovery":             "service_load",
		"topic.creation.enable":        "false",
	}
	if err := configureConnect(place, settings); err != nil {
		return nil, errors.Join(err, place.remove())
	}
	c := &Connect{url: "http://" + address}
	c.process = newProcess(place, syscall.SIGKILL, func() *exec.Cmd {
		return asServant(context.Background(), place.dir, java,
			"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
			"-Duser.timezone=UTC", "-Djava.io.tmpdir="+place.dir,
			"-Dlog4j2.configurationFile="+place.path("log4j2.properties"),
			"-cp", filepath.Join(jars, "*"),
			"org.apache.kafka.connect.cli.ConnectStandalone", place.path("worker.properties"))
	})
	if err := up(ctx, c.process, c.ready); err != nil {
		return nil, errors.Join(err, c.process.remove())
	}
	return c, nil
}

func configureConnect(place *place, settings map[string]string) error {
	lines := sorted(settings, func(name, value string) string { return name + "=" + value + "\n" })
	worker, logging := place.path("worker.properties"), place.path("log4j2.properties")
	err := errors.Join(
		bequeath(place.dir),
		os.WriteFile(worker, []byte(strings.Join(lines, "")), 0o600), bequeath(worker),
		os.WriteFile(logging, []byte(connectLogging), 0o600), bequeath(logging))
	if err != nil {
		return fmt.Errorf("configure Connect: %w", err)
	}
	return nil
}

func (c *Connect) ready(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/connectors", nil, nil)
}

// call sends a request to Connect's REST interface.
func (c *Connect) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer shut(response.Body)
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode >= http.StatusBadRequest:
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	case into != nil:
		return json.Unmarshal(text, into)
	default:
		return nil
	}
}

// Add starts a connector.
func (c *Connect) Add(tb testing.TB, name string, config map[string]string) {
	tb.Helper()
	must(tb, c.call(context.Background(), http.MethodPost, "/connectors", map[string]any{"name": name, "config": config}, nil))
}

// Stop stops a connector, with its offsets saved, and keeps it.
func (c *Connect) Stop(tb testing.TB, name string) {
	tb.Helper()
	must(tb, c.call(context.Background(), http.MethodPut, "/connectors/"+name+"/stop", nil, nil))
	ctx, cancel := bounded()
	defer cancel()
	must(tb, poll(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		state, err := c.status(ctx, name)
		if err == nil && (state.Connector.State != "STOPPED" || len(state.Tasks) > 0) {
			err = fmt.Errorf("connector %s is %s with %d tasks", name, state.Connector.State, len(state.Tasks))
		}
		return err
	}))
}

// ForgetOffsets makes a stopped connector forget up to where it has sent, so that it
// goes on from where its slot stands.
func (c *Connect) ForgetOffsets(tb testing.TB, name string) {
	tb.Helper()
	must(tb, c.call(context.Background(), http.MethodDelete, "/connectors/"+name+"/offsets", nil, nil))
}

// Resume starts a connector that was stopped.
func (c *Connect) Resume(tb testing.TB, name string) {
	tb.Helper()
	must(tb, c.call(context.Background(), http.MethodPut, "/connectors/"+name+"/resume", nil, nil))
}

// Remove stops a connector and forgets it.
func (c *Connect) Remove(tb testing.TB, name string) {
	tb.Helper()
	must(tb, c.call(context.Background(), http.MethodDelete, "/connectors/"+name, nil, nil))
}

// connectorState is Connect's answer about a connector.
type connectorState struct {
	Connector struct{ State, Trace string }
	Tasks     []struct{ State, Trace string }
}

func (c *Connect) status(ctx context.Context, name string) (connectorState, error) {
	var state connectorState
	err := c.call(ctx, http.MethodGet, "/connectors/"+name+"/status", nil, &state)
	return state, err
}

// Trace is why a connector's task has failed; empty while it has not.
func (c *Connect) Trace(tb testing.TB, name string) string {
	tb.Helper()
	state, err := c.status(context.Background(), name)
	must(tb, err)
	for _, task := range state.Tasks {
		if task.Trace != "" {
			return task.Trace
		}
	}
	return state.Connector.Trace
}

// Log is the end of Connect's log.
func (c *Connect) Log() string { return c.process.log() }
