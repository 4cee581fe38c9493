package servers

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain runs the tests, or what a test wants another process to do.
func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		play(role)
		return
	}
	Main(m)
}

// setting asks the server for one of its settings.
func setting(tb testing.TB, p *PostgresServer, name string) string {
	tb.Helper()
	return ask[string](tb, p, "select current_setting('"+name+"')")
}

// ask gives the one value of a query.
func ask[T any](tb testing.TB, p *PostgresServer, sql string) T {
	tb.Helper()
	ctx, cancel := bounded()
	defer cancel()
	var value T
	conn, err := p.Connect(ctx, "postgres")
	must(tb, err)
	defer hangUp(conn)
	if err := conn.QueryRow(ctx, sql).Scan(&value); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return value
}

// eventually waits until ok, and fails the test when it takes longer than a server
// may take to start.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	err := poll(ctx, 20*time.Millisecond, func(context.Context) error {
		if ok() {
			return nil
		}
		return fmt.Errorf("not yet")
	})
	if err != nil {
		tb.Fatalf("wait until %s: %v", what, err)
	}
}

// recorder is a test that may fail without failing the real one.
type recorder struct {
	testing.TB
	said string
}

func (*recorder) Helper() {}

func (r *recorder) Fatal(args ...any) {
	r.said = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Fatal(fmt.Sprintf(format, args...))
}

// fatal runs do, and gives what it failed with; it must fail.
func fatal(tb testing.TB, do func(r *recorder)) string {
	tb.Helper()
	r := &recorder{TB: tb}
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(r)
	}()
	<-done
	if r.said == "" {
		tb.Fatal("nothing failed")
	}
	return r.said
}
