package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// authority signs certificates, as long as a test lasts.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string // its certificate
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{key: newKey(tb), file: filepath.Join(tb.TempDir(), "authority.pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "outboxcdc test"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	writePEM(tb, a.file, "CERTIFICATE", der, 0o600)
	return a
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func writePEM(tb testing.TB, path, kind string, der []byte, mode os.FileMode) {
	tb.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		tb.Fatal(err)
	}
}

// present gives a server a certificate that a signs, from now on.
func (a *authority) present(tb testing.TB, server *servers.PostgresServer, change func(*x509.Certificate)) {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "postgres"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(template)
	certificate := a.sign(tb, template)
	place(tb, server, "server.crt", &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	place(tb, server, "server.key", keyBlock(tb, certificate))
	takesTLS(tb, server, certificate.Certificate[0])
}

// sign makes a certificate and its key.
func (a *authority) sign(tb testing.TB, template *x509.Certificate) tls.Certificate {
	tb.Helper()
	key := newKey(tb)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func keyBlock(tb testing.TB, certificate tls.Certificate) *pem.Block {
	tb.Helper()
	secret, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}
	return &pem.Block{Type: "PRIVATE KEY", Bytes: secret}
}

// place gives a server a file in its data directory, which it can read.
func place(tb testing.TB, server *servers.PostgresServer, name string, content *pem.Block) {
	tb.Helper()
	path := filepath.Join(server.DataDir(), name)
	writePEM(tb, path, content.Type, content.Bytes, 0o600)
	owner, ok := statOf(tb, server.DataDir()).Sys().(*syscall.Stat_t)
	if !ok {
		tb.Fatal("the system does not say whose the server's files are")
	}
	if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
		tb.Fatal(err)
	}
}

func statOf(tb testing.TB, path string) os.FileInfo {
	tb.Helper()
	info, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return info
}

// takesTLS lets a server offer TLS with a certificate, or none, and waits until it does.
func takesTLS(tb testing.TB, server *servers.PostgresServer, certificate []byte) {
	tb.Helper()
	admin := server.Conn(tb, "postgres")
	setting := "on"
	if certificate == nil {
		setting = "off"
	}
	for _, sql := range []string{"alter system set ssl = " + setting, "select pg_reload_conf()"} {
		if _, err := admin.Exec(walContext(tb), sql); err != nil {
			tb.Fatal(err)
		}
	}
	eventually(tb, time.Minute, "the server has read its certificate", func() bool { return bytes.Equal(shown(tb, server), certificate) })
}

// shown is the certificate that a server shows, or nil when it takes no TLS.
func shown(tb testing.TB, server *servers.PostgresServer) []byte {
	tb.Helper()
	conn, err := net.Dial("tcp", server.Address())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	var answer [1]byte
	sslRequest := []byte{0, 0, 0, 8, 4, 210, 22, 47} // its length, and 1234.5679 (protocol.h, NEGOTIATE_SSL_CODE)
	if _, err := conn.Write(sslRequest); err != nil {
		tb.Fatal(err)
	}
	if _, err := conn.Read(answer[:]); err != nil {
		tb.Fatal(err)
	}
	if answer[0] != 'S' {
		return nil
	}
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // it is to show even a bad one
	if err := secure.HandshakeContext(walContext(tb)); err != nil {
		tb.Fatal(err)
	}
	return secure.ConnectionState().PeerCertificates[0].Raw
}

// The server shows certificates that must not be believed, or takes no TLS at all.
func TestAServerThatCannotProveWhoItIsIsRefused(t *testing.T) {
	server := servers.Postgres(t)
	f := newWalFixture(t, server.Database(t))
	ours, foreign := newAuthority(t), newAuthority(t)
	as := func(mode string) wal.Config {
		config := f.config
		config.Database = f.at(t, func(at *url.URL) { at.RawQuery = mode + "&sslrootcert=" + url.QueryEscape(ours.file) })
		return config
	}
	good := func(*x509.Certificate) {}
	for _, c := range []struct {
		name   string
		signer *authority // nil: the server takes no TLS
		change func(*x509.Certificate)
		mode   string
		class  fault.Class // Stopped where it must be let in
		says   string
	}{
		{"a good certificate", ours, good, "sslmode=verify-full", fault.Stopped, ""},
		{"an expired one", ours, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }, "sslmode=verify-full", fault.Operator, "expired"},
		{"one of another host", ours, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 1, 1)} }, "sslmode=verify-full", fault.Operator, "127.0.0.1"},
		{"the same where nobody asks for the host", ours, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 1, 1)} }, "sslmode=verify-ca", fault.Stopped, ""},
		{"one of an unknown authority", foreign, good, "sslmode=verify-ca", fault.Operator, "name the authority"},
		{"no TLS", nil, good, "sslmode=verify-full", fault.Operator, "takes no TLS"},
		{"no TLS where anybody's would do", nil, good, "sslmode=require", fault.Operator, "takes no TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.signer == nil {
				takesTLS(t, server, nil)
			} else {
				c.signer.present(t, server, c.change)
			}
			conn, err := wal.Connect(walContext(t), as(c.mode))
			if c.class != fault.Stopped {
				wantClass(t, err, c.class, c.says, "127.0.0.1")
				return
			}
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			conn.Close(walContext(t)) //nolint:errcheck // it was only to be made
		})
	}
}

// Without an sslmode in the URL a local host's is libpq's: TLS where the server takes it,
// with no proof of who that is, and none where it does not.
func TestWithoutAnSSLModeTheStreamFromALocalHostIsEncryptedWhereTheServerCanAndProvesNothing(t *testing.T) {
	server := servers.Postgres(t)
	f := newWalFixture(t, server.Database(t))
	config := f.config
	config.Database = f.at(t, func(at *url.URL) { at.RawQuery = "" })
	encrypted := func() (yes bool) {
		conn := f.connect(t, config)
		f.ask(t, "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where application_name = $1", &yes, "outboxcdc "+config.Slot)
		conn.Close(walContext(t)) //nolint:errcheck // it was only to be made
		return yes
	}
	if encrypted() {
		t.Error("encrypted with a server that takes no TLS")
	}
	newAuthority(t).present(t, server, func(*x509.Certificate) {})
	if !encrypted() {
		t.Error("not encrypted with a server that takes TLS")
	}
}

// A whole stream over TLS, until the certificate has expired.
func TestAStreamOverTLSEndsWhenTheCertificateIsNotToBeBelievedAnyMore(t *testing.T) {
	t.Parallel()
	server := servers.Postgres(t)
	l := newLine(t, server.Database(t), servers.SharedKafka(t))
	ours := newAuthority(t)
	ours.present(t, server, func(*x509.Certificate) {})
	f := &walFixture{db: l.db, sql: l.sql}
	s := l.streamFrom(t, f.at(t, func(at *url.URL) { at.RawQuery = "sslmode=verify-full&sslrootcert=" + url.QueryEscape(ours.file) }))
	l.event(t, "over TLS")
	eventually(t, time.Minute, "the event arrives", func() bool { return l.arrived(t, "over TLS") == 1 })
	var plain int
	f.ask(t, "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where application_name like 'outboxcdc%' and not ssl", &plain)
	if plain > 0 {
		t.Errorf("%d connections of the stream are not encrypted", plain)
	}
	ours.present(t, server, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	l.exec(t, "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", l.slot)
	s.wantEnd(t, "expired", "renew the server's certificate")
}
