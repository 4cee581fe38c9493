package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// certified makes a certificate for the names that vouches for itself, and the file by
// which others trust it.
func certified(tb testing.TB, names ...string) (certificate tls.Certificate, file string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	file = filepath.Join(tb.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// secured stands in front of a server and speaks TLS for it, as a load balancer does.
func secured(tb testing.TB, target string, certificate tls.Certificate) (address string) {
	tb.Helper()
	return securedAs(tb, target, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}})
}

func securedAs(tb testing.TB, target string, config *tls.Config) (address string) {
	tb.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		tb.Fatal(err)
	}
	var working sync.WaitGroup
	working.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			working.Go(func() {
				defer client.Close()
				server, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer server.Close()
				working.Go(func() { io.Copy(server, client); server.Close() }) //nolint:errcheck // either may be gone
				io.Copy(client, server)                                        //nolint:errcheck // as above
			})
		}
	})
	tb.Cleanup(func() { l.Close(); working.Wait() }) //nolint:errcheck // nothing is owed to it
	return l.Addr().String()
}

func TestRabbitSinkVerifiesTheBrokersCertificate(t *testing.T) {
	rabbit := servers.SharedRabbit(t)
	name := rabbit.Name(t)
	rabbit.Queue(t, name, nil)
	good, goodFile := certified(t, "localhost")
	bad, badFile := certified(t, "elsewhere")
	at := func(certificate tls.Certificate, settings ...string) string {
		_, port, _ := net.SplitHostPort(secured(t, rabbit.Address(), certificate))
		return asSecure(t, rabbit.URLAt("localhost:"+port)) + "?exchange=&" + strings.Join(settings, "&")
	}
	s := openSink(t, at(good, "cacertfile="+goodFile), sink.Options{Topics: []string{name}})
	sendOne(t, s, name, nil)
	if got := len(rabbitMessages(t, rabbit, name)); got != 1 {
		t.Errorf("the queue holds %d messages, want 1", got)
	}
	for what, u := range map[string]string{
		"an authority that nobody trusts": at(good),
		"another's certificate":           at(bad, "cacertfile="+goodFile),
		"another's name":                  at(bad, "cacertfile="+badFile),
		"no TLS at all":                   asSecure(t, rabbit.URL()) + "?exchange=",
	} {
		if _, err := sink.Open(t.Context(), u, sink.Options{}); fault.Classify(err) != fault.Operator {
			t.Errorf("%s: Open gives %v of class %v, want an operator error", what, err, fault.Classify(err))
		}
	}
}

func asSecure(tb testing.TB, text string) string {
	tb.Helper()
	u, err := url.Parse(text)
	if err != nil {
		tb.Fatal("the test server's URL does not parse")
	}
	u.Scheme = "amqps"
	return u.String()
}

// What stands in front of the server wants our certificate.
func TestRabbitSinkShowsItsCertificate(t *testing.T) {
	t.Parallel()
	rabbit := servers.SharedRabbit(t)
	name := rabbit.Name(t)
	rabbit.Queue(t, name, nil)
	ours, foreign := newAuthority(t), newAuthority(t)
	clients := x509.NewCertPool()
	clients.AddCert(ours.certificate)
	certificate, file := certified(t, "localhost")
	address := securedAs(t, rabbit.Address(), &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	})
	_, port, _ := net.SplitHostPort(address)
	at := asSecure(t, rabbit.URLAt("localhost:"+port)) + "?exchange=&cacertfile=" + file
	showing := func(path string) string { return at + "&certfile=" + path + "&keyfile=" + path }
	s := openSink(t, showing(ours.keystore(t, time.Now().Add(time.Hour))), sink.Options{Topics: []string{name}})
	sendOne(t, s, name, nil)
	for what, u := range map[string]string{
		"none":                 at,
		"an expired one":       showing(ours.keystore(t, time.Now().Add(-time.Hour))),
		"of another authority": showing(foreign.keystore(t, time.Now().Add(time.Hour))),
	} {
		_, err := sink.Open(t.Context(), u, sink.Options{})
		if err == nil || fault.Classify(err) != fault.Operator {
			t.Errorf("%s: Open gives %v of class %v, want an operator error", what, err, fault.Classify(err))
		}
	}
}
