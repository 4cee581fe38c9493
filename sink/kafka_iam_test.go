package sink_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

// inAWS gives the process keys as a machine of Amazon's has them, and no others.
func inAWS(tb testing.TB, env map[string]string) {
	tb.Helper()
	t, ok := tb.(*testing.T)
	if !ok {
		tb.Fatal("only a test has an environment")
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nowhere")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_REGION", "eu-central-1")
	for name, value := range env {
		t.Setenv(name, value)
	}
}

const iamWelcome = `{"version":"2020_10_22","request-id":"1"}`

// signature is what AWS' own signer makes of a login at host, now.
func signature(tb testing.TB, keys aws.Credentials, host string) string {
	tb.Helper()
	query := url.Values{"Action": {"kafka-cluster:Connect"}, "X-Amz-Expires": {"300"}}
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "https://"+host+"/?"+query.Encode(), http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	empty := sha256.Sum256(nil)
	signed, _, err := v4.NewSigner().PresignHTTP(tb.Context(), keys, request, hex.EncodeToString(empty[:]), "kafka-cluster", "eu-central-1", time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	at, err := url.Parse(signed)
	if err != nil {
		tb.Fatal(err)
	}
	return at.Query().Get("X-Amz-Signature")
}

// No broker of Amazon's was there to try: a fake one checks the exchange as its
// documentation has it, and AWS' own signer the signature.
func TestAnIAMLoginIsSignedAsAWSSigns(t *testing.T) {
	const iamSecret = "s3cret/with+signs"
	keys := aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: iamSecret, SessionToken: "session/token=="}
	inAWS(t, map[string]string{
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_SESSION_TOKEN": keys.SessionToken,
	})
	cert, ca := certificate(t, "localhost")
	settings := []string{"security.protocol=SASL_SSL", "sasl.mechanism=AWS_MSK_IAM", "ssl.truststore.location=" + ca}
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), kfake.SeedTopics(1, topic))
		var said map[string]string
		refuse := false
		answerLogins(fake, "AWS_MSK_IAM", iamWelcome, func(login []byte) *kerr.Error {
			if err := json.Unmarshal(login, &said); err != nil || refuse {
				return kerr.SaslAuthenticationFailed
			}
			return nil
		})
		s := fake.open(t, secured(fake, topic), settings...)
		for name, want := range map[string]string{
			"version": "2020_10_22", "host": "localhost", "action": "kafka-cluster:Connect", "x-amz-algorithm": "AWS4-HMAC-SHA256",
			"x-amz-credential": "AKIDEXAMPLE/20000101/eu-central-1/kafka-cluster/aws4_request", "x-amz-security-token": keys.SessionToken,
			"x-amz-expires": "300", "x-amz-signedheaders": "host", "user-agent": "outboxcdc", "x-amz-signature": signature(t, keys, "localhost"),
		} {
			if said[name] != want {
				t.Errorf("%s is %q, want %q", name, said[name], want)
			}
		}
		closeSink(t, s)
		refuse = true
		_, err := sink.Open(t.Context(), fake.url(settings...), secured(fake, topic))
		wantClass(t, err, fault.Operator, "log in to kafka")
		if strings.Contains(err.Error(), iamSecret) || strings.Contains(err.Error(), keys.SessionToken) {
			t.Errorf("a secret is repeated: %v", err)
		}
	})
}

// answerLogins lets a fake broker, which has no such mechanism, ask check about logins.
func answerLogins(fake *fakeKafka, mechanism, welcome string, check func(login []byte) *kerr.Error) {
	fake.ControlKey(int16(kmsg.SASLHandshake), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		answer, ok := r.ResponseKind().(*kmsg.SASLHandshakeResponse)
		if !ok {
			return nil, nil, false
		}
		answer.SupportedMechanisms = []string{mechanism}
		return answer, nil, true
	})
	fake.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		asked, known := r.(*kmsg.SASLAuthenticateRequest)
		answer, ok := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if !known || !ok {
			return nil, nil, false
		}
		answer.SASLAuthBytes = []byte(welcome)
		if err := check(asked.SASLAuthBytes); err != nil {
			answer.ErrorCode = err.Code
		}
		return answer, nil, true
	})
}

func TestIAMKeysThatAreNotFoundMayComeAndTheSentenceSaysWhere(t *testing.T) {
	inAWS(t, nil)
	cert, ca := certificate(t, "localhost")
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeKafka(t, 1, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
		answerLogins(fake, "AWS_MSK_IAM", iamWelcome, func([]byte) *kerr.Error { return nil })
		_, err := sink.Open(t.Context(), fake.url("security.protocol=SASL_SSL", "sasl.mechanism=AWS_MSK_IAM", "ssl.truststore.location="+ca), secured(fake))
		wantClass(t, err, fault.Transient, "find AWS' keys", "service account")
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %v", err)
		}
	})
}
