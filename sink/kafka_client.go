package sink

import (
	"log/slog"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaClient gives what a client needs to reach the brokers of a kafka:// URL as a
// sink does: who they are and who we are. It is for whoever keeps something else than
// events there. The URL may have no more settings than a sink's; errors are those of
// CheckURL.
func KafkaClient(rawURL string, logger *slog.Logger) ([]kgo.Opt, error) {
	s, err := kafkaURL(rawURL)
	if err != nil {
		return nil, err
	}
	secure, err := s.security.config()
	if err != nil {
		return nil, err
	}
	o := Options{Logger: logger}.withDefaults()
	dialer := &kafkaDialer{network: o.Dial, tls: secure, barrier: &barrier{line: newLine()}}
	return append([]kgo.Opt{
		kgo.SeedBrokers(s.brokers...),
		kgo.ClientID(s.clientID),
		kgo.WithLogger(newCalmLogger(o.Logger)),
		kgo.DisableClientMetrics(),
		kgo.AlwaysRetryEOF(),
		kgo.ProduceRequestTimeout(s.requestTimeout),
	}, dialer.options(s)...), nil
}

// CheckKafkaURL gives the usage error of a kafka:// URL, or nil.
func CheckKafkaURL(rawURL string) error {
	_, err := kafkaURL(rawURL)
	return err
}

// KafkaFault gives an error of a Kafka client its class and the way out where who we
// are, or how we speak, is the trouble. The rest may mend itself.
func KafkaFault(err error) error { return brokerError(err) }

func kafkaURL(rawURL string) (*kafkaSettings, error) {
	if !strings.HasPrefix(rawURL, "kafka://") {
		return nil, badURL("it is none of kafka")
	}
	t, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	s, ok := t.(*kafkaSettings)
	if !ok {
		return nil, badURL("it is none of kafka")
	}
	return s, nil
}
