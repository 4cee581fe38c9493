package checkpoint_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/checkpoint"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// silent is a server that lets clients in, says that it takes writes, and never
// answers anything else.
type silent struct {
	clients atomic.Int32 // without requests to cancel
	started atomic.Pointer[pgproto3.StartupMessage]
}

func (s *silent) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go s.serve(server) // ends when the client hangs up
	return client, nil
}

func (s *silent) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	startup, err := backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	m, ok := startup.(*pgproto3.StartupMessage)
	if !ok {
		return
	}
	s.clients.Add(1)
	s.started.Store(m)
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if backend.Flush() != nil {
		return
	}
	if _, err := backend.Receive(); err != nil { // show transaction_read_only
		return
	}
	backend.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("transaction_read_only"), DataTypeOID: 25}}})
	backend.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("off")}})
	backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SHOW")})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if backend.Flush() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

func openSilent(tb testing.TB, s *silent) checkpoint.Store {
	tb.Helper()
	store, err := checkpoint.Open(tb.Context(), "", checkpoint.Options{
		Slot: "orders", Database: "postgres://streamer:hunter2@db/shop?sslmode=disable", Dial: s.dial,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

// closeSilent closes the store and lets so much time pass that the driver gives up
// its goodbye to a server that does not answer.
func closeSilent(tb testing.TB, store checkpoint.Store) {
	tb.Helper()
	if err := store.Close(); err != nil {
		tb.Error(err)
	}
	<-time.NewTimer(time.Minute).C
}

// A link that swallows everything must not stop a stream for ever: the session
// ends and the next one connects anew.
func TestADatabaseThatNeverAnswersEndsTheSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &silent{}
		store := openSilent(t, s)
		next := checkpoint.Position{Slot: "orders", System: "1", Timeline: 1, Database: "shop", LSN: 1, Time: time.Now()}
		for round := range int32(2) {
			begin := time.Now()
			err := store.Save(t.Context(), next)
			if fault.Classify(err) != fault.Transient || !strings.Contains(err.Error(), "no answer") {
				t.Fatalf("Save without an answer = %v, want a transient error", err)
			}
			if waited := time.Since(begin); waited < 10*time.Second || waited > time.Minute {
				t.Errorf("Save waited %v for an answer", waited)
			}
			if got := s.clients.Load(); got != round+1 {
				t.Errorf("after %d saves the store has connected %d times", round+1, got)
			}
		}
		closeSilent(t, store)
	})
}

func TestACancelledSaveEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openSilent(t, &silent{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		err := store.Save(ctx, checkpoint.Position{Slot: "orders", System: "1", Timeline: 1, Database: "shop", LSN: 1})
		if !errors.Is(err, context.Canceled) || fault.Classify(err) != fault.Stopped {
			t.Errorf("Save with a context that ends = %v, want context.Canceled", err)
		}
		if waited := time.Since(begin); waited != time.Second {
			t.Errorf("Save ended after %v, want 1s", waited)
		}
		closeSilent(t, store)
	})
}

func TestADatabaseThatIsAwayIsTransient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
			"refuses": func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") },
			"hangs": func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		} {
			store, err := checkpoint.Open(t.Context(), "database", checkpoint.Options{
				Slot: "orders", Database: "postgres://streamer:hunter2@db/shop?sslmode=disable", Dial: dial,
			})
			if err != nil {
				t.Fatalf("%s: Open = %v, want no connection before it is needed", name, err)
			}
			begin := time.Now()
			_, err = store.Load(t.Context())
			if err == nil || fault.Classify(err) != fault.Transient || errors.Is(err, checkpoint.ErrNone) {
				t.Errorf("%s: Load = %v, want a transient error", name, err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: the error shows the password: %v", name, err)
			}
			if waited := time.Since(begin); waited > 20*time.Second {
				t.Errorf("%s: Load waited %v", name, waited)
			}
		}
	})
}

func TestTheServerCanTellWhoseConnectionItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &silent{}
		store := openSilent(t, s)
		if _, err := store.Load(t.Context()); err == nil {
			t.Error("Load from a silent server succeeded")
		}
		if got := s.started.Load().Parameters["application_name"]; got != "outboxcdc checkpoint orders" {
			t.Errorf("application_name is %q", got)
		}
		closeSilent(t, store)
	})
}

// Save writes to the log that it waits for: an idle stream must not be woken by it.
func TestDatabaseStoreIsQuiet(t *testing.T) {
	quiet, ok := openSilent(t, &silent{}).(checkpoint.Quiet)
	if !ok || quiet.IdleInterval() != time.Minute {
		t.Errorf("the database store has no idle interval of a minute")
	}
}
