package test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// certifiedRabbit is a RabbitMQ that takes a client's certificate for its login, and
// knows a user by the certificate's common name.
func certifiedRabbit(tb testing.TB, ours *authority) *servers.RabbitServer {
	tb.Helper()
	keystore := ours.keystore(tb, time.Now().Add(time.Hour), func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"localhost"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	// The server runs as another user than the test, and these files are of no worth.
	for _, file := range []string{keystore, ours.file} {
		for path, mode := range map[string]os.FileMode{file: 0o644, filepath.Dir(file): 0o755, filepath.Dir(filepath.Dir(file)): 0o755} {
			if err := os.Chmod(path, mode); err != nil {
				tb.Fatal(err)
			}
		}
	}
	options := []servers.Option{servers.Plugin("rabbitmq_auth_mechanism_ssl")}
	for name, value := range map[string]string{
		"ssl_options.cacertfile": ours.file, "ssl_options.certfile": keystore, "ssl_options.keyfile": keystore,
		"ssl_options.verify": "verify_peer", "ssl_options.fail_if_no_peer_cert": "true",
		"auth_mechanisms.1": "EXTERNAL", "auth_mechanisms.2": "PLAIN", "ssl_cert_login_from": "common_name",
	} {
		options = append(options, servers.Setting(name, value))
	}
	return servers.Rabbit(tb, options...)
}

func TestRabbitSinkLogsInByItsCertificate(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	rabbit := certifiedRabbit(t, ours)
	name := rabbit.Name(t)
	rabbit.Queue(t, name, nil)
	const user = "certified streamer"
	file := ours.keystore(t, time.Now().Add(time.Hour), func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: user} })
	at := func(address, authority string) string {
		_, port, _ := net.SplitHostPort(address)
		return "amqps://localhost:" + port + "?exchange=&auth_mechanism=external&cacertfile=" + authority + "&certfile=" + file + "&keyfile=" + file
	}
	refused := func(what, u string, says ...string) {
		t.Helper()
		_, err := sink.Open(t.Context(), u, sink.Options{})
		if fault.Classify(err) != fault.Operator {
			t.Fatalf("%s: Open gives %v of class %v, want an operator error", what, err, fault.Classify(err))
		}
		for _, say := range says {
			if text := err.Error(); !strings.Contains(text, say) || strings.Contains(text, "user and password") {
				t.Errorf("%s: the error does not say %q, or asks for a password: %s", what, say, text)
			}
		}
	}
	refused("no such user", at(rabbit.SecureAddress(), ours.file), "CN="+user, "rabbitmqctl add_user")
	rabbit.Control(t, "add_user", user, "never used")
	rabbit.Control(t, "clear_password", user)
	refused("a user who may not enter the virtual host", at(rabbit.SecureAddress(), ours.file), "permissions")

	rabbit.Control(t, "set_permissions", user, "", ".*", "")
	s := openSink(t, at(rabbit.SecureAddress(), ours.file), sink.Options{Topics: []string{name}})
	sendOne(t, s, name, nil)
	if out := rabbit.Control(t, "list_connections", "user", "auth_mechanism", "ssl"); !strings.Contains(out, user+"\tEXTERNAL\ttrue") {
		t.Errorf("the broker has these connections, want one of %s by EXTERNAL:\n%s", user, out)
	}
	if got := len(rabbitMessages(t, rabbit, name)); got != 1 {
		t.Errorf("the queue holds %d messages, want 1", got)
	}

	certificate, other := certified(t, "localhost")
	unseen := securedAs(t, rabbit.Address(), &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert})
	refused("a broker that does not see the certificate", at(unseen, other), "rabbitmq_auth_mechanism_ssl")
}
