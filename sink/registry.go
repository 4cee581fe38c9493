package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// DefaultBufferBytes is how much a sink holds when Options.BufferBytes is 0; Kafka's
// own producer takes as much (buffer.memory).
const DefaultBufferBytes = 32 << 20

// Options are what every sink is opened with; each takes what it needs.
type Options struct {
	// Topics are the names that are known before streaming: the sink makes sure of
	// them when it opens. Others are looked up when the first message names them.
	Topics []string

	// CreateTopics makes topics that are missing, with the broker's defaults.
	CreateTopics bool

	// BufferBytes bounds what is sent and not yet acked, keys, values, headers and
	// what surrounds them; 0 means DefaultBufferBytes. A larger message goes alone.
	BufferBytes int

	// Dial replaces the network, for simulation; nil means the real one.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Wrap stands between the sink that is opened and who opened it; system is the
	// scheme of its URL. What it gives must forward Seeker, Staller and Judge. nil is nothing.
	Wrap func(s Sink, system string) Sink

	// Logger receives states and remarks; nil discards them. No key, payload or
	// password is ever logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.BufferBytes <= 0 {
		o.BufferBytes = DefaultBufferBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	return o
}

// target is a sink's URL, understood and not yet connected to.
type target interface {
	open(ctx context.Context, o Options) (Sink, error)
}

// checker is a target that can be looked at before streaming, by Check.
type checker interface {
	check(ctx context.Context, o Options) []fault.Finding
}

// kind is one kind of sink. Its parse is given what stands before and behind the
// question mark of scheme://address?query, both still escaped.
type kind struct {
	example string // for messages
	parse   func(address, query string) (target, error)

	unpartitioned bool // Message.Placed changes nothing
}

// kinds are the known kinds of sink by scheme. Each registers itself in the file
// that holds it.
var kinds = map[string]kind{} //nolint:gochecknoglobals // the registry

func register(scheme string, k kind) {
	if _, taken := kinds[scheme]; taken {
		panic("bug: two sinks are registered as " + scheme)
	}
	kinds[scheme] = k
}

// Kind is a kind of sink that a program brings along, for Register.
type Kind struct {
	// Example is a URL of it, for whoever gives one that is not understood.
	Example string

	// Parse understands what stands before and behind the question mark of
	// scheme://address?query, both still escaped, and connects to nothing. Its error is
	// to be one of fault.NewUsage that shows no password. What it gives opens the sink
	// for a session, as Open says.
	Parse func(address, query string) (Opener, error)

	// Unpartitioned says that it has no partitions: Message.Placed changes nothing.
	Unpartitioned bool
}

// Opener connects to a broker for one session.
type Opener func(ctx context.Context, o Options) (Sink, error)

func (open Opener) open(ctx context.Context, o Options) (Sink, error) { return open(ctx, o) }

// Register makes a kind of sink known under a scheme, beside those that are built in. It
// is called before anything else of this package, such as from an init function, and
// panics when the scheme is taken. That the sink keeps its promises is for sinktest to
// show: what it acks too early is lost.
func Register(scheme string, k Kind) {
	register(scheme, kind{example: k.Example, unpartitioned: k.Unpartitioned, parse: func(address, query string) (target, error) {
		open, err := k.Parse(address, query)
		if err != nil {
			return nil, err
		}
		return open, nil
	}})
}

// Open connects to the sink that rawURL names by its scheme: kafka or stdout. A URL
// that cannot be used is a usage error, a broker that cannot be reached a transient
// one, and one that refuses us or lacks one of Options.Topics an operator error.
func Open(ctx context.Context, rawURL string, o Options) (Sink, error) {
	t, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	s, err := t.open(ctx, o.withDefaults())
	if err != nil || o.Wrap == nil {
		return s, err
	}
	system, _, _ := strings.Cut(rawURL, "://")
	return o.Wrap(s, system), nil
}

// CheckURL gives the usage error that Open would give for rawURL, or nil. It
// connects to nothing.
func CheckURL(rawURL string) error {
	_, err := parse(rawURL)
	return err
}

// Partitioned says whether messages of rawURL can be placed in a partition. Of a URL that
// cannot be used it says yes.
func Partitioned(rawURL string) bool {
	scheme, _, _ := strings.Cut(rawURL, "://")
	return !kinds[scheme].unpartitioned
}

// Check looks at the broker that rawURL names for everything that would stop a
// stream or let it lose what was acked. It changes nothing there.
func Check(ctx context.Context, rawURL string, o Options) []fault.Finding {
	t, err := parse(rawURL)
	if err != nil {
		return []fault.Finding{findingOf("sink.url", "the sink's URL", err)}
	}
	if c, ok := t.(checker); ok {
		return c.check(ctx, o.withDefaults())
	}
	return nil
}

// findingOf is an error as a finding that stops the stream.
func findingOf(code, subject string, err error) fault.Finding {
	f := fault.Finding{Code: code, Severity: fault.Failure, Subject: subject, Problem: err.Error()}
	if known, ok := errors.AsType[*fault.Error](err); ok {
		f.Problem, f.Fix = known.Err.Error(), known.Advice
	}
	return f
}

// parse understands scheme://address?query. It is not net/url's notion of a URL,
// which knows one host only, and whose errors repeat what they could not read.
func parse(rawURL string) (target, error) {
	scheme, rest, found := strings.Cut(rawURL, "://")
	k, known := kinds[scheme]
	switch {
	case rawURL == "":
		return nil, badURL("it is empty")
	case !found:
		return nil, badURL("it has no scheme")
	case !known:
		return nil, badURL("its scheme is none that is known")
	case strings.Contains(rest, "#"):
		return nil, fault.NewUsage(errors.New("the sink's URL cannot be used: it contains a #"), "write %23 for a # in a value")
	}
	address, query, _ := strings.Cut(rest, "?")
	return k.parse(address, query)
}

// badURL repeats nothing of the URL, which may hold a password at any place.
func badURL(problem string) error {
	var examples []string
	for _, scheme := range slices.Sorted(maps.Keys(kinds)) {
		examples = append(examples, kinds[scheme].example)
	}
	return fault.NewUsage(fmt.Errorf("the sink's URL cannot be used: %s", problem), "want one of "+strings.Join(examples, ", "))
}
