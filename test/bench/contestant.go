package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// contestant is a program that drains a slot.
type contestant struct {
	name   string
	sends  bool // to Kafka; if not, only the server knows how far it is
	run    func(ctx context.Context, b *bench, e entry) *exec.Cmd
	counts func(ctx context.Context, c *child, e entry) (allocations float64, err error) // so far; nil when unknown
}

// entry is what a contestant is given.
type entry struct {
	portion  // with the slot that is to be read
	database string
	form     string // of topics
	http     string // an address to listen on
	way      way    // to Postgres; TCP when empty
}

// ours, coalesced, bare and recvlogical are the names of the contestants.
const (
	ours        = "outboxcdc"
	coalesced   = "coalesced loop"
	bare        = "bare loop"
	recvlogical = "pg_recvlogical"
)

// contestants are those that this machine has and the plan wants, ours first.
func (b *bench) contestants() []contestant {
	all := []contestant{
		{name: ours, sends: true, run: runBuild(b.binary), counts: scrapeMallocs},
		{name: coalesced, sends: true, run: runBare("-coalesce")},
		{name: bare, sends: true, run: runBare()},
	}
	if b.recv != "" {
		all = append(all, listener(recvlogical, "", false))
	}
	all = slices.DeleteFunc(all, func(c contestant) bool {
		return b.contests != nil && !slices.Contains(b.contests, c.name)
	})
	for _, binary := range b.beside {
		all = append(all, contestant{name: filepath.Base(binary), sends: true, run: runBuild(binary), counts: scrapeMallocs})
	}
	return all
}

// runBuild is outboxcdc as its documentation has it, every guarantee on.
func runBuild(binary string) func(context.Context, *bench, entry) *exec.Cmd {
	return func(ctx context.Context, b *bench, e entry) *exec.Cmd {
		args := append([]string{"stream", "--sink", "kafka://" + b.brokers(), "--topic", e.form, "--http", e.http}, e.flags()...)
		cmd := exec.CommandContext(ctx, binary, args...) //nolint:gosec // our own command
		cmd.Env = append(os.Environ(), "OUTBOXCDC_DATABASE_URL="+b.url(e))
		return cmd
	}
}

func runBare(more ...string) func(context.Context, *bench, entry) *exec.Cmd {
	return func(ctx context.Context, b *bench, e entry) *exec.Cmd {
		args := append([]string{"-slot", e.slot, "-brokers", b.brokers(), "-topic", e.form}, more...)
		cmd := exec.CommandContext(ctx, b.bare, args...) //nolint:gosec // our own command
		cmd.Env = append(os.Environ(), "BARELOOP_DATABASE_URL="+b.postgres.URL(e.database))
		return cmd
	}
}

// runRecvlogical listens and throws away.
func runRecvlogical(ctx context.Context, b *bench, e entry, more ...string) *exec.Cmd {
	publication := e.publication
	if publication == "" {
		publication = "outboxcdc"
	}
	args := append([]string{
		"--start", "--slot", e.slot, "--file", "/dev/null", "--no-loop",
		"--option", "proto_version=1", "--option", "publication_names=" + publication, "--dbname", "dbname=" + e.database,
	}, more...)
	cmd := exec.CommandContext(ctx, b.recv, args...) //nolint:gosec // found by name
	cmd.Env = append(os.Environ(), b.place(e)...)
	return cmd
}

// scrapeMallocs asks our metrics how often the program has allocated.
func scrapeMallocs(ctx context.Context, _ *child, e entry) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.http+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if number, ok := strings.CutPrefix(lines.Text(), "go_memstats_mallocs_total "); ok {
			return strconv.ParseFloat(number, 64)
		}
	}
	return 0, fmt.Errorf("%s has no go_memstats_mallocs_total", request.URL)
}

// reported is how often bareloop says at its end that it allocated.
func reported(c *child) (float64, error) {
	var report struct {
		Mallocs float64 `json:"mallocs"`
	}
	err := json.Unmarshal(c.out.Bytes(), &report)
	return report.Mallocs, err
}

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
