package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// stopper keeps what is written, and asks for a stop when a first session has ended.
type stopper struct {
	bytes.Buffer
	signals chan os.Signal
	asked   bool
}

func (s *stopper) Write(text []byte) (int, error) {
	n, err := s.Buffer.Write(text)
	if !s.asked && strings.Contains(s.String(), "session ended") {
		s.asked = true
		s.signals <- syscall.SIGTERM
	}
	return n, err
}

func holdsAll(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
}

// Whoever forgets the database is told its flag and its variable, whatever the command:
// the driver's own words are about a socket that nobody has heard of. The commands are
// those of the program, so that a new one is asked too; one that wants more than slot and
// sink before it goes to the database is told here what.
func TestEveryCommandSaysHowToNameTheDatabase(t *testing.T) {
	connector := filepath.Join(t.TempDir(), "orders.properties")
	if err := os.WriteFile(connector, []byte("connector.class=io.debezium.connector.postgresql.PostgresConnector\n"+
		"slot.name=orders\nplugin.name=pgoutput\ntable.include.list=public.outbox\n"+
		"transforms=outbox\ntransforms.outbox.type=io.debezium.transforms.outbox.EventRouter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	more := map[string]string{
		"prune":            "--older-than 1h",
		"replay":           "--from-lsn 0/1",
		"skip":             "--lsn 0/1",
		"bookmark create":  "monday",
		"bookmark drop":    "monday",
		"dlq retry":        "--all",
		"dlq drop":         "--all",
		"migrate debezium": "--take-over --accept-missing --connector " + connector,
	}
	idle := []string{"config lint", "config print"} // they judge settings and go nowhere
	asked := 0
	users := commandsByFlag((&program{}).app().Commands, "")
	for _, name := range users["database-url"] {
		if slices.Contains(idle, name) {
			continue
		}
		asked++
		args := append([]string{"outboxcdc"}, strings.Fields(name)...)
		for flag, value := range map[string]string{"slot": "orders", "sink": "stdout://", "http": "off"} {
			if slices.Contains(users[flag], name) {
				args = append(args, "--"+flag+"="+value)
			}
		}
		t.Run(name, func(t *testing.T) {
			clearEnv(t)
			t.Setenv("PGHOST", t.TempDir()) // where no server listens
			ways := []string{"no database is named", "--database-url", "OUTBOXCDC_DATABASE_URL"}
			signals := make(chan os.Signal, 1)
			said := &stopper{signals: signals}
			p := &program{out: said, err: said, signals: signals}
			exit := p.run(t.Context(), append(args, strings.Fields(more[name])...))
			want := fault.ExitTransient
			switch name {
			case "stream":
				want = fault.ExitOK // it waits for a database until it is stopped
			case "check":
				want = fault.ExitOperator // what is away is a finding
			}
			if exit != want || !holdsAll(said.String(), ways) {
				t.Errorf("exit %d, want %d and a sentence with %q; it says:\n%s", exit, want, ways, said)
			}
		})
	}
	if asked < 15 {
		t.Errorf("only %d commands were asked", asked)
	}
}
