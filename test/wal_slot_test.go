package test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/test/servers"
	"github.com/outboxcdc/outboxcdc/wal"
)

// walLog is a log that a test reads while it is written.
type walLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *walLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *walLog) contains(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func TestSlotAndPublicationOfEveryNameAreMadeOnceAndStreamedFrom(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	odd := `o"dd 'table\`
	f.run(t, `create table "o""dd 'table\" (aggregate_type text, aggregate_id text, event_type text, payload text)`)
	f.config.Tables = append(f.config.Tables, wal.Table{Schema: "public", Name: odd, Columns: []wal.Column{{Name: "aggregate_id"}}})
	f.config.Publication = `p"ub '\, "x"`
	conn := f.connect(t, f.config)
	if _, exists, err := conn.Slot(walContext(t)); exists || err != nil {
		t.Fatalf("before it is made the slot exists: %v, %v", exists, err)
	}
	for i, want := range []bool{true, false} {
		if created, err := conn.CreatePublication(walContext(t)); err != nil || created != want {
			t.Fatalf("creation %d of the publication: %v, %v, want %v", i+1, created, err, want)
		}
	}
	at, err := conn.CreateSlot(walContext(t))
	if err != nil {
		t.Fatal(err)
	}
	slot, exists, err := conn.Slot(walContext(t))
	if err != nil || !exists {
		t.Fatalf("the slot exists: %v, %v", exists, err)
	}
	if slot.Confirmed != at || slot.Plugin != "pgoutput" || slot.Type != "logical" || slot.Database != f.db.Name ||
		slot.Restart == 0 || slot.Restart > at || slot.Active || slot.Temporary || slot.WALStatus != "reserved" || slot.SafeBytes != -1 {
		t.Errorf("slot %+v, want a free pgoutput slot of %s at %v", slot, f.db.Name, at)
	}
	_, err = conn.CreateSlot(walContext(t))
	wantClass(t, err, fault.Transient, f.config.Slot, "42710")

	f.run(t, `insert into "o""dd 'table\" values ('a', 'here', 'c', 'd')`)
	if got := f.rows(t, f.config, 1)[0][0]; got != "here" {
		t.Errorf("the row arrives as %q, want here", got)
	}
}

// Replication commands have words of their own, which a slot may be named after.
func TestSlotNameMayBeAKeyword(t *testing.T) {
	for _, name := range []string{"slot", "logical", "1st"} {
		t.Run(name, func(t *testing.T) {
			f := newWalFixture(t, servers.SharedPostgres(t))
			f.config.Slot = name
			f.ready(t)
			f.run(t, `insert into outbox (aggregate_type, aggregate_id, event_type) values ('a', 'b', 'c')`)
			f.rows(t, f.config, 1)
		})
	}
}

func TestPrintedStatementsDoWhatTheMethodsDo(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.run(t, wal.PublicationSQL(f.config), wal.SlotSQL(f.config))
	found, err := wal.Preflight(walContext(t), f.connect(t, f.config))
	if err != nil {
		t.Fatal(err)
	}
	if err := fault.Failures(found); err != nil {
		t.Error(err)
	}
}

func TestBusySlotNamesItsHolder(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	f.ready(t)
	ctx, cancel := context.WithCancel(walContext(t))
	defer cancel()
	first, err := f.connect(t, f.config).Start(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, ended := make(chan wal.Batch, 100), make(chan error, 1)
	go func() { ended <- first.Run(ctx, nil, out) }()

	_, err = f.connect(t, f.config).Start(walContext(t), 0)
	wantClass(t, err, fault.Transient, f.config.Slot)
	if !errors.Is(err, wal.ErrSlotBusy) {
		t.Errorf("%v is not ErrSlotBusy", err)
	}
	conn := f.connect(t, f.config)
	slot, _, err := conn.Slot(walContext(t))
	if err != nil || !slot.Active {
		t.Fatalf("slot %+v, %v, want an active one", slot, err)
	}
	err = conn.Busy(walContext(t), slot)
	wantClass(t, err, fault.Transient, "outboxcdc "+f.config.Slot, "pid ", "from ")
	if !errors.Is(err, wal.ErrSlotBusy) {
		t.Errorf("%v is not ErrSlotBusy", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	f.eventually(t, "the slot is free", func() bool {
		_, held, err := conn.Holder(walContext(t))
		return err == nil && !held
	})
}

func TestSlotCreationNamesWhomItWaitsForAndComesToItsEnd(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	log := &walLog{}
	f.config.Logger = slog.New(slog.NewTextHandler(log, nil))
	writer := f.db.Server.Conn(t, "postgres") // in another database of the cluster
	if _, err := writer.Exec(walContext(t), "set application_name = 'nightly report'; begin; select pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	conn := f.connect(t, f.config)
	go func() {
		_, err := conn.CreateSlot(walContext(t))
		made <- err
	}()
	f.eventually(t, "the log names the transaction that is waited for", func() bool { return log.contains("nightly report") })
	select {
	case err := <-made:
		t.Fatalf("the slot was made beside a running transaction: %v", err)
	default:
	}
	if _, err := writer.Exec(walContext(t), "commit"); err != nil {
		t.Fatal(err)
	}
	if err := <-made; err != nil || f.slots(t) != 1 {
		t.Errorf("%d slots and %v, want one", f.slots(t), err)
	}
}

// walLinks are the connections of a client that a test holds up and cuts. The first
// is the replication connection.
type walLinks struct {
	mu        sync.Mutex
	all       []net.Conn
	dead      bool          // no connection is made any more, as after kill -9
	gate      chan struct{} // answers on the first wait for it when it is not nil
	cancelled chan struct{} // gets a token with each request to cancel
}

func newWALLinks() *walLinks { return &walLinks{cancelled: make(chan struct{}, 10)} }

func (l *walLinks) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return nil, errors.New("the process is dead")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	l.all = append(l.all, conn)
	return &walLink{Conn: conn, links: l, first: len(l.all) == 1}, err
}

// kill does what the end of the process does: it says no word to the server.
func (l *walLinks) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for _, conn := range l.all {
		_ = conn.Close()
	}
}

// hold keeps the server's answers back until the function it gives is called.
func (l *walLinks) hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = make(chan struct{})
	return sync.OnceFunc(func() { close(l.gate) })
}

type walLink struct {
	net.Conn
	links *walLinks
	first bool
}

func (l *walLink) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.links.mu.Lock()
	gate := l.links.gate
	l.links.mu.Unlock()
	if l.first && gate != nil {
		<-gate
	}
	return n, err
}

func (l *walLink) Write(p []byte) (int, error) {
	const cancelRequestBytes = 16
	if len(p) == cancelRequestBytes {
		l.links.cancelled <- struct{}{}
	}
	return l.Conn.Write(p)
}

func TestSlotCreationThatIsGivenUpLeavesNoSlot(t *testing.T) {
	for name, giveUp := range map[string]func(cancel func(), links *walLinks){
		"cancelled": func(cancel func(), _ *walLinks) { cancel() },
		"killed":    func(_ func(), links *walLinks) { links.kill() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newWalFixture(t, servers.SharedPostgres(t))
			links := newWALLinks()
			f.config.Dial = links.dial
			f.run(t, "begin", "select pg_current_xact_id()")
			ctx, cancel := context.WithCancel(walContext(t))
			defer cancel()
			conn, failed := f.connect(t, f.config), make(chan error, 1)
			go func() {
				_, err := conn.CreateSlot(ctx)
				failed <- err
			}()
			f.eventually(t, "the creation waits", func() bool { return f.slots(t) == 1 })
			giveUp(cancel, links)
			select {
			case err := <-failed:
				if err == nil {
					t.Error("a creation that was given up succeeded")
				}
				if name == "cancelled" && fault.Classify(err) != fault.Stopped {
					t.Errorf("class %v, want stopped: %v", fault.Classify(err), err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the creation still waits")
			}
			// The transaction that it waited for still runs.
			f.eventually(t, "the slot is gone", func() bool { return f.slots(t) == 0 })
			f.run(t, "rollback")
		})
	}
}

func TestSlotMadeInTheMomentItIsGivenUpIsDropped(t *testing.T) {
	f := newWalFixture(t, servers.SharedPostgres(t))
	links := newWALLinks()
	f.config.Dial = links.dial
	ctx, cancel := context.WithCancel(walContext(t))
	defer cancel()
	f.run(t, "begin", "select pg_current_xact_id()")
	conn, failed := f.connect(t, f.config), make(chan error, 1)
	go func() {
		_, err := conn.CreateSlot(ctx)
		failed <- err
	}()
	f.eventually(t, "the creation waits", func() bool { return f.slots(t) == 1 })
	release := links.hold()
	defer release()
	f.run(t, "rollback")
	f.eventually(t, "the slot is made", func() bool {
		var made bool
		f.ask(t, "select exists (select from pg_replication_slots where slot_name = $1 and confirmed_flush_lsn is not null and not active)",
			&made, f.config.Slot)
		return made
	})
	cancel()
	<-links.cancelled // too late
	release()
	wantClass(t, <-failed, fault.Stopped)
	if n := f.slots(t); n != 0 {
		t.Errorf("%d slots are left, want none", n)
	}
}
