package test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/test/servers"
)

// The rows of the fault matrix in which a server is not found, or does not let us in,
// where it did before.

func TestAPasswordThatIsChangedEndsTheStreamOnceItIsAskedFor(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	f := &walFixture{db: l.db, sql: l.sql}
	role, password := f.role(t, "replication superuser")
	as := func(password string) []string {
		return []string{"--database-url", f.at(t, func(at *url.URL) { at.User = url.UserPassword(role, password) })}
	}
	s := l.stream(t, append(as(password), "--http", "127.0.0.1:0")...)
	address := s.address(t)
	l.event(t, "before")
	eventually(t, time.Minute, "the first event arrives", func() bool { return l.arrived(t, "before") == 1 })

	l.exec(t, "alter role "+role+" password 'another'")
	l.event(t, "after")
	eventually(t, time.Minute, "the stream that is open goes on", func() bool { return l.arrived(t, "after") == 1 })
	if status := ready(t, address); status != http.StatusOK {
		t.Errorf("/readyz answers %d while events flow, want 200", status)
	}

	began := time.Now()
	l.exec(t, "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", l.slot)
	eventually(t, time.Minute, "it is not ready while it is not let in", func() bool { return ready(t, address) == http.StatusServiceUnavailable })
	s.wantEnd(t, "28P01", "check the user and the password", role)
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("it gave up after %v, want some tries first", took)
	}
	if tries := strings.Count(s.log.String(), "another follows"); tries < 2 || tries > 10 {
		t.Errorf("it tried %d times, want some and not many:\n%s", tries, s.log)
	}
	if strings.Contains(s.log.String(), password) {
		t.Error("the log holds the password")
	}

	l.event(t, "meanwhile")
	s = l.stream(t, as("another")...)
	eventually(t, time.Minute, "what came meanwhile arrives", func() bool { return l.arrived(t, "meanwhile") == 1 })
	if before, after := l.arrived(t, "before"), l.arrived(t, "after"); before != 1 || after != 1 {
		t.Errorf("the events before are there %d and %d times, want once", before, after)
	}
	s.wantStop(t)
}

// ready gives what /readyz answers, or 503 where nobody does, as an orchestrator has it.
func ready(tb testing.TB, address string) int {
	tb.Helper()
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "http://"+address+"/readyz", http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return http.StatusServiceUnavailable
	}
	defer answer.Body.Close()        //nolint:errcheck // read to its end
	io.Copy(io.Discard, answer.Body) //nolint:errcheck // nothing in it is asked for
	return answer.StatusCode
}

// names is a name server that knows one host, and moves it.
type names struct {
	conn  net.PacketConn
	at    atomic.Pointer[net.IP]
	asked atomic.Int64
}

const movingHost = "primary.outboxcdc.test"

// newNames answers the process' questions for names until the test ends. Kafka and the
// test's own connections are addressed by number and ask for none.
func newNames(tb testing.TB) *names {
	tb.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	n := &names{conn: conn}
	var serving sync.WaitGroup
	serving.Go(n.serve)
	usual := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	tb.Cleanup(func() {
		net.DefaultResolver = usual
		conn.Close() //nolint:errcheck // it ends serve
		serving.Wait()
	})
	return n
}

func (n *names) moveTo(ip string) {
	at := net.ParseIP(ip).To4()
	n.at.Store(&at)
}

func (n *names) serve() {
	question := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(question)
		if err != nil {
			return
		}
		if answer := n.answer(question[:size]); answer != nil {
			n.conn.WriteTo(answer, from) //nolint:errcheck // a lost answer is asked for again
		}
	}
}

// answer is a DNS response (RFC 1035, 4.1) to a question for the host, which has an
// address of the old kind and no other, or for any other name, which does not exist.
func (n *names) answer(question []byte) []byte {
	const header, responseAndRecursion, noSuchName, typeA = 12, 0x8180, 3, 1
	if len(question) < header {
		return nil
	}
	end := header
	var labels []string
	for end < len(question) && question[end] != 0 {
		length := int(question[end])
		labels = append(labels, string(question[end+1:end+1+length]))
		end += 1 + length
	}
	end += 5 // the root, and type and class of the question
	kind := binary.BigEndian.Uint16(question[end-4:])
	answer := append([]byte(nil), question[:end]...)
	binary.BigEndian.PutUint16(answer[2:], responseAndRecursion)
	binary.BigEndian.PutUint16(answer[6:], 0)
	binary.BigEndian.PutUint32(answer[8:], 0) // what the question added is not repeated
	if !strings.EqualFold(strings.Join(labels, "."), movingHost) {
		binary.BigEndian.PutUint16(answer[2:], responseAndRecursion|noSuchName)
		return answer
	}
	if kind != typeA {
		return answer
	}
	n.asked.Add(1)
	binary.BigEndian.PutUint16(answer[6:], 1)
	answer = append(answer, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0x0e, 0x10, 0, net.IPv4len) // for an hour, which nobody keeps
	return append(answer, *n.at.Load()...)
}

// forwarding gives the connections that come to an address on to another, until the
// function that it gives is called. It says at which port.
func forwarding(tb testing.TB, from, to string) (port string, end func()) {
	tb.Helper()
	listener, err := net.Listen("tcp", from)
	if err != nil {
		tb.Fatalf("listen where the new primary is to be: %v", err)
	}
	_, port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	var links sync.WaitGroup
	var mu sync.Mutex
	open := []io.Closer{listener}
	keep := func(c io.Closer) {
		mu.Lock()
		defer mu.Unlock()
		open = append(open, c)
	}
	links.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			keep(client)
			keep(server)
			for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
				links.Go(func() {
					io.Copy(pair[0], pair[1]) //nolint:errcheck // the end of either ends both
					pair[0].Close()
				})
			}
		}
	})
	return port, sync.OnceFunc(func() {
		mu.Lock()
		for _, c := range open {
			c.Close() //nolint:errcheck // it may be closed
		}
		mu.Unlock()
		links.Wait()
	})
}

// The name of the database's host comes to mean another address, as after a failover
// behind a name; the old address is gone. Stream, watch and checkpoint follow.
func TestANameThatComesToMeanAnotherServerIsFollowed(t *testing.T) {
	t.Parallel()
	l := newLine(t, servers.SharedPostgres(t), servers.SharedKafka(t))
	server := l.db.Server.Address()
	first, second := "127.0.0.41", "127.0.0.42"
	port, endFirst := forwarding(t, net.JoinHostPort(first, "0"), server)
	defer endFirst()
	_, endSecond := forwarding(t, net.JoinHostPort(second, port), server)
	defer endSecond()
	names := newNames(t)
	names.moveTo(first)

	r := l.run(t, func(c *pipeline.Config) {
		at, err := url.Parse(l.db.URL)
		if err != nil {
			t.Fatal("the test database has no URL that parses")
		}
		at.Host = net.JoinHostPort(movingHost, port)
		c.Wal.Database = at.String()
	})
	l.event(t, "first")
	eventually(t, time.Minute, "the event before arrives", func() bool { return l.arrived(t, "first") == 1 })
	endFirst()
	eventually(t, time.Minute, "the address is tried in vain", func() bool { return strings.Contains(r.log.String(), "refused") })
	asked := names.asked.Load()
	names.moveTo(second)
	l.event(t, "second")
	l.settle(t)
	if n := l.arrived(t, "second"); n != 1 {
		t.Errorf("the event after the move arrived %d times, want once", n)
	}
	if names.asked.Load() == asked {
		t.Error("the name was not asked for again, and this proves nothing")
	}
	r.drain(t)
}
