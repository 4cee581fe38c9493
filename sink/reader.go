package sink

import (
	"context"
	"errors"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Record is a message as the broker keeps it. Its slices are valid until the visit
// that is given it returns.
type Record struct {
	Message

	Partition int32
	Offset    int64
}

// Span is a piece of one partition.
type Span struct {
	Topic     string
	Partition int32
	Start     int64 // the first offset that the broker still has; above 0 where retention removed some
	From, End int64 // what Read reads: From is the first offset, End the one behind the last
	Compacted bool  // the broker keeps only the last record of a key; false too where we may not see that
}

// Reader reads topics back, for those who compare. It joins no consumer group and
// leaves nothing behind. It needs Read and Describe on the topics. One goroutine
// uses it at a time.
type Reader interface {
	// Spans says what the partitions of topics hold now: what lies behind since, or
	// everything when that is zero. Topics that do not exist are absent.
	Spans(ctx context.Context, topics []string, since time.Time) (spans []Span, absent []string, err error)

	// Read calls visit for each record in spans; those of one partition come in the
	// order of their offsets. What an aborted transaction wrote is left out. An error
	// of visit ends it.
	Read(ctx context.Context, spans []Span, visit func(Record) error) error

	// Close lets go of the broker.
	Close()
}

// readable is a target that can be read back.
type readable interface {
	reader(ctx context.Context, o Options) (Reader, error)
}

// OpenReader connects to the broker that rawURL names, to read. Its errors are those
// of Open; a sink that keeps nothing is a usage error.
func OpenReader(ctx context.Context, rawURL string, o Options) (Reader, error) {
	t, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	r, ok := t.(readable)
	if !ok {
		return nil, fault.NewUsage(errors.New("this sink keeps nothing that could be read back"), "use it with a kafka:// sink")
	}
	return r.reader(ctx, o.withDefaults())
}
