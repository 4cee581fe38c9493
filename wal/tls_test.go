package wal

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// demands says of each attempt at connecting what the server must prove.
func demands(tb testing.TB, text string) []string {
	tb.Helper()
	settings, err := ParseDatabase(text)
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	var all []string
	for _, a := range attempts(settings) {
		demand := a.Host + " full"
		switch {
		case a.TLSConfig == nil:
			demand = a.Host + " nothing"
		case a.TLSConfig.InsecureSkipVerify && a.TLSConfig.VerifyPeerCertificate != nil:
			demand = a.Host + " authority"
		case a.TLSConfig.InsecureSkipVerify:
			demand = a.Host + " encrypted"
		case a.TLSConfig.ServerName != a.Host:
			demand = a.Host + " as " + a.TLSConfig.ServerName
		}
		all = append(all, demand)
	}
	return all
}

func TestAHostThatIsNotLocalProvesWhoItIsUnlessToldOtherwise(t *testing.T) {
	t.Setenv("HOME", t.TempDir()) // libpq's own files, such as root.crt, are none of the test's
	full := []string{"db.example.com full"}
	for text, want := range map[string][]string{
		// Nothing is said.
		"postgres://u:p@db.example.com/d":                            full,
		"postgres://u:p@db.example.com":                              full,
		"postgresql://u:p@db.example.com:5433/d?application_name=x":  full,
		"host=db.example.com user=u dbname=d":                        full,
		"host=db.example.com user=u sslnegotiation=direct":           full,
		"user=u password='a://b' host=db.example.com":                full,
		"postgres://u:p@10.1.2.3/d":                                  {"10.1.2.3 full"},
		"postgres://u:p@[fd00::1]/d":                                 {"fd00::1 full"},
		"postgres://u:p@0.0.0.0/d":                                   {"0.0.0.0 full"},
		"postgres://u:p@localhost.example.com/d":                     {"localhost.example.com full"},
		"postgres://u:p@a.example.com,b.example.com/d":               {"a.example.com full", "b.example.com full"},
		"postgres://u:p@a.example.com,localhost/d":                   {"a.example.com full", "localhost encrypted", "localhost nothing"},
		"postgres://u:p@localhost,a.example.com/d":                   {"localhost encrypted", "localhost nothing", "a.example.com full"},
		"host=/run/postgresql,a.example.com user=u":                  {"/run/postgresql nothing", "a.example.com full"},
		"postgres://u:p@a.example.com:1,a.example.com:2/d":           {"a.example.com full", "a.example.com full"},
		"postgres://u:p@db.example.com/d?target_session_attrs=any":   full,
		"postgres://u:p@db.example.com/d?channel_binding=require":    full,
		"postgres://u:p@db.example.com/d?password=sslmode%3Ddisable": full,

		// Local hosts are as libpq has them.
		"postgres://u:p@localhost/d":           {"localhost encrypted", "localhost nothing"},
		"postgres://u:p@LocalHost./d":          {"LocalHost. encrypted", "LocalHost. nothing"},
		"postgres://u:p@127.0.0.41/d":          {"127.0.0.41 encrypted", "127.0.0.41 nothing"},
		"postgres://u:p@[::1]/d":               {"::1 encrypted", "::1 nothing"},
		"postgres://u:p@[::ffff:127.0.0.1]/d":  {"::ffff:127.0.0.1 encrypted", "::ffff:127.0.0.1 nothing"},
		"host=/run/postgresql user=u dbname=d": {"/run/postgresql nothing"},

		// Who says an sslmode has it.
		"postgres://u:p@db.example.com/d?sslmode=disable":    {"db.example.com nothing"},
		"postgres://u:p@db.example.com/d?sslmode=allow":      {"db.example.com nothing", "db.example.com encrypted"},
		"postgres://u:p@db.example.com/d?sslmode=prefer":     {"db.example.com encrypted", "db.example.com nothing"},
		"postgres://u:p@db.example.com/d?sslmode=require":    {"db.example.com encrypted"},
		"postgres://u:p@db.example.com/d?ssl=true":           {"db.example.com encrypted"},
		"postgres://u:p@db.example.com/d?sslmode=verify-ca":  {"db.example.com authority"},
		"host=db.example.com user=u sslmode = 'require'":     {"db.example.com encrypted"},
		"postgres://u:p@127.0.0.1/d?sslmode=verify-full":     {"127.0.0.1 full"},
		"postgres://u:p@db.example.com/d?sslrootcert=system": full,
	} {
		if diff := cmp.Diff(want, demands(t, text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestTheEnvironmentMayNameTheHostAndTheSSLMode(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("PGHOST", "db.example.com")
	if diff := cmp.Diff([]string{"db.example.com full"}, demands(t, "")); diff != "" {
		t.Error(diff)
	}
	t.Setenv("PGSSLMODE", "prefer")
	if diff := cmp.Diff([]string{"db.example.com encrypted", "db.example.com nothing"}, demands(t, "")); diff != "" {
		t.Error(diff)
	}
}

func TestAServiceFileMayNameTheSSLModeButNotTheOneThatProvesNothing(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	file := filepath.Join(t.TempDir(), "services")
	for mode, want := range map[string][]string{
		"":                  {"db.example.com full"},
		"sslmode=require\n": {"db.example.com encrypted"},
		"sslmode=disable\n": {"db.example.com nothing"},
		"sslmode=prefer\n":  {"db.example.com full"},
	} {
		if err := os.WriteFile(file, []byte("[shop]\nhost=db.example.com\n"+mode), 0o600); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, demands(t, "service=shop servicefile="+file)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", mode, diff)
		}
	}
}

// A server that says no to TLS, as the first byte it sends.
func TestAServerWithoutTLSIsForTheOperatorWithTheWayOut(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // nothing is owed to it
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			var request [sslRequestBytes]byte
			io.ReadFull(conn, request[:]) //nolint:errcheck // the answer is the same
			conn.Write([]byte("N"))       //nolint:errcheck // as above
			conn.Close()
		}
	}()
	settings, err := ParseDatabase("postgres://u:s3cret@" + listener.Addr().String() + "/d?sslmode=verify-full")
	if err != nil {
		t.Fatal(err)
	}
	_, err = pgconn.ConnectConfig(t.Context(), settings)
	err = Fault(err)
	if fault.Classify(err) != fault.Operator || !errors.Is(err, errNoTLS) || !errors.Is(err, ErrDenied) {
		t.Errorf("got %v of class %v", err, fault.Classify(err))
	}
}
