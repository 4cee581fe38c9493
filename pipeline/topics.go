package pipeline

import (
	"slices"
	"strings"
	"sync"

	"github.com/outboxcdc/outboxcdc/sink"
)

// maxCountedTopics bounds how many topics are counted one by one. Their names come from
// rows, and each is a series for whoever collects metrics, for good.
const maxCountedTopics = 100

// TopicCount is what was sent to a topic since the process began, redeliveries included.
type TopicCount struct {
	Topic    string // empty for all topics behind the first hundred, together
	Messages uint64
	Bytes    uint64 // of keys and values
}

// topicCounts counts what goes to which topic. The publisher counts a batch at a time
// and allocates for a topic's first message only; Stats may ask at any time.
type topicCounts struct {
	mu     sync.Mutex
	counts []TopicCount   // in the order of first messages; the last may be that of the rest
	at     map[string]int // where a topic is in counts
}

// sent counts messages on their way to the sink.
func (c *topicCounts) sent(messages []sink.Message) {
	if len(messages) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	topic, count := "", (*TopicCount)(nil)
	for i := range messages {
		m := &messages[i]
		if count == nil || m.Topic != topic { // a batch mostly has runs of one topic
			topic, count = m.Topic, c.of(m.Topic)
		}
		count.Messages++
		count.Bytes += uint64(len(m.Key) + len(m.Value))
	}
}

// of is the count of a topic, or of the rest. It is good until the next call. c.mu is
// held.
func (c *topicCounts) of(topic string) *TopicCount {
	at, known := c.at[topic]
	if !known && len(c.at) >= maxCountedTopics {
		topic = "" // which is no topic's name
		at, known = c.at[topic]
	}
	if !known {
		if c.at == nil {
			c.at = make(map[string]int)
		}
		topic = strings.Clone(topic) // it may be part of a row
		at = len(c.counts)
		c.at[topic] = at
		c.counts = append(c.counts, TopicCount{Topic: topic})
	}
	return &c.counts[at]
}

// all are the counts of every topic, in the order of their first messages.
func (c *topicCounts) all() []TopicCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.counts)
}
