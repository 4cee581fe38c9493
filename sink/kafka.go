package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// kafka is the sink for Apache Kafka and what speaks its protocol.
//
// It guarantees, within one session: a message is acked without an error only when
// all in-sync replicas hold it; messages of one key are stored in the order in which
// they were sent; and when one fails, nothing that was sent behind it is stored
// ahead of it. The first two are Kafka's idempotent producer (acks=all, sequence
// numbers, at most five requests in flight, unlimited retries). The third is ours:
// see barrier, which cuts the line.
//
// While brokers are away nothing fails. What was sent is tried for ever, and Send
// blocks when the buffer is full. Messages fail for reasons that time does not mend,
// and then all of them: the client is closed at the first failure, so that Flush and
// Close have nothing to wait for, and the session is over.
//
// Goroutines: Send runs on its caller's. The client calls promises, and so acks, on
// one goroutine of its own. undertake waits for the end; Close joins it.
type kafka struct {
	client  *kgo.Client
	topics  *topics // of the goroutine that calls Send
	line    *line
	buffer  *buffer
	spread  *frozenPartitions
	crate   *crate // of the goroutine that calls Send; nil before the first message
	crates  sync.Pool
	parcels sync.Pool
	open    sync.WaitGroup // parcels with messages that are not acked
	linger  time.Duration
	logger  *slog.Logger
	caught  func(bug error) // ends the line
	dialer  *kafkaDialer

	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	buried    chan struct{} // closed when the client is
}

const (
	// openTimeout bounds how long Open waits for a broker; the next try is the
	// business of whoever called it.
	openTimeout = 15 * time.Second

	// requestOverhead is at least what surrounds one batch in a produce request.
	requestOverhead = 1 << 10

	// maxWrite is the largest request that a broker reads by default
	// (socket.request.max.bytes).
	maxWrite = 100 << 20

	// unknownTopicTries is how often in a row a topic that we know may be unknown to
	// a broker, which one that starts up says without meaning it. The client asks
	// about once a second.
	unknownTopicTries = 30
)

// open connects, proves who we are and makes sure of the topics that are known.
func (s *kafkaSettings) open(ctx context.Context, o Options) (Sink, error) {
	for _, name := range o.Topics {
		if err := checkTopicName(name); err != nil {
			return nil, fault.NewUsage(err, "change --topic")
		}
	}
	k, dialer, err := s.connect(o)
	if err != nil {
		return nil, err
	}
	if err := k.introduce(ctx, o.Topics); err != nil {
		k.client.Close()
		return nil, s.openError(ctx, err, &dialer.last)
	}
	if s.security.clear() {
		o.Logger.WarnContext(ctx, "the password for kafka is sent over connections that are not encrypted")
	}
	go k.undertake()
	return k, nil
}

// Unreached is Seeker's.
func (k *kafka) Unreached() string {
	if err := k.dialer.unreached.get(); err != nil {
		return err.Error()
	}
	return ""
}

// connect makes the sink without waiting for anything.
func (s *kafkaSettings) connect(o Options) (*kafka, *kafkaDialer, error) {
	secure, err := s.security.config()
	if err != nil {
		return nil, nil, err
	}
	k := &kafka{
		line:    newLine(),
		buffer:  newBuffer(o.BufferBytes),
		spread:  newFrozenPartitions(),
		crates:  sync.Pool{New: newCrate},
		linger:  s.linger,
		logger:  o.Logger,
		closing: make(chan struct{}),
		buried:  make(chan struct{}),
	}
	k.caught = func(bug error) { k.line.fail(func() error { return bug }) } //nolint:errcheck // told by the acks of what is open, and by Send
	limits := newLimits(s.maxRequest)
	dialer := &kafkaDialer{network: o.Dial, tls: secure, barrier: &barrier{line: k.line}}
	k.dialer = dialer
	options := append(s.options(o, limits), dialer.options(s)...)
	k.client, err = kgo.NewClient(append(options, kgo.RecordPartitioner(k.spread))...)
	if err != nil {
		return nil, nil, fault.NewUsage(fmt.Errorf("set up the kafka client: %w", err), "check the settings in the sink's URL")
	}
	k.topics = newTopics(k.client, o, limits)
	return k, dialer, nil
}

// options are all that matters, stated: a default may change with the client's next
// version. Left unset on purpose are a timeout and a limit of tries for records, the
// cancelling of records, and transactions: each would let a message be given up whose
// fate is not known.
func (s *kafkaSettings) options(o Options, limits *limits) []kgo.Opt {
	// The client's own bounds are twice ours: it lets go of a record after the ack,
	// by which we may have taken the next one. They never make it wait.
	bytes := 2 * (max(o.BufferBytes, int(s.maxRequest)) + requestOverhead)
	return []kgo.Opt{
		kgo.SeedBrokers(s.brokers...),
		kgo.ClientID(s.clientID),
		kgo.WithLogger(newCalmLogger(o.Logger)),
		kgo.DisableClientMetrics(),
		kgo.AlwaysRetryEOF(), // a proxy in front of a dead broker hangs up at once

		kgo.RequiredAcks(kgo.AllISRAcks()), // and idempotent, which has no option to turn it on
		kgo.RecordRetries(math.MaxInt),
		kgo.RecordDeliveryTimeout(0),
		kgo.UnknownTopicRetries(unknownTopicTries),
		kgo.StopProducerOnDataLossDetected(),

		kgo.ProducerLinger(s.linger),
		kgo.ProducerBatchCompression(s.compression...),
		kgo.ProducerBatchMaxBytesFn(limits.of),
		kgo.BrokerMaxWriteBytes(max(maxWrite, s.maxRequest+requestOverhead)),
		kgo.MaxBufferedBytes(bytes),
		kgo.MaxBufferedRecords(bytes/recordOverhead + 1),

		kgo.ProduceRequestTimeout(s.requestTimeout),
		kgo.RequestTimeoutOverhead(10 * time.Second),
		kgo.RequestRetries(20),
		kgo.RetryTimeout(30 * time.Second),
		kgo.ConnIdleTimeout(9 * time.Minute), // brokers hang up after ten
		kgo.MetadataMaxAge(5 * time.Minute),
		kgo.MetadataMinAge(time.Second),
	}
}

// introduce reaches a broker, gets a producer id, which proves that we may write at
// all, and resolves topics.
func (k *kafka) introduce(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := k.client.Ping(ctx); err != nil {
		return err
	}
	if err := becomeProducer(ctx, k.client); err != nil {
		return err
	}
	return k.topics.resolve(ctx, names, k.closing)
}

// becomeProducer gets the id under which the broker knows our numbers. With a broker
// that has none to give, the client would go on without, and without order.
func becomeProducer(ctx context.Context, client *kgo.Client) error {
	id, _, err := client.ProducerID(ctx)
	if err == nil && id < 0 {
		return fault.NewOperator(errors.New("the broker gives out no producer ids: a retry could change the order of events"), "use Kafka 0.11 or later")
	}
	return err
}

// openError names the brokers, and why the last connection failed where the client
// only says that time is up.
func (s *kafkaSettings) openError(ctx context.Context, err error, dialing *lastError) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if last := dialing.get(); last != nil && errors.Is(err, context.DeadlineExceeded) {
		err = last
	}
	err = brokerError(err)
	if _, known := errors.AsType[*fault.Error](err); known {
		return err
	}
	return &fault.Error{
		Class:  fault.Transient,
		Err:    fmt.Errorf("connect to kafka at %s: %w", strings.Join(s.brokers, ", "), err),
		Advice: "check that the brokers run and that their advertised.listeners can be reached from here; one that hangs up at once may want another security.protocol",
	}
}

// Send hands messages to the client. It blocks while the buffer is full, and when a
// topic is named for the first time.
func (k *kafka) Send(ctx context.Context, msgs []Message, ack Ack) error {
	if err := k.mayTake(); err != nil {
		return err
	}
	unknown := k.topics.learn(ctx, msgs, k.line.cut)
	if unknown != nil {
		msgs = k.topics.ahead(msgs)
	}
	for len(msgs) > 0 {
		n, err := k.sendSome(ctx, msgs, ack)
		if err != nil {
			return k.refused(err)
		}
		msgs = msgs[n:]
	}
	if unknown != nil {
		k.line.halt(unknown)
		return k.refused(unknown)
	}
	k.hurry()
	return nil
}

// quietBytes are so few in flight that nothing is gained by waiting for more: some
// sixty events of 350 bytes. At 5,000 events a second fewer are under way, if the
// broker answers within milliseconds; in a backlog always more.
const quietBytes = 32 << 10

// hurry ends the linger of what was just sent, when little is in flight: on a quiet
// log an event leaves at once, and on a busy one batches gather. A flush that need not
// wait for acks is the client's only way to say so. It looks at each partition that
// the client knows, so it is left out where they are thousands.
func (k *kafka) hurry() {
	if k.linger == 0 || k.buffer.used.Load() > quietBytes || k.topics.partitions > maxHurried {
		return
	}
	k.client.Flush(over) //nolint:errcheck // it ends with the context, at once
}

// maxHurried partitions take a flush some 30 µs.
const maxHurried = 1000

// over is a context that has ended.
var over = func() context.Context { //nolint:gochecknoglobals // a constant
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// sendSome hands over the first of msgs and says how many. A message that can never
// be stored is acked with the reason and ends the line, before anything of its key
// can pass it.
func (k *kafka) sendSome(ctx context.Context, msgs []Message, ack Ack) (int, error) {
	c := k.openCrate()
	n, size, unfit := k.fitting(msgs[:min(len(msgs), crateRecords-c.used)])
	if n > 0 {
		if err := k.buffer.take(ctx, k.line.cut, size); err != nil {
			return 0, err
		}
		p := k.pack(c, msgs[:n], size, ack)
		records, promise := p.records, p.promise // the parcel may be gone with the last of them
		for i := range records {
			// The client waits for nothing here, and is not to give up the record
			// when ctx ends: what is sent is sent.
			k.client.Produce(context.Background(), &records[i], promise)
		}
	}
	if unfit != nil {
		k.line.halt(unfit)
		ack(unfit)
	}
	return n, unfit
}

// fitting is how many of msgs make one parcel, and their size. The error is of the
// message behind them.
func (k *kafka) fitting(msgs []Message) (n int, size int64, unfit error) {
	for n < len(msgs) {
		one := sizeOf(&msgs[n])
		if err := k.topics.fits(&msgs[n], one); err != nil {
			return n, size, err
		}
		if n > 0 && size+one > k.buffer.total/4 {
			break
		}
		size += one
		n++
	}
	return n, size, nil
}

// mayTake is why the line is closed, or nil.
func (k *kafka) mayTake() error {
	if g := k.spread.grew.Swap(nil); g != nil {
		k.logger.Warn("a topic has got partitions: keys move, and a consumer may see a key's events in two partitions at once",
			slog.String("topic", g.topic), slog.Int("from", g.from), slog.Int("to", g.to))
		k.line.halt(fmt.Errorf("send: topic %s had %d partitions when the session began and has %d now, which the next session uses", g.topic, g.from, g.to))
	}
	return k.line.refusal()
}

// refused prefers the failure that cut the line over what it led to.
func (k *kafka) refused(err error) error {
	if errors.Is(err, errCut) {
		return k.line.refusal()
	}
	return err
}

// Flush returns when every message is acked. The client stops its lingering for it.
func (k *kafka) Flush(ctx context.Context) error {
	if err := k.client.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// Close gives up what is not acked. Whether the broker has it is then not known.
func (k *kafka) Close() error {
	k.closeOnce.Do(func() { close(k.closing) })
	<-k.buried
	k.open.Wait()
	return nil
}

// undertake closes the client when the line is cut or the sink is closed, which
// fails everything that it still holds.
func (k *kafka) undertake() {
	defer close(k.buried)
	defer fault.Catch(k.caught)
	select {
	case <-k.line.cut:
	case <-k.closing:
	}
	k.client.Close()
}

// clientLogger passes on what the client remarks. Its remarks hold names, numbers
// and errors; no keys, no payloads, no passwords.
type clientLogger struct{ logger *slog.Logger }

// Level keeps the client from composing what nobody reads.
func (l clientLogger) Level() kgo.LogLevel {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelWarn
}

// Log writes one remark. What the client calls a warning is a retry, as a rule.
func (l clientLogger) Log(level kgo.LogLevel, remark string, pairs ...any) {
	at := slog.LevelDebug
	if level <= kgo.LogLevelWarn {
		at = slog.LevelWarn
	}
	l.logger.LogAttrs(context.Background(), at, "kafka client", slog.String("remark", remark), slog.Group("about", pairs...))
}

// calmLogger is the producer's. While brokers are away the client warns for each
// partition and each try; of each remark one a pause is enough for people.
type calmLogger struct {
	clientLogger
	mu   sync.Mutex
	said map[string]time.Time // when a remark was last a warning
}

const remarkPause = time.Minute

func newCalmLogger(logger *slog.Logger) *calmLogger {
	return &calmLogger{clientLogger: clientLogger{logger}, said: make(map[string]time.Time)}
}

// Log writes one remark, as a warning when that is due.
func (l *calmLogger) Log(level kgo.LogLevel, remark string, pairs ...any) {
	if level <= kgo.LogLevelWarn && !l.due(remark) {
		level = kgo.LogLevelInfo
	}
	l.clientLogger.Log(level, remark, pairs...)
}

func (l *calmLogger) due(remark string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, said := l.said[remark]; said && now.Sub(last) < remarkPause {
		return false
	}
	l.said[remark] = now
	return true
}
