package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// Options are what every store is opened with; each takes what it needs.
type Options struct {
	Slot string // whose position it is

	// Database is a libpq URI or key=value string. Empty means the PG*
	// environment variables alone.
	Database string

	// HistoryAge is how long entries of the history are kept; 0 means
	// DefaultHistoryAge.
	HistoryAge time.Duration

	// Dial replaces the network, for simulation; nil means the real one.
	Dial pgconn.DialFunc

	// Logger receives what the database remarks; nil discards it.
	Logger *slog.Logger
}

func (o Options) historyAge() time.Duration {
	if o.HistoryAge <= 0 {
		return DefaultHistoryAge
	}
	return o.HistoryAge
}

// Preparer is implemented by stores that need something made for them. Prepare
// makes what is missing and says what it made; it is called before the first Load,
// and harmless when nothing is missing.
type Preparer interface {
	Prepare(ctx context.Context) (made []string, err error)
}

// Entitled is implemented by stores in which a role has rights. Missing says how to give
// those that it lacks and a stream will need; empty when it lacks none.
type Entitled interface {
	Missing(ctx context.Context) (fix string, err error)
}

// defaultScheme is the store that is used when none is named: the database that
// the events come from.
const defaultScheme = "database"

// opener opens the store that a URL names.
type opener func(ctx context.Context, u *url.URL, o Options) (Store, error)

// stores are the known kinds of store by scheme. Each registers itself in the file
// that holds it.
var stores = map[string]store{} //nolint:gochecknoglobals // the registry

type store struct {
	example string // for messages
	check   func(u *url.URL) error
	open    opener // is given a URL that check has passed
	opaque  bool   // the URL is handed on as it is, whole, in Opaque
}

func register(scheme, example string, check func(u *url.URL) error, open opener) {
	if _, taken := stores[scheme]; taken {
		panic("bug: two checkpoint stores are registered as " + scheme)
	}
	stores[scheme] = store{example: example, check: check, open: open}
}

// registerOpaque is register for URLs that net/url does not understand.
func registerOpaque(scheme, example string, check func(u *url.URL) error, open opener) {
	register(scheme, example, check, open)
	kind := stores[scheme]
	kind.opaque = true
	stores[scheme] = kind
}

// Open opens the store that rawURL names by its scheme: "database", which is also
// what empty means, file:///path, kafka://brokers/topic or memory://. The word alone stands for scheme://.
// A URL that cannot be used is a usage error. A store outlives the sessions that
// use it: it connects when it is first needed, and again after a connection broke.
func Open(ctx context.Context, rawURL string, o Options) (Store, error) {
	if o.Slot == "" {
		return nil, fault.NewUsage(errors.New("open the checkpoint store: no slot is named"), "name one with --slot")
	}
	kind, u, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	return kind.open(ctx, u, o)
}

// InDatabase says whether rawURL names the store in the database that the events come
// from.
func InDatabase(rawURL string) bool {
	scheme, _, _ := strings.Cut(rawURL, ":")
	return rawURL == "" || scheme == defaultScheme
}

// CheckURL gives the usage error that Open would give for rawURL, or nil. It opens
// nothing.
func CheckURL(rawURL string) error {
	_, _, err := parse(rawURL)
	return err
}

func parse(rawURL string) (store, *url.URL, error) {
	scheme, _, _ := strings.Cut(rawURL, ":")
	if rawURL == "" {
		scheme = defaultScheme
	}
	kind, known := stores[scheme]
	if !known {
		return store{}, nil, badURL("its scheme is none that is known")
	}
	if scheme == rawURL || rawURL == "" {
		rawURL = scheme + "://"
	}
	var u *url.URL
	var err error
	if kind.opaque { // not net/url's notion of a URL, which knows one host only
		u = &url.URL{Scheme: scheme, Opaque: rawURL}
	} else if u, err = url.Parse(rawURL); err != nil {
		return store{}, nil, badURL("it is no URL")
	}
	err = kind.check(u)
	return kind, u, err
}

// badURL repeats nothing of the URL: whoever confuses it with the database's own
// has a password in it.
func badURL(problem string) error {
	var examples []string
	for _, scheme := range slices.Sorted(maps.Keys(stores)) {
		examples = append(examples, stores[scheme].example)
	}
	return fault.NewUsage(
		fmt.Errorf("the checkpoint URL cannot be used: %s", problem),
		"want one of "+strings.Join(examples, ", "))
}

// onlyScheme refuses what stands behind a scheme that says it all.
func onlyScheme(u *url.URL) error {
	if *u != (url.URL{Scheme: u.Scheme}) {
		return badURL(fmt.Sprintf("nothing stands behind %s", u.Scheme))
	}
	return nil
}
