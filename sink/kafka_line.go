package sink

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
)

// line is the state that Send, the acks and the barrier share: whether messages may
// still be sent, and whether anything may still be written to a broker.
type line struct {
	cut chan struct{} // closed by the first failure of a message that the client held

	mu     sync.Mutex
	halted error // why Send takes nothing more
	failed error // why nothing is written any more
	behind error // what is told of the messages behind the failed one
}

func newLine() *line { return &line{cut: make(chan struct{})} }

// halt makes Send refuse from now on. What was sent goes on.
func (l *line) halt(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.halted == nil {
		l.halted = err
	}
}

// fail cuts the line at the first failed message and gives the error to ack with:
// why describes that of the first, every other one fails because of it.
func (l *line) fail(why func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.behind
	}
	l.failed = why()
	l.behind = fmt.Errorf("given up behind a message that failed: %w", l.failed)
	if l.halted == nil {
		l.halted = l.failed
	}
	close(l.cut)
	return l.failed
}

// refusal is why Send must not take anything, or nil.
func (l *line) refusal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.halted
}

func (l *line) isCut() bool {
	select {
	case <-l.cut:
		return true
	default:
		return false
	}
}

// barrier keeps a produce request from the wire when it may hold a message that was
// sent behind a failed one. The client itself does not. When a message fails, it
// fails what is buffered behind it in the partition and goes on: it numbers the next
// record as if the failed ones had never been, and the broker stores it. We learn of
// the failure from the promise, on another goroutine, and until then Send may hand
// over the next event of the same key.
//
// So each produce request passes here before its first byte is written, and waits
// until every failure that happened before has reached its promise. This is enough.
// Let m be a message that fails and r one of the same key that was sent after it, so
// that both are in one partition (see frozenPartitions):
//
//   - The client queues the promise of m in the step that takes m out of its
//     partition's buffer, under that buffer's lock (kgo's recBuf.failAllRecords), or
//     in the call of Produce that finds m impossible, or under the lock of the topics
//     that are not known yet. What is buffered from then on is behind that.
//   - Promises run one after the other in the order of that queue. pass adds one of
//     its own and waits for it; when it has run, m's has, and the line is cut.
//   - So if r was buffered after m failed, r's request sees the cut line and is not
//     written.
//   - If r was buffered before m failed, m and r lie in the buffer in this order,
//     with consecutive sequence numbers, and m's request was made before r's. The
//     broker stores r only behind m: without m, r's number is out of order (Kafka's
//     ProducerAppendInfo.checkSequence), and the client keeps to one request until
//     the partition knows the producer. Then m's failure takes r with it.
//
// What remains is a broker that has forgotten the producer, which it does when a
// partition saw nothing of it for producer.id.expiration.ms, a day by default, and
// that then refuses the first of two requests in flight: it takes the second one,
// whatever its number.
//
// Tried and left: to look at the epoch of the producer, which the client raises
// after a failure. It does so only when the failed records had been written; those
// that fail before, from an error in the topic's metadata, leave no trace.
type barrier struct {
	client *kgo.Client
	line   *line
}

// OnNewClient is called by kgo.NewClient before the client can connect.
func (b *barrier) OnNewClient(c *kgo.Client) { b.client = c }

// pass waits for the failures so far and says whether a request may be written.
func (b *barrier) pass() bool {
	if b.line.isCut() {
		return false
	}
	reached := make(chan struct{})
	// A record without a topic is refused at once: all that comes of it is a call of
	// its promise, in turn.
	b.client.Produce(context.Background(), &kgo.Record{}, func(*kgo.Record, error) { close(reached) })
	<-reached
	return !b.line.isCut()
}

// guardedConn is a connection to a broker whose produce requests pass the barrier.
// It relies on the client to write each request with one call.
type guardedConn struct {
	net.Conn
	barrier *barrier
}

// errCut looks like a lost connection, which the client survives without failing
// what it holds; it is about to be closed.
var errCut = fmt.Errorf("a message failed, nothing more is sent: %w", net.ErrClosed)

// Write writes one request.
func (c *guardedConn) Write(request []byte) (int, error) {
	if isProduce(request) && !c.barrier.pass() {
		return 0, errCut
	}
	return c.Conn.Write(request)
}

// isProduce reads a request's header: four bytes of length, two of the API's key,
// which is 0 for Produce.
func isProduce(request []byte) bool {
	return len(request) > 6 && request[4] == 0 && request[5] == 0
}

// frozenPartitions spreads keys as the Java client does, over the number of
// partitions that the topic had when the session first sent to it. If partitions are
// added, keys move; two messages of one key would then be in two partitions, where
// the one can be stored while the other fails. So the session keeps to the old number
// until Send has seen the change and ended it.
type frozenPartitions struct {
	java kgo.Partitioner
	grew *atomic.Pointer[growth]
}

// growth is the news that a topic has got more partitions.
type growth struct {
	topic    string
	from, to int
}

func newFrozenPartitions() *frozenPartitions {
	// The sticky part is for records without a key, which have no order.
	return &frozenPartitions{java: kgo.StickyKeyPartitioner(nil), grew: new(atomic.Pointer[growth])}
}

// ForTopic is called by the client once a topic.
func (f *frozenPartitions) ForTopic(topic string) kgo.TopicPartitioner {
	return &frozenTopic{java: f.java.ForTopic(topic), topic: topic, grew: f.grew}
}

// frozenTopic is called under a lock of the client's.
type frozenTopic struct {
	java  kgo.TopicPartitioner
	topic string
	count int // 0 until the first record
	grew  *atomic.Pointer[growth]
}

// RequiresConsistency is true of every key: a partition that cannot be written to
// now is waited for.
func (*frozenTopic) RequiresConsistency(*kgo.Record) bool { return true }

// Partition is where r was placed, or the partition of its key.
func (f *frozenTopic) Partition(r *kgo.Record, n int) int {
	if f.count == 0 {
		f.count = n
	}
	if n != f.count {
		f.grew.CompareAndSwap(nil, &growth{f.topic, f.count, n})
	}
	if r.Partition != byKey {
		return int(r.Partition) // which topics.fits has seen to be there
	}
	return f.java.Partition(r, f.count)
}
