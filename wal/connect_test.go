package wal

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// greeter is a server that lets everybody in and remembers what they said.
type greeter struct {
	version, encoding string
	startup           map[string]string
	queries           []string
}

func (g *greeter) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go g.serve(theirs) // ends with the connection
	return ours, nil
}

func (g *greeter) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	first, err := backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	startup, ok := first.(*pgproto3.StartupMessage)
	if !ok {
		return
	}
	g.startup = startup.Parameters
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: g.version})
	backend.Send(&pgproto3.ParameterStatus{Name: "server_encoding", Value: g.encoding})
	for {
		backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if backend.Flush() != nil {
			return
		}
		message, err := backend.Receive()
		if err != nil {
			return
		}
		query, ok := message.(*pgproto3.Query)
		if !ok {
			return
		}
		g.queries = append(g.queries, query.String)
		if strings.HasPrefix(query.String, "show ") {
			backend.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x"), DataTypeOID: 25}}})
			backend.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("off")}})
		}
		backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SET")})
	}
}

func (g *greeter) config() Config {
	return Config{
		Database: "postgres://u:p@h/d?sslmode=disable", Slot: "orders", Publication: "p",
		Tables: []Table{{Schema: "public", Name: "outbox"}}, Dial: g.dial,
	}
}

func TestStartupPacketOutranksEnvironmentAndURL(t *testing.T) {
	t.Setenv("PGTZ", "Asia/Tokyo")
	t.Setenv("PGAPPNAME", "somebody else")
	g := &greeter{version: "17.5", encoding: "UTF8"}
	config := g.config()
	config.Database += "&client_encoding=LATIN1&options=-c%20work_mem%3D1MB"
	conn, err := Connect(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	want := sessionSettings("orders")
	want["replication"], want["user"], want["database"] = "database", "u", "d"
	want["options"] = "-c work_mem=1MB"
	seen := map[string]bool{}
	for name, value := range g.startup {
		if lower := strings.ToLower(name); seen[lower] {
			t.Errorf("setting %s stands twice in the start-up packet", name)
		} else {
			seen[lower] = true
		}
		if want[name] != value {
			t.Errorf("start-up packet has %s = %q, want %q", name, value, want[name])
		}
	}
	if len(g.startup) != len(want) {
		t.Errorf("start-up packet %v, want %v", g.startup, want)
	}
	if conn.frames == nil {
		t.Error("the connection is not read through its frame reader")
	}
}

func TestSettingsOfNewerMajorsAreSetAfterwards(t *testing.T) {
	for version, want := range map[string]string{
		"14.18":          "SET idle_session_timeout = 0;",
		"16.9 (Debian)":  "SET idle_session_timeout = 0;",
		"17.0":           "SET idle_session_timeout = 0;SET transaction_timeout = 0;",
		"19devel":        "SET idle_session_timeout = 0;SET transaction_timeout = 0;",
		"18beta1 (Neon)": "SET idle_session_timeout = 0;SET transaction_timeout = 0;",
	} {
		g := &greeter{version: version, encoding: "UTF8"}
		conn, err := Connect(t.Context(), g.config())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(t.Context())
		if got := g.queries[len(g.queries)-1]; got != want {
			t.Errorf("version %s: %q, want %q", version, got, want)
		}
	}
}

func TestServerThatIsTooOldIsRefused(t *testing.T) {
	for _, version := range []string{"13.21", "9.6.24", ""} {
		g := &greeter{version: version, encoding: "UTF8"}
		conn, err := Connect(t.Context(), g.config())
		if conn != nil || fault.Classify(err) != fault.Operator || !strings.Contains(err.Error(), "oldest supported is 14") {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

func TestBadConfigurationIsRefusedBeforeAnythingIsDialled(t *testing.T) {
	g := &greeter{}
	config := g.config()
	config.Slot = "a; DROP TABLE x"
	config.Dial = func(context.Context, string, string) (net.Conn, error) {
		t.Error("the server was dialled")
		return nil, errors.New("no")
	}
	if _, err := Connect(t.Context(), config); fault.Classify(err) != fault.Usage {
		t.Errorf("got %v, want a usage error", err)
	}
}
