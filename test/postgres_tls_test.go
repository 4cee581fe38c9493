package test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// remote is a host that is this one and is not local by its name: the kernel takes it for
// the loopback interface, and we for any address.
const remote = "0.0.0.0"

func (f *walFixture) remotely(tb testing.TB, query ...string) string {
	tb.Helper()
	return f.at(tb, func(at *url.URL) {
		_, port, _ := net.SplitHostPort(at.Host)
		at.Host, at.RawQuery = net.JoinHostPort(remote, port), strings.Join(query, "&")
	})
}

func TestAHostThatIsNotLocalProvesWhoItIsForEveryCommand(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	f := newWalFixture(t, server.Database(t))
	at := func(query ...string) []string {
		return []string{"--slot", f.config.Slot, "--database-url", f.remotely(t, query...)}
	}
	everyone := func(t *testing.T, says ...string) {
		t.Helper()
		kafka := []string{"--sink", "kafka://127.0.0.1:1"}
		for name, more := range map[string][]string{
			"init": nil, "check": kafka, "stream": append(kafka, "--http", "off"), "status": nil, "peek": nil, "drop": {"--yes", f.config.Slot},
			"prune": {"--older-than", "1h"}, "recover": kafka, "verify": kafka, "skip": {"--lsn", "0/1", "--yes"},
			"replay": append(kafka, "--from-lsn", "0/1"), "bookmark list": nil,
		} {
			got := command(t, []string{"HOME=" + t.TempDir()}, append(append(strings.Fields(name), at()...), more...)...)
			if got.exit != fault.ExitOperator {
				t.Errorf("%s ends with %d, want %d", name, got.exit, fault.ExitOperator)
			}
			for _, text := range says {
				if !strings.Contains(got.out+got.errors, text) {
					t.Errorf("%s does not say %q:\n%s%s", name, text, got.out, got.errors)
				}
			}
			if strings.Contains(got.out+got.errors, server.Password()) {
				t.Errorf("%s repeats the password", name)
			}
		}
	}
	t.Run("no TLS", func(t *testing.T) { everyone(t, "takes no TLS", "sslmode=disable") })

	ours := newAuthority(t)
	named := func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.IPv4zero) }
	ours.present(t, server, named)
	t.Run("an authority that nobody named", func(t *testing.T) { everyone(t, "sslrootcert=FILE", "sslmode=require") })

	root := "sslrootcert=" + url.QueryEscape(ours.file)
	for name, c := range map[string]struct{ query, says string }{
		"the authority is named":  {root, ""},
		"an sslmode is named":     {"sslmode=require", ""},
		"the host is another one": {root, "name the server in the database URL as its certificate does"},
		"it is the wrong one":     {"sslrootcert=" + url.QueryEscape(newAuthority(t).file), "sslrootcert=FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "another") {
				ours.present(t, server, func(*x509.Certificate) {})
				defer ours.present(t, server, named)
			}
			got := command(t, []string{"HOME=" + t.TempDir()}, append([]string{"init"}, at(c.query)...)...)
			if c.says == "" {
				if got.exit != 0 {
					t.Errorf("ends with %d:\n%s", got.exit, got.errors)
				}
				return
			}
			wantRefusal(t, got, fault.ExitOperator, c.says)
		})
	}
}

// client makes a certificate for a role, in files as libpq wants them.
func (a *authority) client(tb testing.TB, role string, until time.Time) (query string) {
	tb.Helper()
	certificate := a.sign(tb, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: role},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	dir := tb.TempDir()
	cert, key := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	writePEM(tb, cert, "CERTIFICATE", certificate.Certificate[0], 0o600)
	block := keyBlock(tb, certificate)
	writePEM(tb, key, block.Type, block.Bytes, 0o600)
	return "sslcert=" + url.QueryEscape(cert) + "&sslkey=" + url.QueryEscape(key)
}

// asks puts a rule in front of a server's others.
func asks(tb testing.TB, server *servers.PostgresServer, rule string) {
	tb.Helper()
	path := filepath.Join(server.DataDir(), "pg_hba.conf")
	rest, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte(rule+"\n"), rest...), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func TestARoleMayLogInWithACertificate(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	f := newWalFixture(t, server.Database(t))
	role, _ := f.role(t, "replication")
	ours, foreign := newAuthority(t), newAuthority(t)
	asks(t, server, "hostssl all "+role+" 127.0.0.1/32 cert")
	raw, err := os.ReadFile(ours.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(server.DataDir(), "authority.pem"), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	f.run(t, "alter system set ssl_ca_file = 'authority.pem'")
	ours.present(t, server, func(*x509.Certificate) {})
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		query, says string
	}{
		"its own":              {ours.client(t, role, soon), ""},
		"none":                 {"", "SQLSTATE 28000"},
		"another role's":       {ours.client(t, "postgres", soon), "SQLSTATE 28000"},
		"an expired one":       {ours.client(t, role, past), "check sslcert and sslkey"},
		"of another authority": {foreign.client(t, role, soon), "check sslcert and sslkey"},
	} {
		t.Run(name, func(t *testing.T) {
			config := f.config
			config.Database = f.at(t, func(at *url.URL) {
				at.User, at.RawQuery = url.User(role), "sslmode=verify-full&sslrootcert="+url.QueryEscape(ours.file)+"&"+c.query
			})
			conn, err := wal.Connect(walContext(t), config)
			if c.says != "" {
				wantClass(t, err, fault.Operator, c.says)
				return
			}
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			conn.Close(walContext(t)) //nolint:errcheck // it was only to be made
		})
	}
}

// between stands between us and a server with a certificate that we trust, and reads all
// that goes by: it speaks TLS with us, and with the server too or clear text.
func between(tb testing.TB, server string, certificate tls.Certificate, encrypted bool) (address string) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var links sync.WaitGroup
	links.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			links.Go(func() {
				defer client.Close()
				relay(client, server, certificate, encrypted)
			})
		}
	})
	tb.Cleanup(func() {
		listener.Close() //nolint:errcheck // nothing is owed to it
		links.Wait()
	})
	return listener.Addr().String()
}

func relay(client net.Conn, address string, certificate tls.Certificate, encrypted bool) {
	sslRequest := []byte{0, 0, 0, 8, 4, 210, 22, 47}
	if _, err := io.ReadFull(client, make([]byte, len(sslRequest))); err != nil {
		return
	}
	if _, err := client.Write([]byte("S")); err != nil {
		return
	}
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	if encrypted {
		if _, err := server.Write(sslRequest); err != nil {
			return
		}
		if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
			return
		}
		server = tls.Client(server, &tls.Config{InsecureSkipVerify: true}) // it wants to know all, not to be safe
	}
	secure := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{certificate}})
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(secure, server) //nolint:errcheck // the end of either ends both
		client.Close()
	})
	io.Copy(server, secure) //nolint:errcheck // as above
	server.Close()
	back.Wait()
}

// A certificate alone does not help against somebody who has one that we trust. Channel
// binding does: the login is bound to the certificate that we saw.
func TestWhoStandsBetweenCannotBindALogin(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	f := newWalFixture(t, server.Database(t))
	ours := newAuthority(t)
	ours.present(t, server, func(*x509.Certificate) {})
	role, password := f.role(t, "replication")
	stolen := ours.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "between"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	reading, bridging := between(t, server.Address(), stolen, false), between(t, server.Address(), stolen, true)
	for _, c := range []struct {
		name, address, binding string
		class                  fault.Class
		says                   string
	}{
		{"nobody between", server.Address(), "require", fault.Stopped, ""},
		{"nobody between, a method named too", server.Address(), "require&require_auth=scram-sha-256", fault.Stopped, ""},
		{"who forwards in clear text, binding preferred", reading, "prefer", fault.Stopped, ""},
		{"who forwards in clear text", reading, "require", fault.Operator, "channel_binding=require"},
		{"who encrypts anew", bridging, "require", fault.Operator, "SQLSTATE 28"},
		{"who encrypts anew, binding preferred", bridging, "prefer", fault.Operator, "SQLSTATE 28"},
		{"a server with other methods", server.Address(), "prefer&require_auth=md5", fault.Operator, "require_auth=md5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := f.config
			config.Database = f.at(t, func(at *url.URL) {
				at.User, at.Host = url.UserPassword(role, password), c.address
				at.RawQuery = "sslmode=verify-full&sslrootcert=" + url.QueryEscape(ours.file) + "&channel_binding=" + c.binding
			})
			conn, err := wal.Connect(walContext(t), config)
			if err == nil {
				defer conn.Close(walContext(t)) //nolint:errcheck // it was only to be made
			}
			if c.class != fault.Stopped {
				wantClass(t, err, c.class, c.says)
			} else if err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}
