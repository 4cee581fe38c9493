package servers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// envRole makes the test binary play a role instead of running the tests.
const envRole = "OUTBOXCDC_TEST_SERVERS_ROLE"

// owned is what a process that owns servers tells about them.
type owned struct {
	Pids []int
	Dirs []string
	Err  string
}

// play starts servers, tells about them and then ends as the role says: killed or
// interrupted from outside, or with a panic.
func play(role string) {
	ctx := context.Background()
	p, err := sharedPostgres.take(func() (*PostgresServer, error) { return StartPostgres(ctx, newConfig(nil)) })
	if err != nil {
		tell(owned{Err: err.Error()})
		return
	}
	k, err := sharedKafka.take(func() (*KafkaServer, error) { return StartKafka(ctx, newConfig(nil)) })
	if err != nil {
		tell(owned{Err: err.Error()})
		return
	}
	closeWhenInterrupted()
	tell(owned{
		Pids: []int{p.machine.pid(ctx), k.machine.pid(ctx)},
		Dirs: []string{p.machine.(*process).place.dir, k.machine.(*process).place.dir},
	})
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test goes on
	if role == "panic" {
		panic("as a test does that has a bug")
	}
	select {}
}

func tell(o owned) { _ = json.NewEncoder(os.Stdout).Encode(o) }

// actor is another process that plays a role.
type actor struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	owned owned
}

// act starts a process that owns servers.
func act(tb testing.TB, role string, env ...string) *actor {
	tb.Helper()
	self, err := os.Executable()
	must(tb, err)
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), EnvDocker+"=off", envRole+"="+role), env...)
	leash(cmd, syscall.SIGKILL)
	stdin, err := cmd.StdinPipe()
	must(tb, err)
	stdout, err := cmd.StdoutPipe()
	must(tb, err)
	must(tb, cmd.Start())
	a := &actor{cmd: cmd, stdin: stdin}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	must(tb, errors.Join(err, json.Unmarshal(line, &a.owned)))
	return a
}

// alive says whether a process exists that is not a zombie waiting to be reaped.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !errors.Is(err, os.ErrNotExist)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestServersEndWithTheProcessThatStartedThem(t *testing.T) {
	for role, end := range map[string]func(*actor) error{
		"kill":      func(a *actor) error { return a.cmd.Process.Kill() },
		"interrupt": func(a *actor) error { return a.cmd.Process.Signal(os.Interrupt) },
		"panic":     func(a *actor) error { return a.stdin.Close() },
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			// In a cache that nobody else clears: a server whose directory is deleted
			// ends as well, after a while.
			a := act(t, role, EnvCache+"="+filledCache(t))
			if a.owned.Err != "" {
				t.Fatal(a.owned.Err)
			}
			for _, pid := range a.owned.Pids {
				if !alive(pid) {
					t.Fatalf("server %d is not running", pid)
				}
			}
			must(t, end(a))
			for _, pid := range a.owned.Pids {
				eventually(t, "the server is gone", func() bool { return !alive(pid) })
			}
		})
	}
}

func TestWhatADeadTestLeftBehindIsCleared(t *testing.T) {
	a := act(t, "kill")
	if a.owned.Err != "" {
		t.Fatal(a.owned.Err)
	}
	must(t, a.cmd.Process.Kill())
	_ = a.cmd.Wait()
	for _, pid := range a.owned.Pids {
		eventually(t, "the server is gone", func() bool { return !alive(pid) })
	}
	mine, err := newPlace(context.Background(), 1)
	must(t, err)
	defer vacate(t, mine)
	for _, dir := range a.owned.Dirs {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	if _, err := os.Stat(mine.dir); err != nil {
		t.Errorf("the directory of a living test: %v", err)
	}
}

func TestAMachineThatCannotFetchPostgresSaysWhatToDo(t *testing.T) {
	// The environment of the proxy is read once in the life of a process.
	a := act(t, "fetch", EnvCache+"="+freshCache(t), EnvPostgresURL+"=",
		"HTTPS_PROXY=http://127.0.0.1:1", "https_proxy=http://127.0.0.1:1", "NO_PROXY=", "no_proxy=")
	for _, want := range []string{"fetch Postgres", EnvPostgresURL, "Docker"} {
		if !strings.Contains(a.owned.Err, want) {
			t.Errorf("the error does not say %q: %s", want, a.owned.Err)
		}
	}
}

func TestAMachineWithoutJavaSaysWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(EnvDocker, "off")
	t.Setenv(EnvKafkaBrokers, "")
	said := fatal(t, func(r *recorder) { Kafka(r) })
	for _, want := range []string{"java", EnvKafkaBrokers, "Docker"} {
		if !strings.Contains(said, want) {
			t.Errorf("the error does not say %q: %s", want, said)
		}
	}
	if strings.Contains(said, "\n") {
		t.Errorf("more than one line: %s", said)
	}
}

func TestAMachineWithoutMavenSaysWhatToDo(t *testing.T) {
	path := t.TempDir()
	must(t, os.WriteFile(filepath.Join(path, "java"), []byte("#!/bin/sh\n"), 0o755))
	t.Setenv("PATH", path)
	t.Setenv(EnvCache, freshCache(t))
	t.Setenv(EnvDocker, "off")
	t.Setenv(EnvKafkaBrokers, "")
	said := fatal(t, func(r *recorder) { Kafka(r) })
	for _, want := range []string{"Maven", EnvKafkaBrokers, "Docker"} {
		if !strings.Contains(said, want) {
			t.Errorf("the error does not say %q: %s", want, said)
		}
	}
}

// TestAPlainUserGetsServersToo covers the way that this process does not take: as
// root it runs two tests again as somebody else, with a home of that user's own.
func TestAPlainUserGetsServersToo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("all tests of this run are that")
		return
	}
	home, err := newPlace(context.Background(), 0)
	must(t, err)
	defer vacate(t, home)
	self := home.path("tests")
	executable, err := os.Executable()
	must(t, err)
	must(t, copyFile(self, executable))
	cache := filledCache(t) // what root has fetched is good enough, and everyone may read it
	must(t, bequeath(cache))
	cmd := exec.Command(self, "-test.v", "-test.run", "^TestPostgresIsReady|^TestKafkaSurvivesAKill")
	cmd.Dir = home.dir
	cmd.Env = append(os.Environ(), "HOME="+home.dir, EnvCache+"="+cache)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: servant()}
	leash(cmd, syscall.SIGKILL)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS: ") != 2 {
		t.Errorf("run the tests as a plain user: %v\n%s", err, out)
	}
}

// filledCache is another cache that servers may enter, with all that is fetched.
func filledCache(tb testing.TB) string {
	tb.Helper()
	cache := freshCache(tb)
	have, err := cacheDir()
	must(tb, err)
	for _, pattern := range []string{"postgres-*.0", "kafka-????????????"} {
		dirs, err := filepath.Glob(filepath.Join(have, pattern))
		must(tb, err)
		for _, dir := range dirs {
			must(tb, os.Symlink(dir, filepath.Join(cache, filepath.Base(dir))))
		}
	}
	return cache
}

func copyFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(to, content, 0o755), os.Chmod(to, 0o755))
}
