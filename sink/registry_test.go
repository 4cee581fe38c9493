package sink_test

import (
	"strings"
	"testing"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
)

func TestGoodURLsAreTaken(t *testing.T) {
	for _, url := range []string{
		"stdout://",
		"kafka://localhost",
		"kafka://b1:9092,b2:9092",
		"kafka://b1:9092,b2:9092/",
		"kafka://[::1]:9092,[fe80::1],::1,10.0.0.1?",
		"kafka://b?acks=all&linger.ms=0&compression.type=zstd&max.request.size=2097152&client.id=a%20b&request.timeout.ms=30000",
		"kafka://b?acks=-1&enable.idempotence=true",
		"kafka://b?security.protocol=SSL",
		"kafka://b?security.protocol=SASL_SSL&sasl.mechanism=SCRAM-SHA-512&sasl.username=u&sasl.password=p%26%23+%25",
		"amqp://localhost",
		"amqp://h1,h2:5673/",
		"amqp://u:p%40ss%2Fword@h/my%2Fvhost?exchange=&routing_key={topic}&queue_type=classic",
		"amqps://u@h:5671/v?exchange=ev.{topic}&routing_key={topic}.{key}&exchange_type=x-consistent-hash&heartbeat=30&max_message_size=134217728",
		"amqps://h?auth_mechanism=EXTERNAL&certfile=a.pem&keyfile=b.pem&cacertfile=c.pem",
		"kafka://b?security.protocol=SASL_SSL&sasl.mechanism=AWS_MSK_IAM",
		`kafka://b?security.protocol=SASL_SSL&sasl.mechanism=AWS_MSK_IAM&sasl.jaas.config=software.amazon.msk.auth.iam.IAMLoginModule%20required%20awsProfileName="dev";`,
		"kafka://b?security.protocol=SASL_SSL&sasl.mechanism=OAUTHBEARER&sasl.oauthbearer.token.endpoint.url=file:///run/token",
		"kafka://b?security.protocol=SASL_SSL&sasl.mechanism=OAUTHBEARER&sasl.oauthbearer.token.endpoint.url=https://idp/token&" +
			"sasl.oauthbearer.client.credentials.client.id=u&sasl.oauthbearer.client.credentials.client.secret=p&sasl.oauthbearer.scope=a%20b",
		`kafka://b?security.protocol=SASL_SSL&sasl.mechanism=OAUTHBEARER&sasl.oauthbearer.token.endpoint.url=http://127.0.0.1/t&sasl.jaas.config=x.OAuthBearerLoginModule%20required%20clientId="u"%20clientSecret="p"%20extension_pool="a";`,
		`kafka://b?security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&sasl.jaas.config=x.PlainLoginModule%20required%20username="u"%20password="p\"q";`,
	} {
		if err := sink.CheckURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Each of the URLs carries the word s3cret, where a hurried person may put it.
func TestBadURLsAreUsageErrorsThatNameThePartAndNoSecret(t *testing.T) {
	const (
		iam      = "kafka://b?security.protocol=SASL_SSL&sasl.mechanism=AWS_MSK_IAM"
		oauth    = "kafka://b?security.protocol=SASL_SSL&sasl.mechanism=OAUTHBEARER"
		endpoint = oauth + "&sasl.oauthbearer.token.endpoint.url="
		client   = "&sasl.oauthbearer.client.credentials.client.id=u&sasl.oauthbearer.client.credentials.client.secret=s3cret"
	)
	const sasl = "security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.username=u&sasl.password=s3cret"
	for url, want := range map[string]string{
		"":                                         "want one of amqp://user:password@host:5672/vhost, amqps://user:password@host:5671/vhost, kafka://broker1:9092,broker2:9092, stdout://",
		"s3cret":                                   "no scheme",
		"postgres://u:s3cret@h":                    "scheme is none that is known: want one of amqp://",
		"s3cret://h":                               "scheme is none that is known",
		"kafka:b1:9092/s3cret":                     "no scheme",
		"stdout://s3cret":                          "nothing stands behind stdout://",
		"stdout://?a=s3cret":                       "nothing stands behind stdout://",
		"kafka://":                                 "names no broker",
		"kafka://?" + sasl:                         "names no broker",
		"kafka://u:s3cret@b":                       "credentials in front of the brokers",
		"kafka://b,u:s3cret":                       "broker 2 is not host:port",
		"kafka://b1,,b2?" + sasl:                   "broker 2 is not host:port",
		"kafka://b:0":                              "broker 1 is not host:port",
		"kafka://b:65536":                          "broker 1 is not host:port",
		"kafka://b/s3cret":                         "broker 1 is not host:port",
		"kafka://b s3cret":                         "broker 1 is not host:port",
		"kafka://b?" + sasl + "#x":                 "write %23",
		"kafka://b?" + sasl + "%zz":                "value of sasl.password has a %",
		"kafka://b?" + sasl + "&acks2s3cret=1":     "setting 5 is not known",
		"kafka://b?" + sasl + "&s3cret":            "the known ones are acks, client.id",
		"kafka://b?linger=5":                       "do you mean linger.ms?",
		"kafka://b?compresion.type=lz4":            "do you mean compression.type?",
		"kafka://b?sasl.pasword=s3cret":            "do you mean sasl.password?",
		"kafka://b?acks=1":                         "acks must be all",
		"kafka://b?acks=0":                         "acks must be all",
		"kafka://b?acks=all&acks=all":              "acks is given twice",
		"kafka://b?enable.idempotence=false":       "enable.idempotence must be true",
		"kafka://b?retries=3":                      "retries cannot be set",
		"kafka://b?partitioner.class=s3cret":       "partitions are those of the Java client",
		"kafka://b?batch.size=100":                 "batch.size cannot be set",
		"kafka://b?linger.ms=s3cret":               "value of linger.ms cannot be used: want a number from 0 to 60000",
		"kafka://b?linger.ms=-1":                   "linger.ms",
		"kafka://b?linger.ms=99999999999999999999": "linger.ms",
		"kafka://b?max.request.size=10":            "max.request.size",
		"kafka://b?request.timeout.ms=1":           "request.timeout.ms",
		"kafka://b?compression.type=s3cret":        "want one of gzip, lz4, none, snappy, zstd",
		"kafka://b?client.id=":                     "client.id",
		"kafka://b?security.protocol=s3cret":       "security.protocol cannot be used: want one of PLAINTEXT",
		"kafka://b?sasl.password=s3cret":           "add security.protocol=SASL_SSL",
		"kafka://b?security.protocol=SASL_SSL":     "sasl.mechanism is missing",
		iam + "&sasl.username=s3cret":              "takes neither sasl.username",
		"kafka://b?security.protocol=SASL_PLAINTEXT&sasl.mechanism=AWS_MSK_IAM": "over TLS alone",
		"kafka://b?security.protocol=SASL_SSL&sasl.mechanism=PLAIN" + client:    "user or password is missing",
		"kafka://b?" + sasl + client:                                            "sasl.mechanism is another one",
		"kafka://b?" + client[1:]:                                               "add security.protocol=SASL_SSL",
		oauth:                                                                   "token.endpoint.url is missing",
		endpoint + "https://idp/t":                                              "the id or the secret",
		endpoint + "http://idp/s3cret" + client:                                 "not encrypted",
		endpoint + "http://127.0.0.1.s3cret.example/t" + client:                 "not encrypted",
		endpoint + "https://u:s3cret@idp/t" + client:                            "without credentials",
		endpoint + "ftp://s3cret/t" + client:                                    "want https://host/path",
		endpoint + "file://s3cret/t":                                            "want https://host/path",
		endpoint + "s3cret" + client:                                            "want https://host/path",
		endpoint + `file:///t&sasl.jaas.config=x.OAuthBearerLoginModule%20required%20extension_auth="s3cret";`:     "other than auth",
		endpoint + `file:///t&sasl.jaas.config=x.OAuthBearerLoginModule%20required%20extension_pool="s3cret%01b";`: "plain text",
		iam + "&sasl.jaas.config=x.IAMLoginModule%20required%20awsProfileName=s3cret;":                             "sasl.jaas.config",
		"kafka://b?security.protocol=SASL_SSL&sasl.mechanism=s3cret":                                               "want one of PLAIN, SCRAM-SHA-256",
		"kafka://b?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.password=s3cret":                           "user or password is missing",
		"kafka://b?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.jaas.config=s3cret":                        "sasl.jaas.config",
		`kafka://b?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.jaas.config=username="u"s3cret`:            "sasl.jaas.config",
		`kafka://b?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.jaas.config=password="s3cret`:              "sasl.jaas.config",
		"amqp://":                                  "names no broker",
		"amqp://u:s3cret@":                         "names no broker",
		"amqp://u:s3cret@h:0":                      "broker 1 is not host:port",
		"amqp://u:s3cret/x@h":                      "user and password cannot be read",
		"amqp://u:s3c@ret@h?routing_key=s3cret}":   "user and password cannot be read",
		"amqp://u:%zzs3cret@h":                     "user and password cannot be read",
		"amqp://:s3cret@h":                         "user and password cannot be read",
		"amqp://h/a/s3cret":                        "virtual host cannot be read",
		"amqp://h/%zzs3cret":                       "virtual host cannot be read",
		"amqp://h?exchange={s3cret}":               "value of exchange cannot be used",
		"amqp://h?exchange={key}s3cret":            "value of exchange cannot be used",
		"amqp://h?routing_key={s3cret":             "value of routing_key cannot be used",
		"amqp://h?exchange=&routing_key=":          "names the queue",
		"amqp://h?exchange_type=":                  "exchange_type",
		"amqp://h?queue_type=s3cret":               "want quorum, classic or stream",
		"amqp://h?auth_mechanism=s3cret":           "want plain or external",
		"amqps://h?auth_mechanism=external":        "certificate, which is missing",
		"amqps://h?certfile=s3cret":                "certfile and keyfile go together",
		"amqp://h?cacertfile=s3cret":               "write amqps://",
		"amqp://h?heartbeat=0":                     "heartbeat",
		"amqp://h?max_message_size=s3cret":         "max_message_size",
		"amqp://h?verify=verify_none":              "always verified",
		"amqp://h?mandatory=false":                 "mandatory cannot be set",
		"amqp://h?management_url=s3cret":           "management_url",
		"amqp://h?management_url=ftp://u:s3cret@h": "management_url",
		"amqp://h?excange=s3cret":                  "do you mean exchange?",
		"amqp://h?s3cret=1":                        "the known ones are auth_mechanism",
		"amqp://u:s3cret@h#x":                      "write %23",
		"kafka://b?ssl.truststore.location=x":      "add security.protocol=SSL",
	} {
		err := sink.CheckURL(url)
		if err == nil {
			t.Errorf("%s is taken", url)
			continue
		}
		if fault.Classify(err) != fault.Usage {
			t.Errorf("%s gives class %v, want usage", url, fault.Classify(err))
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %q, which does not say %q", url, err, want)
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s gives %q, which repeats the secret", url, err)
		}
		if findings := sink.Check(t.Context(), url, sink.Options{}); fault.Classify(fault.Failures(findings)) != fault.Operator {
			t.Errorf("Check of %s gives %v, want a failure", url, findings)
		}
	}
}

func TestAFileThatTheURLNamesMustBeReadable(t *testing.T) {
	for _, setting := range []string{"ssl.truststore.location", "ssl.keystore.location"} {
		_, err := sink.Open(t.Context(), "kafka://b?security.protocol=SSL&"+setting+"=/nowhere/x.pem", sink.Options{})
		if fault.Classify(err) != fault.Usage || !strings.Contains(err.Error(), setting) {
			t.Errorf("%s gives %v of class %v, want a usage error that names it", setting, err, fault.Classify(err))
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, seed := range []string{
		"kafka://b1:9092,b2?linger.ms=5&sasl.password=p", "kafka://[::1]:1?a", "stdout://", "kafka://?%", "kafka://b?acks=%61ll",
		`kafka://b?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.jaas.config=x%20username="a"%20password="\`,
	} {
		f.Add(seed, "pa55word")
	}
	f.Fuzz(func(t *testing.T, url, secret string) {
		if err := sink.CheckURL(url); err != nil && fault.Classify(err) != fault.Usage {
			t.Errorf("CheckURL(%q) gives class %v, want usage", url, fault.Classify(err))
		}
		secret = "S3" + secret + "cR3t" // no part of any message
		for _, place := range []string{url + secret, url + "&sasl.password=" + secret, url + "&sasl.jaas.config=" + secret + url, secret + url} {
			if err := sink.CheckURL(place); err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("CheckURL repeats the secret: %v", err)
			}
		}
	})
}
