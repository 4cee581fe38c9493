package servers

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	containerapi "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// fakeDocker answers as much of the Docker API as servers need. Its containers are
// the embedded servers, set up by what the images go by: the environment, the
// copied script of settings, and Kafka's own reader of the environment.
type fakeDocker struct {
	tb   testing.TB
	host string // for DOCKER_HOST

	mu         sync.Mutex
	containers map[string]*fakeContainer
	images     []string
}

// fakeContainer is one container.
type fakeContainer struct {
	mu      sync.Mutex
	env     map[string]string
	image   string
	ports   network.PortMap
	place   *place
	process *process // nil until the first start
	script  string   // what was copied for the first start
}

// newFakeDocker listens on a socket of its own.
func newFakeDocker(tb testing.TB) *fakeDocker {
	tb.Helper()
	dir, err := os.MkdirTemp("", "docker") //nolint:usetesting // a socket's path must be short
	must(tb, err)
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	must(tb, err)
	d := &fakeDocker{tb: tb, host: "unix://" + filepath.Join(dir, "sock"), containers: map[string]*fakeContainer{}}
	mux := http.NewServeMux()
	for pattern, handler := range map[string]http.HandlerFunc{
		"/_ping":                           d.ping,
		"GET /{v}/info":                    d.reply(map[string]any{"OperatingSystem": "Linux", "ServerVersion": "fake"}),
		"GET /{v}/networks":                d.reply([]map[string]any{{"Name": "bridge", "Id": "bridge"}}),
		"GET /{v}/images/{rest...}":        d.reply(map[string]any{"Id": "sha256:fake"}),
		"POST /{v}/containers/create":      d.create,
		"PUT /{v}/containers/{id}/archive": d.with((*fakeContainer).copyIn),
		"POST /{v}/containers/{id}/start":  d.with((*fakeContainer).start),
		"POST /{v}/containers/{id}/kill":   d.with((*fakeContainer).kill),
		"POST /{v}/containers/{id}/stop":   d.with((*fakeContainer).stop),
		"GET /{v}/containers/{id}/json":    d.with((*fakeContainer).inspect),
		"GET /{v}/containers/{id}/logs":    d.with((*fakeContainer).logs),
		"DELETE /{v}/containers/{id}":      d.remove,
		"/":                                d.unknown,
	} {
		mux.HandleFunc(pattern, handler)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: startTimeout}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	tb.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
		_ = os.RemoveAll(dir)
	})
	return d
}

func (*fakeDocker) ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Api-Version", "1.50")
	_, _ = io.WriteString(w, "OK")
}

func (*fakeDocker) reply(body any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(body) }
}

func (d *fakeDocker) unknown(w http.ResponseWriter, r *http.Request) {
	d.tb.Errorf("the fake Docker does not know %s %s", r.Method, r.URL)
	w.WriteHeader(http.StatusNotFound)
}

// with finds the container of a request. What do says becomes the answer.
func (d *fakeDocker) with(do func(*fakeContainer, http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		c, ok := d.containers[r.PathValue("id")]
		d.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err := do(c, w, r); err != nil {
			http.Error(w, `{"message":`+strconv.Quote(err.Error())+`}`, http.StatusInternalServerError)
		}
	}
}

func (d *fakeDocker) create(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Image      string
		Env        []string
		HostConfig containerapi.HostConfig
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	place, err := newPlace(r.Context(), 1)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	env := map[string]string{}
	for _, variable := range request.Env {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := fmt.Sprintf("%064d", len(d.images)+1)
	d.images = append(d.images, request.Image)
	d.containers[id] = &fakeContainer{env: env, image: request.Image, ports: request.HostConfig.PortBindings, place: place}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"Id": id, "Warnings": []string{}})
}

func (d *fakeDocker) remove(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	c := d.containers[r.PathValue("id")]
	delete(d.containers, r.PathValue("id"))
	d.mu.Unlock()
	if c.process != nil {
		_ = c.process.remove()
	} else {
		_ = c.place.remove()
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *fakeContainer) copyIn(_ http.ResponseWriter, r *http.Request) error {
	unzipped, err := gzip.NewReader(r.Body)
	if err != nil {
		return err
	}
	files := tar.NewReader(unzipped)
	for {
		_, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		c.script += string(content)
	}
}

// start does on the first call what the image does then.
func (c *fakeContainer) start(w http.ResponseWriter, r *http.Request) error {
	w.WriteHeader(http.StatusNoContent)
	if c.process == nil {
		command, err := c.prepare(r.Context())
		if err != nil {
			return err
		}
		c.process = newProcess(c.place, syscall.SIGKILL, command)
	}
	return c.process.start(r.Context())
}

func (c *fakeContainer) prepare(ctx context.Context) (func() *exec.Cmd, error) {
	if strings.HasPrefix(c.image, "postgres:") {
		return c.preparePostgres(ctx)
	}
	return c.prepareKafka(ctx)
}

func (c *fakeContainer) preparePostgres(ctx context.Context) (func() *exec.Cmd, error) {
	major, err := strconv.Atoi(strings.TrimPrefix(c.image, "postgres:"))
	if err != nil {
		return nil, err
	}
	home, err := postgresHome(ctx, major, Config{})
	if err != nil {
		return nil, err
	}
	bin, data := filepath.Join(home, "bin"), c.place.path("data")
	if err := initdb(ctx, bin, data, c.env["POSTGRES_PASSWORD"]); err != nil {
		return nil, err
	}
	script := exec.CommandContext(ctx, "sh", "-e")
	script.Stdin = strings.NewReader(c.script)
	script.Env = []string{"PATH=" + os.Getenv("PATH"), "PGDATA=" + data}
	if out, err := script.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	port := c.ports[network.MustParsePort("5432/tcp")][0].HostPort
	return func() *exec.Cmd {
		return asServant(context.Background(), c.place.dir, filepath.Join(bin, "postgres"),
			"-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")
	}, nil
}

func (c *fakeContainer) prepareKafka(ctx context.Context) (func() *exec.Cmd, error) {
	jars, err := mavenJars(ctx, "kafka", kafkaPOM, Config{})
	if err != nil {
		return nil, err
	}
	dir := c.place.dir
	err = errors.Join(bequeath(dir), os.WriteFile(c.place.path("log4j2.properties"), []byte(kafkaLogging), 0o644))
	if err != nil {
		return nil, err
	}
	command := kafkaCommand(c.place, "java", jars)
	setup := command(ctx, "kafka.docker.KafkaDockerWrapper", "setup", "-D", dir, "-M", dir, "-F", dir)
	setup.Env = append(setup.Env, "KAFKA_LOG_DIRS="+c.place.path("data")) // not inside a container
	for name, value := range c.env {
		setup.Env = append(setup.Env, name+"="+value)
	}
	if out, err := setup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return func() *exec.Cmd {
		return command(context.Background(), "kafka.Kafka", c.place.path("server.properties"))
	}, nil
}

func (c *fakeContainer) kill(w http.ResponseWriter, r *http.Request) error {
	w.WriteHeader(http.StatusNoContent)
	sig, err := strconv.Atoi(r.URL.Query().Get("signal"))
	if err != nil {
		return err
	}
	return c.process.signal(r.Context(), syscall.Signal(sig))
}

func (c *fakeContainer) stop(w http.ResponseWriter, r *http.Request) error {
	w.WriteHeader(http.StatusNoContent)
	if c.process == nil || c.process.ended(r.Context()) {
		return nil
	}
	return down(r.Context(), c.process, syscall.SIGKILL)
}

func (c *fakeContainer) inspect(w http.ResponseWriter, r *http.Request) error {
	running := c.process != nil && !c.process.ended(r.Context())
	return json.NewEncoder(w).Encode(map[string]any{
		"Id":              r.PathValue("id"),
		"State":           map[string]any{"Running": running},
		"Config":          map[string]any{"Tty": true},
		"NetworkSettings": map[string]any{"Ports": c.ports},
	})
}

func (c *fakeContainer) logs(w http.ResponseWriter, _ *http.Request) error {
	_, err := io.WriteString(w, c.process.log())
	return err
}

// again runs tests of this package in another process, which may not fail.
func again(tb testing.TB, run string, env ...string) string {
	tb.Helper()
	self, err := os.Executable()
	must(tb, err)
	cmd := exec.Command(self, "-test.v", "-test.run", run)
	cmd.Env = append(os.Environ(), env...)
	leash(cmd, syscall.SIGKILL)
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Errorf("run %s again: %v\n%s", run, err, out)
	}
	return string(out)
}

func TestDockerIsUsedWhenItsDaemonAnswers(t *testing.T) {
	docker := newFakeDocker(t)
	out := again(t, "^TestPostgresComesBack|^TestPostgresThatCannotStart|^TestSettingsReach|^TestKafkaSurvivesAKill",
		"DOCKER_HOST="+docker.host, "TESTCONTAINERS_RYUK_DISABLED=true", "TESTCONTAINERS_HOST_OVERRIDE=localhost",
		EnvDocker+"=", EnvPostgresURL+"=", EnvKafkaBrokers+"=")
	if passed := strings.Count(out, "--- PASS: "); passed != 5 {
		t.Errorf("%d tests passed, want 5:\n%s", passed, out)
	}
	for _, want := range []string{"postgres:", "apache/kafka:" + kafkaVersion} {
		if !slices.ContainsFunc(docker.images, func(image string) bool { return strings.HasPrefix(image, want) }) {
			t.Errorf("containers were made of %v, none of %s", docker.images, want)
		}
	}
	if len(docker.containers) != 0 {
		t.Errorf("%d containers are left", len(docker.containers))
	}
}

// TestADaemonThatHangsIsGivenUp covers a socket behind which nobody answers.
func TestADaemonThatHangsIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer shut(l)
	began := time.Now()
	out := again(t, "^TestOnlyKnownMajors|^TestTwoPostgres",
		"DOCKER_HOST=tcp://"+l.Addr().String(), EnvDocker+"=", EnvPostgresURL+"=")
	if strings.Count(out, "--- PASS: ") != 2 {
		t.Errorf("no embedded server instead:\n%s", out)
	}
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("it took %v", took)
	}
}
