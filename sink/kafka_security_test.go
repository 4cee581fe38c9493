package sink_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

const password = "p&s#w %+rd" // every character that a URL minds

func login(mechanism, user, password string) []string {
	return []string{
		"security.protocol=SASL_PLAINTEXT", "sasl.mechanism=" + mechanism,
		"sasl.username=" + user, "sasl.password=" + strings.NewReplacer("+", "%20", "%2B", "+").Replace(url.QueryEscape(password)),
	}
}

func TestLoginWithEachMechanism(t *testing.T) {
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := newFakeKafka(t, 1, kfake.EnableSASL(), kfake.Superuser(mechanism, "app", password), kfake.SeedTopics(1, topic))
				var log lockedBuffer
				o := fake.options(topic)
				o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				s := fake.open(t, o, login(mechanism, "app", password)...)
				if err := s.Send(t.Context(), []sink.Message{message("a", 1)}, ignore); err != nil {
					t.Fatal(err)
				}
				flush(t, s)
				closeSink(t, s)
				if warned := strings.Contains(log.String(), "not encrypted"); warned != (mechanism == "PLAIN") {
					t.Errorf("the warning that the password is readable is given: %v", warned)
				}

				// The fake one hangs up where a real broker answers.
				_, err := sink.Open(t.Context(), fake.url(login(mechanism, "app", password+"!")...), o)
				wantClass(t, err, fault.Transient, "another security.protocol")
				fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, TopLevel: true, Err: kerr.SaslAuthenticationFailed, Count: -1})
				_, err = sink.Open(t.Context(), fake.url(login(mechanism, "app", password+"!")...), o)
				wantClass(t, err, fault.Operator, "sasl.password")
				if text := err.Error() + log.String(); strings.Contains(text, password) || strings.Contains(text, url.QueryEscape(password)) {
					t.Errorf("the password is repeated: %s", text)
				}
			})
		})
	}
}

// lockedBuffer is a log that the client's goroutines write while a test reads it.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestAJAASTextIsALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", `a"b\c`))
		s := fake.open(t, fake.options(), "security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN",
			`sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule%20required%20username="app"%20password="a\"b\\c";`)
		closeSink(t, s)
	})
}

func TestWhatWeMayNotDoIsAnOperatorErrorWithTheGrant(t *testing.T) {
	const secret = "topic.secret"
	allow := func(name string, o kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: o, Allow: true}
	}
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, topic, secret, "readable"),
			kfake.Superuser("PLAIN", "admin", "admin"),
			kfake.User("PLAIN", "nobody", "x"),
			kfake.User("PLAIN", "app", "x",
				allow(topic, kmsg.ACLOperationWrite), allow(topic, kmsg.ACLOperationDescribe), allow("readable", kmsg.ACLOperationDescribe)))

		_, err := sink.Open(t.Context(), fake.url(login("PLAIN", "nobody", "x")...), fake.options(topic))
		wantClass(t, err, fault.Operator, "grant IdempotentWrite")
		_, err = sink.Open(t.Context(), fake.url(login("PLAIN", "app", "x")...), fake.options(topic, secret))
		wantClass(t, err, fault.Operator, secret, "grant Describe and Write")
		o := fake.options("absent")
		o.CreateTopics = true
		_, err = sink.Open(t.Context(), fake.url(login("PLAIN", "app", "x")...), o)
		wantClass(t, err, fault.Operator, "absent", "grant")

		// The topic's configuration may stay hidden: then our own limit holds.
		s := fake.open(t, fake.options(topic), login("PLAIN", "app", "x")...)
		if err := s.Send(t.Context(), []sink.Message{message("a", 1)}, func(err error) {
			if err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		flush(t, s)

		m := message("a", 1)
		m.Topic = "readable"
		var got error
		if err := s.Send(t.Context(), []sink.Message{m}, func(err error) { got = err }); err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		wantClass(t, got, fault.Operator, "readable", "grant Write")

		findings := sink.Check(t.Context(), fake.url(login("PLAIN", "app", "x")...), fake.options(topic, "readable", secret))
		wantFinding(t, findings, "topic readable", "topic.unauthorized", fault.Failure)
		wantFinding(t, findings, "topic "+secret, "topic.unusable", fault.Failure)
		wantFinding(t, findings, "topic "+topic, "topic.configuration_hidden", fault.Warning)
		findings = sink.Check(t.Context(), fake.url(login("PLAIN", "nobody", "x")...), fake.options(topic))
		wantFinding(t, findings, "kafka at localhost:9092", "kafka.unreachable", fault.Failure)
	})
}

// post is a connection that takes what is written at once, as a socket does and a pipe
// does not: in a handshake that fails both sides write, and nobody reads.
type post struct {
	net.Conn
	letters chan []byte
	done    chan struct{}
	once    sync.Once
}

func (p *post) Write(b []byte) (int, error) {
	select {
	case p.letters <- slices.Clone(b):
		return len(b), nil
	case <-p.done:
		return 0, net.ErrClosed
	}
}

func (p *post) Close() error {
	p.once.Do(func() { close(p.done) })
	return p.Conn.Close()
}

func (p *post) deliver() {
	for {
		select {
		case b := <-p.letters:
			if _, err := p.Conn.Write(b); err != nil {
				return
			}
		case <-p.done:
			return
		}
	}
}

func (f *fakeKafka) post(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := f.network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	p := &post{Conn: conn, letters: make(chan []byte, 1000), done: make(chan struct{})}
	go p.deliver()
	return p, nil
}

func TestTheBrokersCertificateIsVerified(t *testing.T) {
	cert, ca := certificate(t, "localhost")
	_, other := certificate(t, "localhost")
	elsewhere, elsewhereCA := certificate(t, "elsewhere")
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), kfake.SeedTopics(1, topic))
		s := fake.open(t, secured(fake, topic), "security.protocol=SSL", "ssl.truststore.location="+ca)
		if err := s.Send(t.Context(), []sink.Message{message("a", 1)}, func(err error) {
			if err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		flush(t, s)
		closeSink(t, s)

		_, err := sink.Open(t.Context(), fake.url("security.protocol=SSL", "ssl.truststore.location="+other), secured(fake, topic))
		wantClass(t, err, fault.Operator, "ssl.truststore.location")
		_, err = sink.Open(t.Context(), fake.url("security.protocol=SSL"), secured(fake, topic))
		wantClass(t, err, fault.Operator, "ssl.truststore.location")
		_, err = sink.Open(t.Context(), fake.url(), secured(fake, topic))
		wantClass(t, err, fault.Transient, "security.protocol")
	})
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{elsewhere}, MinVersion: tls.VersionTLS12}))
		_, err := sink.Open(t.Context(), fake.url("security.protocol=SSL", "ssl.truststore.location="+elsewhereCA), secured(fake))
		wantClass(t, err, fault.Operator, "certificate")
	})
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1)
		_, err := sink.Open(t.Context(), fake.url("security.protocol=SSL"), secured(fake))
		if fault.Classify(err) != fault.Transient && fault.Classify(err) != fault.Operator {
			t.Errorf("TLS with a broker that speaks none gives %v of class %v", err, fault.Classify(err))
		}
	})
}

// secured are options with a network that behaves in a handshake.
func secured(f *fakeKafka, topics ...string) sink.Options {
	o := f.options(topics...)
	o.Dial = f.post
	return o
}

// certificate makes a certificate for host that signs itself, and a file with it.
func certificate(tb testing.TB, host string) (pair tls.Certificate, file string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	// The clock of a bubble begins in the year 2000.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
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
