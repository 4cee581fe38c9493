package servers

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bringUp is how long a test waits for a server, which may have to be fetched.
const bringUp = 15 * time.Minute

// Postgres runs a Postgres for this test alone; it ends with the test. When the
// test fails, the end of the server's log is part of what it says.
func Postgres(tb testing.TB, opts ...Option) *PostgresServer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bringUp)
	defer cancel()
	p, err := StartPostgres(ctx, forTest(tb, opts))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { end(tb, p, p.machine) })
	return p
}

// Kafka runs a Kafka for this test alone; it ends with the test. When the test
// fails, the end of the server's log is part of what it says.
func Kafka(tb testing.TB, opts ...Option) *KafkaServer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bringUp)
	defer cancel()
	k, err := StartKafka(ctx, forTest(tb, opts))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { end(tb, k, k.machine) })
	return k
}

// forTest is the Config that the options make, with the test's log.
func forTest(tb testing.TB, opts []Option) Config {
	tb.Helper()
	c := newConfig(opts)
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(tb.Output(), nil))
	}
	return c
}

// end closes the server of one test.
func end(tb testing.TB, server interface{ Close() error }, m machine) {
	tb.Helper()
	if tb.Failed() {
		tb.Logf("the server's log ends with:\n%s", m.log())
	}
	if err := server.Close(); err != nil {
		tb.Errorf("close the test server: %v", err)
	}
}

// once is a server that the tests of this process share, started by the first of
// them. A start that failed is not tried again: each test would wait anew.
type once[S interface{ Close() error }] struct {
	mu     sync.Mutex
	server S
	err    error
	tried  bool
}

// take gives the server, and starts it when this is the first call.
func (o *once[S]) take(start func() (S, error)) (S, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.tried {
		o.tried = true
		o.server, o.err = start()
	}
	return o.server, o.err
}

// close ends the server when there is one.
func (o *once[S]) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.tried || o.err != nil {
		return nil
	}
	o.tried = false
	return o.server.Close()
}

// The shared servers of this process. They are global because the test functions
// of a package share nothing else; Main ends them.
//
//nolint:gochecknoglobals // see above
var (
	sharedPostgres once[*PostgresServer]
	sharedKafka    once[*KafkaServer]
	sharedConnect  once[*Connect]
)

// SharedPostgres gives the test a database of its own on a server that the tests
// of this package share. The server must not be stopped or reconfigured. A package
// that calls it has
//
//	func TestMain(m *testing.M) { servers.Main(m) }
func SharedPostgres(tb testing.TB) *Database {
	tb.Helper()
	p, err := sharedPostgres.take(func() (*PostgresServer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), bringUp)
		defer cancel()
		p, err := StartPostgres(ctx, forTest(tb, nil))
		if err == nil {
			p.shared = true
		}
		return p, err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p.Database(tb)
}

// SharedKafka gives the server that the tests of this package share. Use topics
// of a name that no other test uses, such as Topic makes. The server must not be
// stopped. A package that calls it has the TestMain of SharedPostgres.
func SharedKafka(tb testing.TB) *KafkaServer {
	tb.Helper()
	k, err := sharedKafka.take(func() (*KafkaServer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), bringUp)
		defer cancel()
		k, err := StartKafka(ctx, forTest(tb, nil))
		if err == nil {
			k.shared = true
		}
		return k, err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// Main runs the tests of a package, ends the shared servers and exits. Should the
// process be interrupted instead, or killed, or should a test panic, the servers
// end with it, and the next run clears their directories away.
func Main(m *testing.M) {
	closeWhenInterrupted()
	code := m.Run()
	if !closeShared() && code == 0 {
		code = 1
	}
	os.Exit(code)
}

// closeWhenInterrupted ends the shared servers in order when the process is asked
// to end. Its goroutine ends with the process.
func closeWhenInterrupted() {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-interrupted
		closeShared()
		os.Exit(130)
	}()
}

// closeShared ends the shared servers and says whether that went well.
func closeShared() bool {
	well := true
	for _, err := range []error{sharedConnect.close(), sharedPostgres.close(), sharedKafka.close(), sharedRabbit.close()} {
		if err != nil {
			well = false
			_, _ = os.Stderr.WriteString("close the shared test server: " + err.Error() + "\n")
		}
	}
	return well
}

// bounded is the context of one helper call: no call waits without end.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*startTimeout)
}

// must fails the test with err.
func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
