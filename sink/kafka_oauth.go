package sink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// kafkaOAuth says where tokens come from (KIP-768, KIP-1139): an endpoint that gives
// them for an id and a secret, or a file that somebody else renews.
type kafkaOAuth struct {
	endpoint               string // https://… or file:///…
	clientID, clientSecret string
	scope                  string // empty means the endpoint's own
}

// completeOAuth judges the settings. The endpoint gets the secret, so it proves who it
// is, unless it is on this machine.
func (s *kafkaSecurity) completeOAuth() error {
	const setting = "sasl.oauthbearer.token.endpoint.url"
	if s.oauth.endpoint == "" {
		return errSASL(setting+" is missing", "name the endpoint that gives out tokens, or a file as file:///path")
	}
	at, err := url.Parse(s.oauth.endpoint)
	switch {
	case err != nil || at.User != nil || at.Fragment != "":
		return badValue(setting, "https://host/path or file:///path, without credentials")
	case at.Scheme == "file" && at.Host == "" && at.Path != "" && at.RawQuery == "":
		return s.extensionsFault()
	case at.Scheme == "http" && !isLoopback(at.Hostname()):
		return errSASL(setting+" is not encrypted, and our secret goes there", "name it as https://…")
	case at.Scheme != "https" && at.Scheme != "http" || at.Host == "":
		return badValue(setting, "https://host/path or file:///path")
	case s.oauth.clientID == "" || s.oauth.clientSecret == "":
		return errSASL("the id or the secret for "+setting+" is missing",
			"add sasl.oauthbearer.client.credentials.client.id and sasl.oauthbearer.client.credentials.client.secret")
	default:
		return s.extensionsFault()
	}
}

func isLoopback(host string) bool {
	at, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && at.IsLoopback()
}

const jaasExtension = "extension_" // what goes with the token (KIP-342), such as extension_logicalCluster

func (s *kafkaSecurity) extensions() map[string]string {
	all := make(map[string]string)
	for name, value := range s.jaas {
		if name, ok := strings.CutPrefix(name, jaasExtension); ok {
			all[name] = value
		}
	}
	return all
}

// extensionsFault refuses what would read as something else behind the token
// (RFC 7628, 3.1).
func (s *kafkaSecurity) extensionsFault() error {
	for name, value := range s.extensions() {
		letters := strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
		if name == "" || !letters || name == "auth" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return badValue("sasl.jaas.config", "extension_NAME with a name of letters, other than auth, and a value of plain text")
		}
	}
	return nil
}

func (s *kafkaSecurity) oauthMechanism() sasl.Mechanism {
	t := newTokens(s.oauth, s.caFile)
	extensions := s.extensions()
	return bearer{oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
		token, err := t.take(ctx)
		return oauth.Auth{Token: token, Extensions: extensions}, err
	})}
}

// bearer is the client's mechanism to the end of a refusal: a broker that dislikes a
// token says so in an answer that wants an answer (RFC 7628, 3.2.3), and only then that
// the login has failed.
type bearer struct{ sasl.Mechanism }

// Authenticate is sasl.Mechanism's.
func (b bearer) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	_, first, err := b.Mechanism.Authenticate(ctx, host)
	return &bearerSession{}, first, err
}

type bearerSession struct{ refused bool }

// Challenge is sasl.Session's.
func (s *bearerSession) Challenge(answer []byte) (done bool, response []byte, err error) {
	if s.refused {
		return false, nil, fault.NewOperator(errors.New("log in to kafka: the broker refuses the token"), "check the client's scope, and what the broker expects of a token")
	}
	if len(answer) == 0 {
		return true, nil, nil
	}
	s.refused = true
	return false, []byte{1}, nil
}

// tokens has a token when a connection logs in, or proves again who it is: a broker that
// limits the life of a login asks for that before the token expires (KIP-368). One from
// an endpoint is kept for four fifths of its life, as Java clients do; one from a file
// is read each time.
type tokens struct {
	settings kafkaOAuth
	client   *http.Client
	turn     chan struct{} // holds what is below: brokers are connected to at the same time
	kept     string
	until    time.Time
}

const (
	tokenTimeout = 10 * time.Second
	tokenBytes   = 1 << 20 // of an answer, and of a file
	tokenLife    = 0.8     // Kafka's sasl.login.refresh.window.factor
)

func newTokens(settings kafkaOAuth, authorities string) *tokens {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: tokenTimeout, TLSClientConfig: endpointTLS(authorities), DisableKeepAlives: true}
	return &tokens{
		settings: settings,
		client: &http.Client{
			Transport: transport, Timeout: tokenTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the secret goes nowhere else
		},
		turn: make(chan struct{}, 1),
	}
}

// endpointTLS trusts whom the system trusts, and the authorities in a file, which has
// been read before.
func endpointTLS(file string) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	text, err := os.ReadFile(file) //nolint:gosec // the user names it
	if file == "" || err != nil {
		return c
	}
	if c.RootCAs, err = x509.SystemCertPool(); err != nil {
		c.RootCAs = x509.NewCertPool()
	}
	c.RootCAs.AppendCertsFromPEM(text)
	return c
}

// take gives a token. Errors never repeat it, nor the secret.
func (t *tokens) take(ctx context.Context) (string, error) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-t.turn }()
	if path, ok := strings.CutPrefix(t.settings.endpoint, "file://"); ok {
		return tokenFromFile(path)
	}
	if t.kept != "" && time.Now().Before(t.until) {
		return t.kept, nil
	}
	asked := time.Now()
	token, life, err := t.fetch(ctx)
	if err != nil {
		return "", err
	}
	t.kept, t.until = token, asked.Add(time.Duration(float64(life)*tokenLife))
	return token, nil
}

func tokenFromFile(path string) (string, error) {
	path, err := url.PathUnescape(path)
	if err != nil {
		return "", badValue("sasl.oauthbearer.token.endpoint.url", "file:///path")
	}
	file, err := os.Open(path) //nolint:gosec // the user names it
	if err != nil {
		return "", fault.NewOperator(fmt.Errorf("read the token for kafka: %w", err), "check sasl.oauthbearer.token.endpoint.url, and who renews the file")
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(file, tokenBytes))
	if err != nil {
		return "", fmt.Errorf("read the token for kafka: %w", err)
	}
	token := strings.TrimSpace(string(text))
	switch expires, known := expiry(token); {
	case !isToken(token):
		return "", fault.NewOperator(fmt.Errorf("the file %s holds no token", path), "it must hold one and nothing else")
	case known && time.Now().After(expires):
		return "", fault.NewOperator(fmt.Errorf("the token in the file %s expired at %s", path, expires.UTC().Format(time.RFC3339)),
			"look at who renews it, and at the clocks")
	}
	return token, nil
}

// tokenAnswer is what an endpoint says (RFC 6749, 5.1 and 5.2).
type tokenAnswer struct {
	Token   string  `json:"access_token"`
	Seconds float64 `json:"expires_in"`
	Error   string  `json:"error"`
}

// fetch asks the endpoint for a token and says for how long it is good: 0 when nobody
// knows.
func (t *tokens) fetch(ctx context.Context) (token string, life time.Duration, err error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if t.settings.scope != "" {
		form.Set("scope", t.settings.scope)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.settings.endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, badValue("sasl.oauthbearer.token.endpoint.url", "https://host/path")
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	request.SetBasicAuth(t.settings.clientID, t.settings.clientSecret) // not escaped, as Java clients have it
	response, err := t.client.Do(request)
	if err != nil {
		return "", 0, t.unreachable(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	var answer tokenAnswer
	parsed := json.NewDecoder(io.LimitReader(response.Body, tokenBytes)).Decode(&answer) == nil
	switch {
	case response.StatusCode != http.StatusOK:
		return "", 0, t.refused(response.StatusCode, answer.Error)
	case !parsed || !isToken(answer.Token):
		return "", 0, fault.NewOperator(fmt.Errorf("%s: the answer has no access_token", t.subject()), "check that it is the endpoint for tokens")
	}
	life = time.Duration(answer.Seconds * float64(time.Second))
	if expires, known := expiry(answer.Token); life <= 0 && known {
		life = time.Until(expires)
	}
	return answer.Token, max(life, 0), nil
}

func (t *tokens) subject() string { return "get a token for kafka from " + t.settings.endpoint }

// unreachable looks like a lost connection, which the client survives; what trust is
// missing does not come by itself.
func (t *tokens) unreachable(err error) error {
	if cause, ok := errors.AsType[*url.Error](err); ok {
		err = cause.Err // its text repeats the endpoint
	}
	var unverified *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	if errors.As(err, &unverified) || errors.As(err, &authority) {
		return fault.NewOperator(fmt.Errorf("%s: %w", t.subject(), err), "trust its authority with ssl.truststore.location, and name it as its certificate does")
	}
	return &fault.Error{
		Class: fault.Transient, Err: fmt.Errorf("%s: %w", t.subject(), &net.OpError{Op: "ask", Net: "tcp", Err: err}),
		Advice: "check sasl.oauthbearer.token.endpoint.url, and that it can be reached from here",
	}
}

// refused is for an answer without a token. Of its text only a word that the standard
// knows is repeated.
func (t *tokens) refused(status int, word string) error {
	err := fmt.Errorf("%s: status %d", t.subject(), status)
	switch word {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		err = fmt.Errorf("%w, %s", err, word)
	}
	if status >= http.StatusInternalServerError || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout {
		return &fault.Error{
			Class: fault.Transient, Err: fmt.Errorf("%w: %w", err, &net.OpError{Op: "ask", Net: "tcp", Err: errors.New("no token")}),
			Advice: "look at the endpoint",
		}
	}
	return fault.NewOperator(err, "check sasl.oauthbearer.token.endpoint.url, and the client's id, secret and scope")
}

// isToken says whether text can stand behind "Bearer" (RFC 6750, 2.1).
func isToken(text string) bool {
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~+/=", r)
	}
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !legal(r) })
}

// expiry reads the claim exp of a token that is a JWT (RFC 7519). Whether the token is
// genuine is for the broker to say.
func expiry(token string) (at time.Time, known bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return at, false
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return at, false
	}
	var claims struct {
		Expires *float64 `json:"exp"`
	}
	if json.Unmarshal(text, &claims) != nil || claims.Expires == nil {
		return at, false
	}
	return time.Unix(int64(*claims.Expires), 0), true
}
