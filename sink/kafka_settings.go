package sink

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Defaults of the settings that ride in the URL. What is not here cannot be set,
// because the order or the safety of events hangs on it.
const (
	defaultClientID = "outboxcdc"

	// defaultLinger is what Kafka's own producer waits since 4.0 (KIP-1030). It holds
	// while the log is busy, see hurry: requests of a few records each would cost the
	// broker and us the same as full ones.
	defaultLinger = 5 * time.Millisecond

	// defaultCompression costs the least where it is built and where it is read,
	// and every broker since 0.11 and every client knows it.
	defaultCompression = "snappy"

	// defaultMaxRequest is Kafka's own default and below the 1048588 bytes that a
	// topic takes by default (max.message.bytes).
	defaultMaxRequest = 1 << 20

	defaultRequestTimeout = 10 * time.Second
	defaultKafkaPort      = "9092"
)

// kafkaSettings is a kafka:// URL, understood.
type kafkaSettings struct {
	brokers        []string
	clientID       string
	linger         time.Duration
	compression    []kgo.CompressionCodec
	maxRequest     int32
	requestTimeout time.Duration
	security       kafkaSecurity
}

func init() {
	register("kafka", kind{example: "kafka://broker1:9092,broker2:9092", parse: parseKafka})
}

// kafkaKnows are settings under Kafka's own names.
var kafkaKnows = settings[*kafkaSettings]{kafkaSetters, kafkaFixed} //nolint:gochecknoglobals // a table that nobody changes

var kafkaSetters = map[string]func(s *kafkaSettings, value string) error{ //nolint:gochecknoglobals // a table that nobody changes
	"acks":               setAcks,
	"client.id":          setClientID,
	"compression.type":   setCompression,
	"enable.idempotence": setIdempotence,
	"linger.ms":          setLinger,
	"max.request.size":   setMaxRequest,
	"request.timeout.ms": setRequestTimeout,

	"security.protocol": func(s *kafkaSettings, v string) error { return s.security.setProtocol(v) },
	"sasl.jaas.config":  func(s *kafkaSettings, v string) error { return s.security.setJAAS(v) },
	"sasl.mechanism":    func(s *kafkaSettings, v string) error { return s.security.setMechanism(v) },
	"sasl.oauthbearer.client.credentials.client.id":     func(s *kafkaSettings, v string) error { s.security.oauth.clientID = v; return nil },
	"sasl.oauthbearer.client.credentials.client.secret": func(s *kafkaSettings, v string) error { s.security.oauth.clientSecret = v; return nil },
	"sasl.oauthbearer.scope":                            func(s *kafkaSettings, v string) error { s.security.oauth.scope = v; return nil },
	"sasl.oauthbearer.token.endpoint.url":               func(s *kafkaSettings, v string) error { s.security.oauth.endpoint = v; return nil },
	"sasl.password":                                     func(s *kafkaSettings, v string) error { s.security.password = v; return nil },
	"sasl.username":                                     func(s *kafkaSettings, v string) error { s.security.username = v; return nil },
	"ssl.keystore.location":                             func(s *kafkaSettings, v string) error { s.security.keyFile = v; return nil },
	"ssl.truststore.location":                           func(s *kafkaSettings, v string) error { s.security.caFile = v; return nil },
}

// kafkaFixed are names of Kafka's that cannot be set here, and why.
var kafkaFixed = map[string]string{ //nolint:gochecknoglobals // a table that nobody changes
	"batch.size":                            "a batch takes what gathers in linger.ms, up to max.request.size",
	"bootstrap.servers":                     "the brokers stand in front of the question mark: kafka://broker1:9092,broker2:9092",
	"buffer.memory":                         "it follows from the buffer that outboxcdc is given",
	"delivery.timeout.ms":                   "a message is tried until the broker has it, or a gap would follow",
	"key.serializer":                        "keys are the bytes of aggregate_id",
	"max.block.ms":                          "while the broker is away the stream waits, and Postgres keeps the log",
	"max.in.flight.requests.per.connection": "it is five, the most that keeps the order",
	"partitioner.class":                     "partitions are those of the Java client for the same key",
	"retries":                               "a message is tried until the broker has it, or a gap would follow",
	"transactional.id":                      "messages are sent outside of Kafka's transactions",
	"value.serializer":                      "values are the bytes of payload",
}

// parseKafka understands b1:9092,b2:9092 and name=value&name=value.
func parseKafka(address, query string) (target, error) {
	s := &kafkaSettings{
		clientID:       defaultClientID,
		linger:         defaultLinger,
		compression:    codecs[defaultCompression](),
		maxRequest:     defaultMaxRequest,
		requestTimeout: defaultRequestTimeout,
	}
	brokers, err := kafkaBrokers(address)
	if err != nil {
		return nil, err
	}
	s.brokers = brokers
	if err := kafkaKnows.read(s, query); err != nil {
		return nil, err
	}
	if err := s.security.complete(); err != nil {
		return nil, err
	}
	return s, nil
}

func kafkaBrokers(address string) ([]string, error) {
	const advice = "name the brokers as kafka://broker1:9092,broker2:9092"
	if strings.Contains(address, "@") {
		return nil, fault.NewUsage(errors.New("the sink's URL has credentials in front of the brokers"),
			"give them as sasl.username and sasl.password behind the question mark")
	}
	return parseBrokers(strings.TrimSuffix(address, "/"), defaultKafkaPort, advice)
}

func setAcks(_ *kafkaSettings, value string) error {
	if value == "all" || value == "-1" {
		return nil
	}
	return fault.NewUsage(errors.New("the sink's URL: acks must be all"),
		"with fewer a broker that fails takes acknowledged events with it, after Postgres was allowed to forget them")
}

func setIdempotence(_ *kafkaSettings, value string) error {
	if value == "true" {
		return nil
	}
	return fault.NewUsage(errors.New("the sink's URL: enable.idempotence must be true"), "without it a retry may change the order of events")
}

func setClientID(s *kafkaSettings, value string) error {
	if value == "" || len(value) > 249 {
		return badValue("client.id", "1 to 249 characters")
	}
	s.clientID = value
	return nil
}

// codecs are the values of compression.type. A broker that does not know one is
// sent uncompressed batches.
var codecs = map[string]func() []kgo.CompressionCodec{ //nolint:gochecknoglobals // a table that nobody changes
	"none":   func() []kgo.CompressionCodec { return []kgo.CompressionCodec{kgo.NoCompression()} },
	"gzip":   func() []kgo.CompressionCodec { return orNone(kgo.GzipCompression()) },
	"snappy": func() []kgo.CompressionCodec { return orNone(kgo.SnappyCompression()) },
	"lz4":    func() []kgo.CompressionCodec { return orNone(kgo.Lz4Compression()) },
	"zstd":   func() []kgo.CompressionCodec { return orNone(kgo.ZstdCompression()) },
}

func orNone(codec kgo.CompressionCodec) []kgo.CompressionCodec {
	return []kgo.CompressionCodec{codec, kgo.NoCompression()}
}

func setCompression(s *kafkaSettings, value string) error {
	codec, known := codecs[value]
	if !known {
		return badValue("compression.type", "one of "+strings.Join(slices.Sorted(maps.Keys(codecs)), ", "))
	}
	s.compression = codec()
	return nil
}

func setLinger(s *kafkaSettings, value string) (err error) {
	s.linger, err = milliseconds("linger.ms", value, 0, time.Minute)
	return err
}

func setRequestTimeout(s *kafkaSettings, value string) (err error) {
	s.requestTimeout, err = milliseconds("request.timeout.ms", value, time.Second, 15*time.Minute)
	return err
}

func milliseconds(name, value string, least, most time.Duration) (time.Duration, error) {
	number, err := strconv.ParseInt(value, 10, 32)
	d := time.Duration(number) * time.Millisecond
	if err != nil || d < least || d > most {
		return 0, badValue(name, fmt.Sprintf("a number from %d to %d", least.Milliseconds(), most.Milliseconds()))
	}
	return d, nil
}

func setMaxRequest(s *kafkaSettings, value string) error {
	const least, most = 1 << 10, 1<<30 - requestOverhead
	number, err := strconv.ParseInt(value, 10, 32)
	if err != nil || number < least || number > most {
		return badValue("max.request.size", fmt.Sprintf("a number of bytes from %d to %d", least, most))
	}
	s.maxRequest = int32(number)
	return nil
}
