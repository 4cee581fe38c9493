package sink_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

const clientSecret = "s3cret-of-the-client"

// endpoint gives out tokens by answer.
func endpoint(tb testing.TB, answer http.HandlerFunc) (settings []string) {
	tb.Helper()
	server := httptest.NewServer(answer)
	tb.Cleanup(server.Close)
	return []string{
		"security.protocol=SASL_PLAINTEXT", "sasl.mechanism=OAUTHBEARER", "sasl.oauthbearer.token.endpoint.url=" + server.URL + "/t",
		"sasl.oauthbearer.client.credentials.client.id=u", "sasl.oauthbearer.client.credentials.client.secret=" + clientSecret,
	}
}

// wantsTokens is a fake broker that takes some tokens.
func wantsTokens(tb testing.TB, takes func(login string) bool) *fakeKafka {
	tb.Helper()
	fake := newFakeKafka(tb, 1, kfake.SeedTopics(1, topic))
	answerLogins(fake, "OAUTHBEARER", "", func(login []byte) *kerr.Error {
		if takes(string(login)) {
			return nil
		}
		return kerr.SaslAuthenticationFailed
	})
	return fake
}

func say(text string, args ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, text, args...) //nolint:errcheck // the test fails without it
	}
}

func fail(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, text) //nolint:errcheck // the test fails without it
	}
}

func TestWhatATokenEndpointSaysIsUnderstoodAndNotRepeated(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed to %s", r.URL)
	}))
	defer elsewhere.Close()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		class  fault.Class
		says   string
	}{
		"a token":           {say(`{"access_token": "abc.def", "expires_in": 60}`), fault.Stopped, ""},
		"of unknown life":   {say(`{"access_token": "abc.def"}`), fault.Stopped, ""},
		"no client of ours": {fail(401, `{"error": "invalid_client", "error_description": "`+clientSecret+`"}`), fault.Operator, "status 401, invalid_client"},
		"a word of its own": {fail(400, `{"error": "`+clientSecret+`"}`), fault.Operator, "status 400: check"},
		"too busy":          {fail(503, clientSecret), fault.Transient, "status 503"},
		"too many":          {fail(429, clientSecret), fault.Transient, "status 429"},
		"not there":         {fail(404, clientSecret), fault.Operator, "status 404"},
		"another place": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, fault.Operator, "status 307"},
		"no JSON":           {say("<html>%s", clientSecret), fault.Operator, "no access_token"},
		"no token":          {say(`{"token": %q}`, clientSecret), fault.Operator, "no access_token"},
		"two logins in one": {say(`{"access_token": "abc\u0001auth=Bearer %s"}`, clientSecret), fault.Operator, "no access_token"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := wantsTokens(t, func(login string) bool { return login == "n,,\x01auth=Bearer abc.def\x01\x01" })
			s, err := sink.Open(t.Context(), fake.url(endpoint(t, c.answer)...), fake.options(topic))
			if c.class == fault.Stopped {
				if err != nil {
					t.Fatal(err)
				}
				closeSink(t, s)
				return
			}
			wantClass(t, err, c.class, c.says)
			if strings.Contains(err.Error(), clientSecret) {
				t.Errorf("a secret is repeated: %v", err)
			}
		})
	}
}

func TestATokenIsKeptForMostOfItsLife(t *testing.T) {
	for answer, want := range map[string]bool{
		`{"access_token": "abc", "expires_in": 3600}`: true,
		`{"access_token": "abc"}`:                     false, // nobody knows how long it lives
		`{"access_token": "abc", "expires_in": -1}`:   false,
		// exp is the year 2100, then 2001.
		`{"access_token": "x.eyJleHAiOjQxMDI0NDQ4MDB9.y"}`: true,
		`{"access_token": "x.eyJleHAiOjEwMDAwMDAwMDB9.y"}`: false,
	} {
		t.Run(answer, func(t *testing.T) {
			var asked, logins atomic.Int64
			fake := wantsTokens(t, func(string) bool { logins.Add(1); return true })
			settings := endpoint(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); say("%s", answer)(w, r) })
			s := fake.open(t, fake.options(topic), settings...)
			if err := s.Send(t.Context(), []sink.Message{message("a", 1)}, ignore); err != nil {
				t.Fatal(err)
			}
			flush(t, s)
			closeSink(t, s)
			if logins.Load() < 2 {
				t.Fatalf("%d logins prove nothing", logins.Load())
			}
			if kept := asked.Load() == 1; kept != want {
				t.Errorf("%d tokens for %d logins, want one: %v", asked.Load(), logins.Load(), want)
			}
		})
	}
}
