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
	for _, name := range []string{"slot", "logical"} {
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

func TestSlotCreationThatIsGivenUpLeavesNoSlot(t *testing.T) {
	for name, giveUp := range map[string]func(cancel func(), link net.Conn){
		"cancelled": func(cancel func(), _ net.Conn) { cancel() },
		"killed":    func(_ func(), link net.Conn) { link.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newWalFixture(t, servers.SharedPostgres(t))
			var link net.Conn
			f.config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
				if link == nil {
					link = conn
				}
				return conn, err
			}
			f.run(t, "begin", "select pg_current_xact_id()")
			ctx, cancel := context.WithCancel(walContext(t))
			defer cancel()
			conn, failed := f.connect(t, f.config), make(chan error, 1)
			go func() {
				_, err := conn.CreateSlot(ctx)
				failed <- err
			}()
			f.eventually(t, "the creation waits", func() bool { return f.slots(t) == 1 })
			giveUp(cancel, link)
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
	for range 20 {
		ctx, cancel := context.WithCancel(walContext(t))
		conn := f.connect(t, f.config)
		f.run(t, "begin", "select pg_current_xact_id()")
		failed := make(chan error, 1)
		go func() {
			_, err := conn.CreateSlot(ctx)
			failed <- err
		}()
		f.eventually(t, "the creation waits", func() bool { return f.slots(t) == 1 })
		go cancel()
		f.run(t, "rollback")
		err := <-failed
		if n := f.slots(t); err != nil && n != 0 || err == nil && n != 1 {
			t.Fatalf("%d slots after %v", n, err)
		}
		if err == nil {
			f.run(t, "select pg_drop_replication_slot('"+f.config.Slot+"')")
		}
		_ = conn.Close(context.Background())
	}
}
