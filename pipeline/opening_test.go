package pipeline

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

// losing is a network whose links all go dead at the nth write of the client: nothing
// arrives any more, and nobody is told.
type losing struct {
	server *waltest.Server
	left   atomic.Int64
}

func (l *losing) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := l.server.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &losingConn{Conn: c, network: l}, nil
}

type losingConn struct {
	net.Conn
	network *losing
}

func (c *losingConn) Write(p []byte) (int, error) {
	if c.network.left.Add(-1) == 0 {
		c.network.server.Lose()
	}
	return c.Conn.Write(p)
}

// What other instances may have done before a session is opened.
const (
	nothing = iota
	saved   // one has streamed
	holding // one streams
)

// A link may die at any step of the opening of a session, and a server may stop to
// answer. No step waits for it without end: the kernel would notice a dead link, but
// not a server that hangs. What waits on purpose is the creation of a slot, for the
// transactions that run; it is not among these steps.
func TestAnOpeningEndsInTimeAtWhicheverStepTheLinkDies(t *testing.T) {
	for name, before := range map[string]int{"the first": nothing, "a later one": saved, "a second instance's": holding} {
		t.Run(name, func(t *testing.T) {
			for step, opened := int64(1), false; !opened; step++ {
				synctest.Test(t, func(t *testing.T) { opened = openingLosesItsLink(t, before, step) })
				if step > 200 {
					t.Fatal("the opening never comes to its end")
				}
			}
		})
	}
}

// openingLosesItsLink opens a session whose link dies at a step, and says whether the
// opening had fewer steps.
func openingLosesItsLink(t *testing.T, before int, step int64) (opened bool) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	server := waltest.NewServer(0x1000)
	defer server.Close()
	file := "file://" + filepath.Join(t.TempDir(), "position")
	if before != nothing {
		holder, err := openedBy(t, server.Dial, file).open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		holder.sink.Close() //nolint:errcheck // nothing was sent
		if before == saved {
			server.Cut()
		}
	}
	network := &losing{server: server}
	network.left.Store(step)
	began := time.Now()
	s, err := openedBy(t, network.dial, file).open(ctx)
	if took := time.Since(began); took > 2*openTimeout {
		t.Errorf("the link died at step %d, and the opening ended %v later with %v", step, took, err)
	}
	if class := fault.Classify(err); err != nil && class != fault.Transient {
		t.Errorf("the link died at step %d, and the opening ended with a %v error: %v", step, class, err)
	}
	if err == nil {
		s.sink.Close() //nolint:errcheck // nothing was sent
	}
	time.Sleep(5 * time.Minute) // what drivers close in the background
	return network.left.Load() > 0
}

func openedBy(t *testing.T, dial func(context.Context, string, string) (net.Conn, error), file string) *Runner {
	r, err := New(Config{
		Wal:  wal.Config{Database: "host=db user=u dbname=d sslmode=disable", Slot: "orders", Publication: "outboxcdc", Tables: []wal.Table{{Schema: "public", Name: "outbox"}}, Dial: dial},
		Sink: "stdout://", Checkpoint: file,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
