package wal_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

const (
	testStart  = wal.LSN(0x1000)
	testOID    = 16400
	bubbleTime = 10 * time.Minute // of the bubble's clock: ends a test that hangs
)

var outboxRelation = waltest.Relation(testOID, "public", "outbox", "id")

// reading is a stream of a fake server under test.
type reading struct {
	server *waltest.Server
	stream *wal.Stream
	out    chan wal.Batch
	stop   chan struct{}
	cancel context.CancelFunc
	done   chan error
}

// bubble runs body in a bubble with a stream that started at testStart.
func bubble(t *testing.T, queue int, body func(t *testing.T, ctx context.Context, r *reading)) {
	t.Helper()
	bubbleOn(t, waltest.Shape{}, queue, body)
}

// bubbleOn is a bubble with a connection of that shape.
func bubbleOn(t *testing.T, shape waltest.Shape, queue int, body func(t *testing.T, ctx context.Context, r *reading)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), bubbleTime)
		defer cancel()
		server := waltest.NewServer(testStart)
		server.Shape = func() waltest.Shape { return shape }
		r := read(t, ctx, server, queue)
		body(t, ctx, r)
		r.end()
	})
}

// read streams from the beginning.
func read(t *testing.T, ctx context.Context, server *waltest.Server, queue int) *reading {
	t.Helper()
	conn, err := wal.Connect(ctx, testConfig(server))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := conn.Start(ctx, testStart)
	if err != nil {
		t.Fatal(err)
	}
	running, hangUp := context.WithCancel(ctx)
	r := &reading{server: server, stream: stream, out: make(chan wal.Batch, queue), stop: make(chan struct{}), cancel: hangUp, done: make(chan error, 1)}
	go func() { r.done <- stream.Run(running, r.stop, r.out) }()
	return r
}

func (r *reading) end() {
	r.cancel()
	for range r.out {
	}
	r.server.Cut()
}

func testConfig(server *waltest.Server) wal.Config {
	return wal.Config{
		Database:    "host=db user=u dbname=d sslmode=disable",
		Slot:        "orders",
		Publication: "outboxcdc",
		Tables:      []wal.Table{{Schema: "public", Name: "outbox", Columns: []wal.Column{{Name: "id", Required: true}}}},
		Dial:        server.Dial,
	}
}

func insert(id string) []byte { return waltest.Insert(testOID, []byte(id)) }

// take gives the next batch or fails.
func (r *reading) take(t *testing.T, ctx context.Context) wal.Batch {
	t.Helper()
	select {
	case b, open := <-r.out:
		if !open {
			t.Fatalf("the stream ended: %v", <-r.done)
		}
		return b
	case <-ctx.Done():
		t.Fatal("no batch came")
	}
	return wal.Batch{}
}

func TestSingleRowOnAnIdleLogIsPassedOnAtOnce(t *testing.T) {
	bubble(t, 0, func(t *testing.T, ctx context.Context, r *reading) {
		synctest.Wait()
		began := time.Now()
		_, end := r.server.Transaction(7, outboxRelation, insert("a"))
		b := r.take(t, ctx)
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the row waited %v for company, want none", waited)
		}
		if len(b.Rows) != 1 || b.End != end || string(b.Rows[0].Columns[0]) != "a" {
			t.Errorf("batch of %d rows to %v, want the row a to %v", len(b.Rows), b.End, end)
		}
	})
}

func TestARowThatTheWalsenderSleptThroughIsFetchedSoon(t *testing.T) {
	bubble(t, 0, func(t *testing.T, ctx context.Context, r *reading) {
		sleep(ctx, 12*time.Second)
		r.server.Doze()
		began := time.Now()
		r.server.Transaction(7, outboxRelation, insert("a"))
		if b := r.take(t, ctx); len(b.Rows) != 1 {
			t.Fatalf("%d rows, want the one", len(b.Rows))
		}
		if waited := time.Since(began); waited > 3*time.Second/2 {
			t.Errorf("the row waited %v for its walsender to wake, want a second", waited)
		}
	})
}

func TestIdleLogTravelsAsABatchWithoutRows(t *testing.T) {
	bubble(t, 1, func(t *testing.T, ctx context.Context, r *reading) {
		end := r.server.Idle(4096)
		if b := r.take(t, ctx); len(b.Rows) != 0 || b.End != end {
			t.Errorf("batch of %d rows to %v, want none to %v", len(b.Rows), b.End, end)
		}
	})
}

func TestStatusFlowsWhileNobodyTakesBatches(t *testing.T) {
	bubble(t, 0, func(t *testing.T, ctx context.Context, r *reading) {
		r.server.Transaction(7, outboxRelation, insert("a"))
		synctest.Wait()
		began := len(r.server.Statuses())
		sleep(ctx, time.Minute)
		if n := len(r.server.Statuses()) - began; n < 38 || n > 62 {
			t.Errorf("%d statuses in a minute of a blocked sink, want one a second", n)
		}
		for _, s := range r.server.Statuses() {
			if s.Flush != testStart {
				t.Errorf("status confirms %v while nothing was confirmed, want the start %v", s.Flush, testStart)
			}
		}
		if b := r.take(t, ctx); len(b.Rows) != 1 {
			t.Errorf("%d rows after the wait, want the one that waited", len(b.Rows))
		}
	})
}

func TestConfirmIsToldWithinHalfASecondAndOnlyThen(t *testing.T) {
	bubble(t, 1, func(t *testing.T, ctx context.Context, r *reading) {
		_, end := r.server.Transaction(7, outboxRelation, insert("a"))
		b := r.take(t, ctx)
		sleep(ctx, time.Minute)
		if got := r.server.Confirmed(); got != testStart {
			t.Fatalf("the slot moved to %v before Confirm, want %v", got, testStart)
		}
		r.stream.Confirm(b.End)
		sleep(ctx, 501*time.Millisecond)
		if got := r.server.Confirmed(); got != end {
			t.Errorf("the slot is at %v half a second after Confirm, want %v", got, end)
		}
		last := r.server.Statuses()[len(r.server.Statuses())-1]
		if last.Write != end || last.Flush != end || last.Apply != end {
			t.Errorf("status %+v, want the proven position %v in all three fields", last, end)
		}
	})
}

func TestReplyStormIsAnsweredTwiceASecond(t *testing.T) {
	bubble(t, 1, func(t *testing.T, ctx context.Context, r *reading) {
		synctest.Wait()
		began := len(r.server.Statuses())
		for range 10_000 {
			r.server.Raw(waltest.AppendKeepalive(nil, testStart, true))
			sleep(ctx, time.Millisecond)
		}
		if n := len(r.server.Statuses()) - began; n < 10 || n > 21 {
			t.Errorf("%d answers to a storm of 10 s, want two a second at the most and one at the least", n)
		}
	})
}

func TestSilentServerIsFoundDead(t *testing.T) {
	bubble(t, 1, func(t *testing.T, _ context.Context, r *reading) {
		synctest.Wait()
		r.server.Mute()
		began := time.Now()
		err := <-r.done
		if !errors.Is(err, wal.ErrLinkDead) || fault.Classify(err) != fault.Transient {
			t.Errorf("error %v, want a transient ErrLinkDead", err)
		}
		if waited := time.Since(began); waited < wal.DefaultSilence || waited > wal.DefaultSilence+2*wal.DefaultStatusInterval {
			t.Errorf("found dead after %v, want %v and the interval that ran", waited, wal.DefaultSilence)
		}
	})
}

func TestIdleServerThatAnswersIsNotFoundDead(t *testing.T) {
	bubble(t, 1, func(t *testing.T, ctx context.Context, r *reading) {
		sleep(ctx, 9*time.Minute)
		select {
		case err := <-r.done:
			t.Errorf("the stream ended on an idle server: %v", err)
		default:
		}
	})
}

func TestStopEndsReadingAndGoodbyeCarriesTheLastConfirm(t *testing.T) {
	bubble(t, 4, func(t *testing.T, ctx context.Context, r *reading) {
		_, end := r.server.Transaction(7, outboxRelation, insert("a"))
		b := r.take(t, ctx)
		close(r.stop)
		if _, open := <-r.out; open {
			t.Error("a batch came after the stop")
		}
		sleep(ctx, 90*time.Second+time.Millisecond) // a long drain: the connection must live
		r.stream.Confirm(b.End)
		r.cancel()
		if err := <-r.done; err != nil {
			t.Errorf("Run gave %v after a stop, want nil", err)
		}
		if got := r.server.Confirmed(); got != end {
			t.Errorf("the slot is at %v after goodbye, want %v", got, end)
		}
	})
}

func TestLargeTransactionComesInBoundedBatches(t *testing.T) {
	bubble(t, 0, func(t *testing.T, ctx context.Context, r *reading) {
		messages := [][]byte{outboxRelation}
		const rows = 5000
		for i := range rows {
			messages = append(messages, insert(fmt.Sprint(i)))
		}
		_, end := r.server.Transaction(7, messages...)
		for next := 0; next < rows; {
			b := r.take(t, ctx)
			if len(b.Rows) > 1024 {
				t.Fatalf("a batch of %d rows, want 1024 at the most", len(b.Rows))
			}
			for _, row := range b.Rows {
				if row.Index != next || string(row.Columns[0]) != fmt.Sprint(next) {
					t.Fatalf("row %d is %q, want %d", row.Index, row.Columns[0], next)
				}
				next++
			}
			if b.End != 0 && next < rows {
				t.Fatalf("End %v after %d of %d rows, want none inside the transaction", b.End, next, rows)
			}
			if next == rows && b.End != end {
				b = r.take(t, ctx)
				if b.End != end {
					t.Fatalf("End %v after the last row, want %v", b.End, end)
				}
			}
		}
	})
}

func TestSkippedPublicationStopsTheStream(t *testing.T) {
	bubble(t, 1, func(t *testing.T, _ context.Context, r *reading) {
		r.server.Raw(notice("55000", "LoadPublications", `skipped loading publication "outboxcdc"`))
		err := <-r.done
		if fault.Classify(err) != fault.Operator || !strings.Contains(err.Error(), "outboxcdc") {
			t.Errorf("error %v, want an operator error that names the publication", err)
		}
	})
}

func TestNoticeOfAStandbyThatIsAwaitedIsNoError(t *testing.T) {
	bubble(t, 1, func(t *testing.T, ctx context.Context, r *reading) {
		r.server.Raw(notice("55000", "StandbySlotsHaveCaughtup", "replication slot standby1 is inactive"))
		end := r.server.Idle(100)
		if b := r.take(t, ctx); b.End != end {
			t.Errorf("End %v after the notice, want %v", b.End, end)
		}
	})
}

func TestWhatTheServerSaysInTheStreamIsClassified(t *testing.T) {
	for name, c := range map[string]struct {
		frames []byte
		class  fault.Class
	}{
		"copy done":       {waltest.AppendFrame(nil, 'c', nil), fault.Transient},
		"ready for query": {waltest.AppendFrame(nil, 'Z', []byte{'I'}), fault.Transient},
		"admin shutdown":  {serverError("57P01"), fault.Transient},
		"slot removed":    {serverError("42704"), fault.Operator},
		"unknown frame":   {waltest.AppendFrame(nil, '!', nil), fault.Operator},
		"empty copy data": {waltest.AppendFrame(nil, 'd', nil), fault.Operator},
		"short keepalive": {waltest.AppendFrame(nil, 'd', []byte{'k', 1}), fault.Operator},
		"length of three": {[]byte{'d', 0, 0, 0, 3}, fault.Transient},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 8, func(t *testing.T, _ context.Context, r *reading) {
				_, end := r.server.Transaction(7, outboxRelation, insert("a"))
				r.server.Raw(c.frames)
				err := <-r.done
				if err == nil || fault.Classify(err) != c.class {
					t.Errorf("error %v of class %v, want %v", err, fault.Classify(err), c.class)
				}
				if b := <-r.out; len(b.Rows) != 1 || b.End != end {
					t.Errorf("batch of %d rows to %v, want what came before the end to be passed on", len(b.Rows), b.End)
				}
			})
		})
	}
}

func TestGiantClaimAllocatesNothing(t *testing.T) {
	bubble(t, 1, func(t *testing.T, _ context.Context, r *reading) {
		r.server.Raw([]byte{'d', 0x3F, 0xFF, 0xFF, 0xFF, 'w'})
		err := <-r.done
		if !errors.Is(err, wal.ErrFrameTooLarge) || fault.Classify(err) != fault.Data {
			t.Errorf("error %v, want a data error that says the row is too large", err)
		}
	})
}

// A logical message outside of a transaction is no row of the one that was read before:
// whoever passes that one by its name would pass what was sent, and meet the message again.
func TestAGiantMessageBlamesNoTransactionBeforeIt(t *testing.T) {
	bubble(t, 1, func(t *testing.T, _ context.Context, r *reading) {
		_, end := r.server.Transaction(7, outboxRelation, insert("a"))
		if b := <-r.out; b.End != end {
			t.Errorf("a batch ends at %v, want %v", b.End, end)
		}
		r.server.Raw([]byte{'d', 0x3F, 0xFF, 0xFF, 0xFF, 'w'})
		err := <-r.done
		if blamed, ok := errors.AsType[*wal.TransactionError](err); ok || fault.Classify(err) != fault.Data || !strings.Contains(err.Error(), end.String()) {
			t.Errorf("error %v, want a data error that says where the message is and blames no transaction (%+v)", err, blamed)
		}
	})
}

func TestCutConnectionIsTransient(t *testing.T) {
	bubble(t, 1, func(t *testing.T, _ context.Context, r *reading) {
		synctest.Wait()
		r.server.Cut()
		if err := <-r.done; err == nil || fault.Classify(err) != fault.Transient {
			t.Errorf("error %v, want a transient one", err)
		}
	})
}

// torn is a connection that takes half of a status and then nothing more, as one does
// whose buffers are full until the deadline.
type torn struct {
	net.Conn

	armed   atomic.Bool
	written atomic.Int64 // bytes that were taken after it tore
	tore    atomic.Bool
}

func (c *torn) Write(p []byte) (int, error) {
	switch {
	case !c.armed.Load():
		return c.Conn.Write(p)
	case c.tore.Swap(true):
		c.written.Add(int64(len(p)))
		return c.Conn.Write(p)
	default:
		n, _ := c.Conn.Write(p[:len(p)/2])
		return n, os.ErrDeadlineExceeded
	}
}

// After half a status the server would read the next message as its other half.
func TestAStatusThatIsWrittenInPartIsTheLastWordOfItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), bubbleTime)
		defer cancel()
		server := waltest.NewServer(testStart)
		defer server.Cut()
		config := testConfig(server)
		var link torn
		config.Dial = func(ctx context.Context, network, address string) (c net.Conn, err error) {
			link.Conn, err = server.Dial(ctx, network, address)
			return &link, err
		}
		conn, err := wal.Connect(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := conn.Start(ctx, testStart)
		if err != nil {
			t.Fatal(err)
		}
		out, done := make(chan wal.Batch, 1), make(chan error, 1)
		go func() { done <- stream.Run(ctx, nil, out) }()
		_, end := server.Transaction(7, outboxRelation, insert("a"))
		<-out
		link.armed.Store(true)
		stream.Confirm(end)
		err = <-done
		if class := fault.Classify(err); err == nil || class != fault.Transient {
			t.Errorf("the stream ended with %v of class %v, want a transient error", err, class)
		}
		if n := link.written.Load(); n > 0 {
			t.Errorf("%d bytes were written behind half a status", n)
		}
		for _, s := range server.Statuses() {
			if s.Flush > testStart {
				t.Errorf("the server took half a status for one that confirms %v", s.Flush)
			}
		}
	})
}

func TestConfirmBeyondWhatWasReadPanics(t *testing.T) {
	bubble(t, 1, func(t *testing.T, _ context.Context, r *reading) {
		defer func() {
			if recover() == nil {
				t.Error("Confirm beyond the end of the stream passed, want a panic")
			}
		}()
		r.stream.Confirm(testStart + 1)
	})
}

func notice(code, routine, text string) []byte {
	frame, err := (&pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: code, Routine: routine, Message: text}).Encode(nil)
	if err != nil {
		panic(err)
	}
	return frame
}

func serverError(code string) []byte {
	frame, err := (&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: "as injected"}).Encode(nil)
	if err != nil {
		panic(err)
	}
	return frame
}

// sleep lets the bubble's clock run.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
