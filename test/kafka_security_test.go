package test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

const (
	kafkaUser   = "streamer"
	kafkaSecret = "kafka-s3cret+&#%w" // with what a URL minds
)

// secureKafka is a broker with a listener for each way to be let in, and what it takes.
type secureKafka struct {
	*servers.KafkaServer
	ours  *authority // signs the broker's certificates, and those of clients
	topic string
}

// newSecureKafka starts one.
func newSecureKafka(tb testing.TB) *secureKafka {
	tb.Helper()
	k := &secureKafka{ours: newAuthority(tb)}
	named := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }
	stores := map[string]map[string]string{
		"TLS":     k.ours.store(tb, named),
		"MTLS":    k.ours.store(tb, named),
		"SASL":    k.ours.store(tb, named),
		"EXPIRED": k.ours.store(tb, named, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }),
		"OTHER":   k.ours.store(tb, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 1, 1)} }),
	}
	options := []servers.Option{
		servers.Listener("CLEAR", "SASL_PLAINTEXT"),
		servers.Setting("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"),
		servers.Setting("listener.name.mtls.ssl.client.auth", "required"),
		servers.Setting("listener.name.sasl.oauthbearer.connections.max.reauth.ms", "3600000"), // or as long as the token is good for
	}
	for name, store := range stores {
		protocol := "SSL"
		if name == "SASL" {
			protocol = "SASL_SSL"
		}
		options = append(options, servers.Listener(name, protocol))
		for setting, value := range store {
			options = append(options, servers.Setting("listener.name."+strings.ToLower(name)+"."+setting, value))
		}
	}
	for _, listener := range []string{"sasl", "clear"} {
		for mechanism, module := range map[string]string{
			"plain":         `org.apache.kafka.common.security.plain.PlainLoginModule required user_` + kafkaUser + `="` + kafkaSecret + `";`,
			"scram-sha-256": `org.apache.kafka.common.security.scram.ScramLoginModule required;`,
			"scram-sha-512": `org.apache.kafka.common.security.scram.ScramLoginModule required;`,
			"oauthbearer":   `org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`,
		} {
			options = append(options, servers.Setting("listener.name."+listener+"."+mechanism+".sasl.jaas.config", module))
		}
	}
	k.KafkaServer = servers.Kafka(tb, options...)
	k.topic = k.Topic(tb, 1)
	admin := kadm.NewClient(k.Client(tb))
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		user := kadm.UpsertSCRAM{User: kafkaUser, Mechanism: mechanism, Iterations: 4096, Password: kafkaSecret}
		answers, err := admin.AlterUserSCRAMs(walContext(tb), nil, []kadm.UpsertSCRAM{user}) // one of a user at a time
		if err != nil || answers.Error() != nil {
			tb.Fatalf("make users: %v, %v", err, answers.Error())
		}
	}
	// The broker learns of users a moment after the controller has said that they are there.
	auth := scram.Auth{User: kafkaUser, Pass: kafkaSecret}
	for _, mechanism := range []sasl.Mechanism{auth.AsSha256Mechanism(), auth.AsSha512Mechanism()} {
		client := k.Client(tb, kgo.SeedBrokers(k.Listener("CLEAR")), kgo.SASL(mechanism))
		eventually(tb, time.Minute, "the broker lets the user in by "+mechanism.Name(), func() bool { return client.Ping(walContext(tb)) == nil })
	}
	return k
}

// store is a server's certificate and key in the form of Kafka's settings, in one line.
func (a *authority) store(tb testing.TB, changes ...func(*x509.Certificate)) map[string]string {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "kafka"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, change := range changes {
		change(template)
	}
	certificate := a.sign(tb, template)
	inLine := func(block *pem.Block) string {
		return strings.ReplaceAll(strings.TrimSpace(string(pem.EncodeToMemory(block))), "\n", `\n`)
	}
	chain := inLine(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	trusted := inLine(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
	return map[string]string{
		"ssl.keystore.type": "PEM", "ssl.keystore.key": inLine(keyBlock(tb, certificate)), "ssl.keystore.certificate.chain": chain,
		"ssl.truststore.type": "PEM", "ssl.truststore.certificates": trusted,
	}
}

// keystore is a file with a client's certificate and key.
func (a *authority) keystore(tb testing.TB, until time.Time, changes ...func(*x509.Certificate)) string {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "outboxcdc"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, change := range changes {
		change(template)
	}
	certificate := a.sign(tb, template)
	var both bytes.Buffer
	for _, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}, keyBlock(tb, certificate)} {
		if err := pem.Encode(&both, block); err != nil {
			tb.Fatal(err)
		}
	}
	path := filepath.Join(tb.TempDir(), "keystore.pem")
	if err := os.WriteFile(path, both.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// at is the sink's URL of a listener.
func (k *secureKafka) at(listener string, settings ...string) string {
	return "kafka://" + k.Listener(listener) + "?" + strings.Join(settings, "&")
}

func (k *secureKafka) trusting() string { return "ssl.truststore.location=" + k.ours.file }

// login are the settings of one with a name and a password.
func login(protocol, mechanism, password string) []string {
	return []string{
		"security.protocol=" + protocol, "sasl.mechanism=" + mechanism, "sasl.username=" + kafkaUser,
		"sasl.password=" + strings.ReplaceAll(url.QueryEscape(password), "+", "%20"),
	}
}

// entry is a try to be let in by the broker.
type entry struct {
	listener string
	settings []string
	class    fault.Class // Stopped where it must be let in
	says     string
}

func (k *secureKafka) entries(tb testing.TB) map[string]entry {
	tb.Helper()
	foreign := newAuthority(tb)
	tlsOnly, trusted := "security.protocol=SSL", k.trusting()
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	issuer := newIssuer(tb, k.ours, time.Hour)
	withToken := func(settings ...string) []string {
		return append([]string{"security.protocol=SASL_SSL", "sasl.mechanism=OAUTHBEARER", trusted}, settings...)
	}
	all := map[string]entry{
		"OAUTHBEARER":                                  {"SASL", withToken(issuer.settings(kafkaSecret)...), fault.Stopped, ""},
		"OAUTHBEARER, wrong secret":                    {"SASL", withToken(issuer.settings("wrong")...), fault.Operator, "status 401, invalid_client"},
		"OAUTHBEARER, expired":                         {"SASL", withToken(newIssuer(tb, k.ours, -time.Hour).settings(kafkaSecret)...), fault.Operator, "sasl.mechanism"},
		"OAUTHBEARER, an endpoint nobody knows":        {"SASL", withToken(newIssuer(tb, foreign, time.Hour).settings(kafkaSecret)...), fault.Operator, "ssl.truststore.location"},
		"OAUTHBEARER, an endpoint that is away":        {"SASL", withToken(issuer.away().settings(kafkaSecret)...), fault.Transient, "token.endpoint.url"},
		"OAUTHBEARER, from a file":                     {"SASL", withToken(tokenFile(tb, bearerToken(soon))), fault.Stopped, ""},
		"OAUTHBEARER, from a file that nobody renewed": {"SASL", withToken(tokenFile(tb, bearerToken(past))), fault.Operator, "expired at"},
		"OAUTHBEARER, in JAAS' form": {
			"SASL", withToken(issuer.settings("")[0], "sasl.jaas.config="+jaas(`OAuthBearerLoginModule required clientId="`+kafkaUser+`" clientSecret="`+kafkaSecret+`" extension_logicalCluster="lkc-1";`)),
			fault.Stopped, "",
		},
		"TLS":                                 {"TLS", []string{tlsOnly, trusted}, fault.Stopped, ""},
		"TLS, an authority that nobody named": {"TLS", []string{tlsOnly}, fault.Operator, "ssl.truststore.location"},
		"TLS, another authority":              {"TLS", []string{tlsOnly, "ssl.truststore.location=" + foreign.file}, fault.Operator, "ssl.truststore.location"},
		"TLS, expired":                        {"EXPIRED", []string{tlsOnly, trusted}, fault.Operator, "expired"},
		"TLS, another host's":                 {"OTHER", []string{tlsOnly, trusted}, fault.Operator, "10.1.1.1"},
		"TLS, without it":                     {"TLS", nil, fault.Transient, "security.protocol"},
		"no TLS, with it":                     {"CLEAR", []string{tlsOnly, trusted}, fault.Transient, "security.protocol"},
		"no TLS, with it and a password":      {"CLEAR", append(login("SASL_SSL", "PLAIN", kafkaSecret), trusted), fault.Transient, "security.protocol"},
		"a certificate of ours":               {"MTLS", []string{tlsOnly, trusted, "ssl.keystore.location=" + k.ours.keystore(tb, soon)}, fault.Stopped, ""},
		"no certificate of ours":              {"MTLS", []string{tlsOnly, trusted}, fault.Operator, "ssl.keystore.location"},
		"an expired certificate of ours":      {"MTLS", []string{tlsOnly, trusted, "ssl.keystore.location=" + k.ours.keystore(tb, past)}, fault.Operator, "ssl.keystore.location"},
		"a certificate of ours that nobody knows": {
			"MTLS", []string{tlsOnly, trusted, "ssl.keystore.location=" + foreign.keystore(tb, soon)}, fault.Operator, "ssl.keystore.location",
		},
		"no login where one is wanted":       {"SASL", []string{tlsOnly, trusted}, fault.Transient, "security.protocol"},
		"a login where none is wanted":       {"TLS", append(login("SASL_SSL", "SCRAM-SHA-512", kafkaSecret), trusted), fault.Operator, "none on this port"},
		"PLAIN in clear text":                {"CLEAR", login("SASL_PLAINTEXT", "PLAIN", kafkaSecret), fault.Stopped, ""},
		"SCRAM in clear text":                {"CLEAR", login("SASL_PLAINTEXT", "SCRAM-SHA-256", kafkaSecret), fault.Stopped, ""},
		"a login, an authority nobody named": {"SASL", login("SASL_SSL", "PLAIN", kafkaSecret), fault.Operator, "ssl.truststore.location"},
	}
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		all[mechanism] = entry{"SASL", append(login("SASL_SSL", mechanism, kafkaSecret), trusted), fault.Stopped, ""}
		all[mechanism+", wrong password"] = entry{"SASL", append(login("SASL_SSL", mechanism, kafkaSecret+"!"), trusted), fault.Operator, "sasl.password"}
	}
	return all
}

func TestKafkaAndWeLearnWhoTheOtherIs(t *testing.T) {
	t.Parallel()
	k := newSecureKafka(t)
	t.Run("sink", func(t *testing.T) {
		for name, e := range k.entries(t) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				k.try(t, e)
			})
		}
	})
	t.Run("a token that expires", func(t *testing.T) { t.Parallel(); k.outlivesATokenInOneSession(t) })
	t.Run("positions", func(t *testing.T) { t.Parallel(); k.keepsPositions(t) })
	t.Run("command", func(t *testing.T) { t.Parallel(); k.refusesTheCommand(t) })
}

// try opens a sink, and sends where it is let in. What is said and logged has no secret
// in it.
func (k *secureKafka) try(t *testing.T, e entry) {
	t.Helper()
	var log syncBuffer
	options := sink.Options{Topics: []string{k.topic}, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	s, err := sink.Open(walContext(t), k.at(e.listener, e.settings...), options)
	if err == nil {
		defer s.Close() //nolint:errcheck // nothing is owed to it
	}
	if e.class == fault.Stopped && err != nil {
		t.Fatalf("refused: %v", err)
	}
	if e.class != fault.Stopped {
		wantClass(t, err, e.class, e.says)
	} else {
		sendOne(t, s, k.topic, nil)
	}
	wantNoSecret(t, log.String(), kafkaSecret)
	if err != nil {
		wantNoSecret(t, err.Error(), kafkaSecret)
	}
}

// wantNoSecret wants a secret nowhere in a text, whichever way it is written.
func wantNoSecret(tb testing.TB, text string, secrets ...string) {
	tb.Helper()
	for _, secret := range secrets {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			if strings.Contains(text, form) {
				tb.Errorf("a secret is in:\n%s", text)
			}
		}
	}
}

// keepsPositions uses the store of positions in a topic with the sink's login.
func (k *secureKafka) keepsPositions(t *testing.T) {
	t.Helper()
	positions := func(password string) checkpoint.Store {
		settings := append(login("SASL_SSL", "SCRAM-SHA-512", password), k.trusting(), "create=true")
		s, err := checkpoint.Open(walContext(t), "kafka://"+k.Listener("SASL")+"/positions?"+strings.Join(settings, "&"), checkpoint.Options{Slot: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() }) //nolint:errcheck // nothing is owed to it
		return s
	}
	s := positions(kafkaSecret)
	preparer, ok := s.(checkpoint.Preparer)
	if !ok {
		t.Fatal("the store prepares nothing")
	}
	if _, err := preparer.Prepare(walContext(t)); err != nil {
		t.Fatal(err)
	}
	saves(t, s, "orders", wal.LSN(0x100))
	holds(t, s, wal.LSN(0x100))
	_, err := positions(kafkaSecret + "!").Load(walContext(t))
	wantClass(t, err, fault.Operator, "sasl.password")
	wantNoSecret(t, err.Error(), kafkaSecret)
}

// refusesTheCommand asks as a user does, who has got the password wrong.
func (k *secureKafka) refusesTheCommand(t *testing.T) {
	t.Helper()
	db := servers.SharedPostgres(t)
	slot := walName("slot")
	t.Cleanup(func() { mustRun(t, "drop", "--slot", slot, "--database-url", db.URL, "--yes", slot) })
	mustRun(t, "init", "--slot", slot, "--database-url", db.URL)
	u := k.at("SASL", append(login("SASL_SSL", "SCRAM-SHA-512", kafkaSecret+"!"), k.trusting())...)
	env := []string{"OUTBOXCDC_SINK=" + u, "OUTBOXCDC_DATABASE_URL=" + db.URL, "OUTBOXCDC_SLOT=" + slot}
	got := command(t, env, "stream", "--topic", k.topic, "--http", "off", "--log-level", "debug")
	wantRefusal(t, got, fault.ExitOperator, "sasl.username, sasl.password")
	wantNoSecret(t, got.out+got.errors, kafkaSecret, db.Server.Password())
	got = command(t, env, "check", "--topic", k.topic)
	if got.exit != fault.ExitOperator || !strings.Contains(got.out, "sasl.password") {
		t.Errorf("check ends with %d:\n%s%s", got.exit, got.out, got.errors)
	}
	wantNoSecret(t, got.out+got.errors, kafkaSecret, db.Server.Password())
}

// issuer gives out tokens over TLS, to who knows the secret.
type issuer struct {
	url   string
	asked atomic.Int64
}

func newIssuer(tb testing.TB, a *authority, life time.Duration) *issuer {
	tb.Helper()
	i := &issuer{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		user, password, _ := r.BasicAuth()
		if user != kafkaUser || password != kafkaSecret || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "events" && r.FormValue("scope") != "" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error": "invalid_client", "error_description": "no %s here"}`, password) //nolint:errcheck // the test fails without it
			return
		}
		fmt.Fprintf(w, `{"access_token": %q, "token_type": "Bearer", "expires_in": %d}`, bearerToken(time.Now().Add(life)), max(0, int(life.Seconds()))) //nolint:errcheck // as above
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{a.sign(tb, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "issuer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // whoever does not trust it is the test
	server.StartTLS()
	tb.Cleanup(server.Close)
	i.url = server.URL + "/token"
	return i
}

func (i *issuer) away() *issuer { return &issuer{url: "https://127.0.0.1:1/token"} }

func (i *issuer) settings(secret string) []string {
	return []string{
		"sasl.oauthbearer.token.endpoint.url=" + i.url, "sasl.oauthbearer.client.credentials.client.id=" + kafkaUser,
		"sasl.oauthbearer.client.credentials.client.secret=" + strings.ReplaceAll(url.QueryEscape(secret), "+", "%20"), "sasl.oauthbearer.scope=events",
	}
}

// bearerToken is an unsecured JWT (RFC 7519, 6), as Kafka's own validator for trials takes.
func bearerToken(expires time.Time) string {
	claims := fmt.Sprintf(`{"sub":%q,"scope":"events","iat":%d,"exp":%d}`, kafkaUser, expires.Add(-2*time.Hour).Unix(), expires.Unix())
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "."
}

func tokenFile(tb testing.TB, token string) (setting string) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return "sasl.oauthbearer.token.endpoint.url=file://" + path
}

func jaas(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// outlivesATokenInOneSession sends while tokens expire: the broker wants a new one before
// that, and nothing fails.
func (k *secureKafka) outlivesATokenInOneSession(t *testing.T) {
	t.Helper()
	// A token that is kept for four fifths of its life is still good for four seconds then,
	// which a machine that is busy may need to log in with it.
	const life = 20 * time.Second
	i := newIssuer(t, k.ours, life)
	settings := append([]string{"security.protocol=SASL_SSL", "sasl.mechanism=OAUTHBEARER", k.trusting()}, i.settings(kafkaSecret)...)
	began := time.Now()
	s := openSink(t, k.at("SASL", settings...), sink.Options{Topics: []string{k.topic}})
	eventually(t, 2*time.Minute, "a second token is used, and the first has expired", func() bool {
		sendOne(t, s, k.topic, nil)
		return i.asked.Load() >= 2 && time.Since(began) > life
	})
	took := time.Since(began)
	if n, most := i.asked.Load(), 2+int64(took/(life*4/5)); n > most {
		t.Errorf("%d tokens were asked for in %v, want %d at most: one for most of its life of %v", n, took, most, life)
	}
}
