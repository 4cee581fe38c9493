package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// topics makes sure of a topic before anything is sent to it, once a session: the
// client would first wait for one that does not exist and then fail everything sent
// to it.
type topics struct {
	client *kgo.Client
	create bool
	limits *limits
	logger *slog.Logger
	known  map[string]bounds
	never  map[string]refused // topics that were refused a moment ago; see judge
	frozen map[string]int32   // partitions of topics that are looked at once more

	partitions int // of all that are known

	last       string // the topic of the last message, and its bounds
	lastBounds bounds
}

// bounds are what a topic takes.
type bounds struct {
	bytes      int64 // of the largest message
	partitions int32
	closed     bool // the broker says that we may not write to it
}

func newTopics(client *kgo.Client, o Options, limits *limits) *topics {
	return &topics{client: client, create: o.CreateTopics, limits: limits, logger: o.Logger, known: make(map[string]bounds), never: make(map[string]refused), frozen: make(map[string]int32)}
}

const (
	maxTopicName = 249

	// A broker that starts up, or has not heard of a new topic yet, says that it does
	// not exist. The next one is asked, and the first again.
	missingTries = 4
	firstPause   = 250 * time.Millisecond
	longestPause = 5 * time.Second
)

// checkTopicName is Kafka's rule (Topic.validate).
func checkTopicName(name string) error {
	switch {
	case name == "":
		return errors.New("the topic's name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("no topic can be named %q", name)
	case len(name) > maxTopicName:
		return fmt.Errorf("the topic's name is %d characters long, %d are allowed", len(name), maxTopicName)
	case strings.ContainsFunc(name, notInTopic):
		return errors.New("the topic's name has a character other than letters, digits, dot, underscore and hyphen")
	default:
		return nil
	}
}

func notInTopic(r rune) bool { return r == ':' || notInHost(r) }

// fits is why a message of size bytes can never be stored, or nil. Its topic has been
// learned, or its name is impossible.
func (t *topics) fits(m *Message, size int64) error {
	if m.Topic != t.last {
		limits, known := t.known[m.Topic]
		if !known {
			return fault.NewData(fmt.Errorf("send: %w", checkTopicName(m.Topic)), "change what the topic's name is made of, --topic or the row")
		}
		t.last, t.lastBounds = m.Topic, limits
	}
	if len(m.Key) == 0 && !m.Keyless {
		return fault.NewData(errors.New("a message without a key has no place in the order"), "give the row an aggregate_id")
	}
	if partition := partitionOf(m); partition >= t.lastBounds.partitions {
		return fault.NewData(
			fmt.Errorf("partition %d is not one of the %d that topic %s had when the session began", partition, t.lastBounds.partitions, m.Topic),
			"name a partition that is there, or add partitions to the topic")
	}
	if size > t.lastBounds.bytes {
		return fault.NewData(
			fmt.Errorf("a message of %d bytes is larger than the %d that topic %s and max.request.size allow", size, t.lastBounds.bytes, m.Topic),
			"make the event smaller, or raise max.message.bytes of the topic and max.request.size in the sink's URL")
	}
	return nil
}

// learn resolves the topics of msgs that are not known yet. A name that no topic can
// have is left for its message's turn.
func (t *topics) learn(ctx context.Context, msgs []Message, cut <-chan struct{}) error {
	var missing []string
	last := t.last
	for i := range msgs {
		name := msgs[i].Topic
		if name == last {
			continue
		}
		last = name
		if t.unknown(name) {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return t.resolve(ctx, slices.Compact(missing), cut)
}

// unknown says whether name is that of a topic that must be learned.
func (t *topics) unknown(name string) bool {
	_, known := t.known[name]
	return !known && checkTopicName(name) == nil
}

// ahead gives the messages before the first whose topic could not be learned.
func (t *topics) ahead(msgs []Message) []Message {
	n := slices.IndexFunc(msgs, func(m Message) bool { return t.unknown(m.Topic) })
	return msgs[:max(n, 0)]
}

// resolve asks until each of the topics is known, is known to be missing, or ctx ends.
func (t *topics) resolve(ctx context.Context, names []string, cut <-chan struct{}) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		pending, err := t.ask(ctx, names, attempt)
		if len(pending) == 0 && err == nil {
			return nil
		}
		if fault.Classify(err) == fault.Operator {
			return err
		}
		names = pending
		t.logger.DebugContext(ctx, "wait for topics", slog.Int("topics", len(names)), slog.Any("error", err))
		if stopped := wait(ctx, pause, cut); stopped != nil {
			return errors.Join(stopped, err)
		}
		pause = min(2*pause, longestPause)
	}
}

// wait ends with pause, nil, or earlier with the reason.
func wait(ctx context.Context, pause time.Duration, cut <-chan struct{}) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-cut:
		return errCut
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask gives the topics that must be asked for again, and why if there is a reason.
func (t *topics) ask(ctx context.Context, names []string, attempt int) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	answer, err := metadata(ctx, t.client, names)
	if err != nil {
		return names, brokerError(err)
	}
	var ready []readyTopic
	var missing, pending, refused []string
	var refusal error
	for i := range answer.Topics {
		name, err := topicState(&answer.Topics[i])
		switch {
		case err == nil:
			ready = append(ready, readyTopic{name, int32(len(answer.Topics[i].Partitions)), !mayWrite(answer.Topics[i].AuthorizedOperations)})
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			missing = append(missing, name)
		case fault.Classify(err) == fault.Operator:
			refused, refusal = append(refused, name), err
		default:
			pending = append(pending, name)
		}
	}
	if len(ready)+len(missing)+len(pending)+len(refused) < len(names) {
		return names, errors.New("the broker's answer lacks topics that were asked for")
	}
	if err := t.remember(ctx, ready); err != nil {
		return names, err
	}
	pending = slices.Concat(pending, missing, refused)
	if refusal != nil {
		return pending, refusal
	}
	return pending, t.provide(ctx, missing, attempt)
}

// metadata asks any broker. It never asks for topics to be made: with the broker's
// auto.create.topics.enable that would happen to every typing error.
func metadata(ctx context.Context, client *kgo.Client, names []string) (*kmsg.MetadataResponse, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.AllowAutoTopicCreation = false
	request.IncludeTopicAuthorizedOperations = true
	request.Topics = []kmsg.MetadataRequestTopic{} // none, where nil is all
	for _, name := range names {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &name
		request.Topics = append(request.Topics, topic)
	}
	return request.RequestWith(ctx, client)
}

// topicState is nil for a topic that can be sent to.
func topicState(topic *kmsg.MetadataResponseTopic) (string, error) {
	name := ""
	if topic.Topic != nil {
		name = *topic.Topic
	}
	err := kerr.ErrorForCode(topic.ErrorCode)
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return name, refuse(name, fault.NewOperator(fmt.Errorf("look at topic %s: %w", name, err), "grant Describe and Write on the topic to our user"))
	case errors.Is(err, kerr.InvalidTopicException):
		return name, refuse(name, fault.NewOperator(fmt.Errorf("look at topic %s: %w", name, err), "change --topic"))
	case err == nil && len(topic.Partitions) == 0:
		return name, errors.New("the topic has no partitions yet")
	default:
		return name, err
	}
}

// provide makes topics that are missing, or refuses to go on without them.
func (t *topics) provide(ctx context.Context, missing []string, attempt int) error {
	switch {
	case len(missing) == 0:
		return nil
	case t.create:
		return t.make(ctx, missing)
	case attempt < missingTries:
		return nil
	default:
		return errMissing(missing)
	}
}

func errMissing(names []string) error {
	subject := "topic " + names[0] + " does not exist"
	if len(names) > 1 {
		subject = "topics " + strings.Join(names, ", ") + " do not exist"
	}
	return refuse(names[0], fault.NewOperator(errors.New(subject), createAdvice(names[0])))
}

func createAdvice(name string) string {
	return fmt.Sprintf("make it: kafka-topics.sh --bootstrap-server … --create --topic %s --partitions … --replication-factor …; or start with --create-topics; or correct --topic, or what the row names", name)
}

// make asks for topics with the broker's own number of partitions and replicas, which
// needs Kafka 2.4.
func (t *topics) make(ctx context.Context, names []string) error {
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 10_000
	for _, name := range names {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, -1, -1
		request.Topics = append(request.Topics, topic)
	}
	answer, err := request.RequestWith(ctx, t.client)
	if err != nil {
		return brokerError(err)
	}
	for i := range answer.Topics {
		if err := t.made(ctx, &answer.Topics[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *topics) made(ctx context.Context, answer *kmsg.CreateTopicsResponseTopic) error {
	err := kerr.ErrorForCode(answer.ErrorCode)
	switch {
	case err == nil:
		t.logger.InfoContext(ctx, "made a topic", slog.String("topic", answer.Topic), slog.Int("partitions", int(answer.NumPartitions)))
		return nil
	case errors.Is(err, kerr.TopicAlreadyExists), kerr.IsRetriable(err):
		return nil // someone else made it, or the next round does
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return refuse(answer.Topic, fault.NewOperator(fmt.Errorf("make topic %s: %w", answer.Topic, err), "grant Create on the topic to our user, or make it yourself"))
	default:
		if answer.ErrorMessage != nil {
			err = fmt.Errorf("%w: %s", err, *answer.ErrorMessage)
		}
		return refuse(answer.Topic, fault.NewOperator(fmt.Errorf("make topic %s: %w", answer.Topic, err), "make the topic yourself"))
	}
}

// readyTopic is a topic that can be sent to.
type readyTopic struct {
	name       string
	partitions int32
	closed     bool
}

// remember learns the limits of topics that are ready. A batch that is larger than
// max.message.bytes is refused as a whole, however small its messages are.
func (t *topics) remember(ctx context.Context, ready []readyTopic) error {
	if len(ready) == 0 {
		return nil
	}
	names := make([]string, len(ready))
	for i := range ready {
		names[i] = ready[i].name
	}
	configs, err := topicConfigs(ctx, t.client, names)
	if err != nil {
		return brokerError(err)
	}
	for _, topic := range ready {
		name := topic.name
		if count, again := t.frozen[name]; again {
			topic.partitions = count
		}
		bytes, err := strconv.ParseInt(configs[name]["max.message.bytes"], 10, 32)
		if err == nil && bytes > 0 {
			t.limits.lower(name, int32(bytes))
		}
		t.known[name] = bounds{int64(t.limits.of(name)), topic.partitions, topic.closed}
		t.partitions += int(topic.partitions)
	}
	return nil
}

// topicConfigs gives what each topic is configured with, by name. It lacks topics
// whose configuration we may not see.
func topicConfigs(ctx context.Context, client *kgo.Client, names []string) (map[string]map[string]string, error) {
	request := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range names {
		resource := kmsg.NewDescribeConfigsRequestResource()
		resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, name
		request.Resources = append(request.Resources, resource)
	}
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	configs := make(map[string]map[string]string)
	for _, resource := range answer.Resources {
		if resource.ErrorCode != 0 {
			continue
		}
		values := make(map[string]string)
		for _, c := range resource.Configs {
			if c.Value != nil {
				values[c.Name] = *c.Value
			}
		}
		configs[resource.ResourceName] = values
	}
	return configs, nil
}

// limits are the largest batches that topics take. The client asks for them on
// goroutines of its own.
type limits struct {
	mu     sync.Mutex
	most   int32
	topics map[string]int32
}

func newLimits(most int32) *limits { return &limits{most: most, topics: make(map[string]int32)} }

// of is the largest batch of topic in bytes, uncompressed.
func (l *limits) of(topic string) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes, known := l.topics[topic]; known {
		return bytes
	}
	return l.most
}

// lower sets the limit of topic; it never exceeds what holds for all.
func (l *limits) lower(topic string, bytes int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[topic] = min(bytes, l.most)
}
