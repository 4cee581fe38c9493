package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// rabbitPackage is Debian's package of the server. With it come those of Erlang that
// it depends on, and nothing else: the rest every Debian has.
const rabbitPackage = "rabbitmq-server"

// rabbitNeeds are the packages that are unpacked, of all that the server depends on.
var rabbitNeeds = regexp.MustCompile(`^(erlang-.+|` + rabbitPackage + `)$`)

// embeddedRabbit runs a fetched RabbitMQ as a child of this process.
func embeddedRabbit(ctx context.Context, c Config) (*RabbitServer, error) {
	home, err := rabbitFiles(ctx, c)
	if err != nil {
		return nil, err
	}
	return retried(func() (*RabbitServer, error) { return runRabbit(ctx, home, c) })
}

// rabbitFiles is the directory with RabbitMQ and Erlang, unpacked from Debian's
// packages. No part of the system is touched, neither its packages nor its lists of
// them, so that root and others do the same.
func rabbitFiles(ctx context.Context, c Config) (string, error) {
	return fetched(ctx, "rabbitmq-debian", func(dir string) error {
		for _, tool := range []string{"apt-get", "dpkg-deb"} {
			if _, err := exec.LookPath(tool); err != nil {
				return fmt.Errorf("find %s, which fetches RabbitMQ from Debian or Ubuntu: %w", tool, err)
			}
		}
		c.logger().Info("fetching RabbitMQ, once for this machine")
		apt, err := newApt(dir)
		if err != nil {
			return err
		}
		if err := apt.fetch(ctx); err != nil {
			return err
		}
		if err := unpackDebs(ctx, apt.debs, dir); err != nil {
			return err
		}
		if err := writeShims(dir); err != nil {
			return err
		}
		return errors.Join(tryErlang(ctx, dir), os.RemoveAll(apt.dir))
	})
}

// apt is Debian's package manager with all that it writes in a directory of ours.
type apt struct {
	dir, debs string
}

func newApt(parent string) (*apt, error) {
	a := &apt{dir: filepath.Join(parent, "apt")}
	a.debs = filepath.Join(a.dir, "debs")
	var errs []error
	for _, sub := range []string{"debs", "state/lists/partial", "cache/archives/partial"} {
		errs = append(errs, os.MkdirAll(filepath.Join(a.dir, sub), 0o755)) //nolint:gosec // apt's own user must enter
	}
	errs = append(errs, os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o600))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("make directories for apt: %w", err)
	}
	return a, nil
}

// get runs apt-get. The empty status says that nothing is installed, so that what the
// server depends on is the same everywhere.
func (a *apt) get(ctx context.Context, args ...string) (string, error) {
	options := []string{
		"-qq",
		"-o", "Dir::State=" + filepath.Join(a.dir, "state"),
		"-o", "Dir::State::status=" + filepath.Join(a.dir, "status"),
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "APT::Sandbox::User=root", // who is not root has no sandbox anyway
		"-o", "Acquire::Retries=3",
		"-o", "Acquire::Languages=none",
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(options, args...)...) //nolint:gosec // to run the apt of the machine is the purpose
	cmd.Dir = a.debs
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("apt-get %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// fetch downloads the packages.
func (a *apt) fetch(ctx context.Context) error {
	if _, err := a.get(ctx, "update"); err != nil {
		return err
	}
	plan, err := a.get(ctx, "install", "--simulate", "--no-install-recommends", rabbitPackage)
	if err != nil {
		return err
	}
	var names []string
	for line := range strings.Lines(plan) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Inst" && rabbitNeeds.MatchString(fields[1]) {
			names = append(names, fields[1])
		}
	}
	if len(names) < 2 {
		return fmt.Errorf("apt-get names %d packages of RabbitMQ and Erlang: %q", len(names), names)
	}
	_, err = a.get(ctx, append([]string{"download"}, names...)...)
	return err
}

func unpackDebs(ctx context.Context, debs, dir string) error {
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", file, dir).CombinedOutput() //nolint:gosec // as above
		if err != nil {
			return fmt.Errorf("unpack %s: %w: %s", filepath.Base(file), err, strings.TrimSpace(string(out)))
		}
	}
	// The directory itself comes with the mode of the packages' root.
	return os.Chmod(dir, 0o755) //nolint:gosec // the servant must enter
}

// erlShim starts Erlang where it lies: the packaged script knows one place only.
const erlShim = `#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd) || exit 1
ROOTDIR=$here/usr/lib/erlang
for BINDIR in "$ROOTDIR"/erts-*/bin; do :; done
EMU=beam
PROGNAME=erl
export ROOTDIR BINDIR EMU PROGNAME
exec "$BINDIR/erlexec" "$@"
`

// writeShims makes the directory that stands first in the search path of the server's
// own scripts.
func writeShims(dir string) error {
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil { //nolint:gosec // the servant must enter
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "erl"), []byte(erlShim), 0o755); err != nil { //nolint:gosec // it is a program
		return err
	}
	for _, name := range []string{"epmd", "escript"} {
		path, err := onlyMatch(filepath.Join(dir, "usr", "lib", "erlang", "erts-*", "bin", name))
		if err != nil {
			return err
		}
		target, err := filepath.Rel(bin, path)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

func onlyMatch(pattern string) (string, error) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(paths) != 1 {
		return "", fmt.Errorf("%d files look like %s in the packages, want one", len(paths), filepath.Base(pattern))
	}
	return paths[0], nil
}

// tryErlang finds out whether the machine has the libraries that Erlang wants.
func tryErlang(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "bin", "erl"), //nolint:gosec // to run what was fetched is the purpose
		"-noinput", "-eval", "ok = application:start(crypto), halt(0).")
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("try Erlang, which wants the packages libssl3, libtinfo6 and libstdc++6 of the system: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// rabbitNode is one node's place and environment.
type rabbitNode struct {
	place *place
	home  string // where RabbitMQ and Erlang lie
}

// The ports of a node.
const (
	rabbitClients  = iota // AMQP
	rabbitNodes           // Erlang's distribution, which rabbitmqctl uses
	rabbitMapper          // Erlang's port mapper
	rabbitTools           // rabbitmqctl itself
	rabbitSecure          // AMQP in TLS
	rabbitPortsAll        // how many there are
)

// command runs a program of RabbitMQ's or Erlang's as the servant.
func (n *rabbitNode) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := asServant(ctx, n.place.dir, name, args...)
	port := func(which int) string { return strconv.Itoa(n.place.ports[which]) }
	cmd.Env = []string{
		"PATH=" + filepath.Join(n.home, "bin") + ":" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=" + n.place.dir,
		"ERL_EPMD_PORT=" + port(rabbitMapper), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=rabbit@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + port(rabbitClients), "RABBITMQ_DIST_PORT=" + port(rabbitNodes),
		"RABBITMQ_CTL_DIST_PORT_MIN=" + port(rabbitTools), "RABBITMQ_CTL_DIST_PORT_MAX=" + port(rabbitTools),
		"RABBITMQ_MNESIA_BASE=" + n.place.path("data"), "RABBITMQ_LOG_BASE=" + n.place.path("log"),
		"RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_CONFIG_FILE=" + n.place.path("rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + n.place.path("plugins"), "RABBITMQ_PID_FILE=" + n.place.path("pid"),
		// The script becomes the server instead of its parent: what we signal is what runs.
		"detached=true",
	}
	return cmd
}

// script is one of RabbitMQ's own, such as rabbitmqctl.
func (n *rabbitNode) script(name string) (string, error) {
	return onlyMatch(filepath.Join(n.home, "usr", "lib", "rabbitmq", "lib", "rabbitmq_server-*", "sbin", name))
}

// configure writes the files that the server reads.
func (n *rabbitNode) configure(settings map[string]string, plugins []string) error {
	lines := sorted(settings, func(name, value string) string { return name + " = " + value + "\n" })
	errs := []error{bequeath(n.place.dir)}
	for name, text := range map[string]string{"rabbitmq.conf": strings.Join(lines, ""), "plugins": "[" + strings.Join(plugins, ",") + "].\n"} {
		path := n.place.path(name)
		errs = append(errs, os.WriteFile(path, []byte(text), 0o600), bequeath(path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure RabbitMQ: %w", err)
	}
	return nil
}

// rabbitMachine is the server and its port mapper, which knows where nodes listen and
// would outlive the server, as the server would start it.
type rabbitMachine struct {
	*process // the server

	mapper *process
}

func (m *rabbitMachine) start(ctx context.Context) error {
	if m.mapper.ended(ctx) {
		if err := m.mapper.start(ctx); err != nil {
			return err
		}
	}
	return m.process.start(ctx)
}

func (m *rabbitMachine) remove() error { return errors.Join(m.process.remove(), m.mapper.remove()) }

// runRabbit starts a node in a place of its own.
func runRabbit(ctx context.Context, home string, c Config) (*RabbitServer, error) {
	all, err := newPlace(ctx, rabbitPortsAll)
	if err != nil {
		return nil, err
	}
	n := &rabbitNode{place: all, home: home}
	settings, secure := c.over(rabbitSettings()), ""
	if settings["ssl_options.certfile"] != "" {
		secure = loopback(all.ports[rabbitSecure])
		settings["listeners.ssl.default"] = secure
	}
	server, err := n.script(rabbitPackage)
	if err == nil {
		err = n.configure(settings, c.Plugins)
	}
	if err != nil {
		return nil, errors.Join(err, all.remove())
	}
	m := &rabbitMachine{
		process: newProcess(all, syscall.SIGKILL, func() *exec.Cmd { return n.command(context.Background(), server) }),
		mapper: newProcess(&place{}, syscall.SIGKILL, func() *exec.Cmd {
			return n.command(context.Background(), filepath.Join(home, "bin", "epmd"))
		}),
	}
	r := &RabbitServer{machine: m, url: rabbitURL(loopback(all.ports[rabbitClients])), secure: secure, ctl: n.control}
	if err := up(ctx, m, r.ready); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	return r, nil
}

// control runs rabbitmqctl.
func (n *rabbitNode) control(ctx context.Context, args ...string) (string, error) {
	ctl, err := n.script("rabbitmqctl")
	if err != nil {
		return "", err
	}
	out, err := n.command(ctx, ctl, append([]string{"--quiet"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
