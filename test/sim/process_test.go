package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/pipeline"
	"github.com/outboxcdc/outboxcdc/pipeline/fault"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// process is one run of outboxcdc: everything that dies with it.
type process struct {
	w    *world
	name string

	mu    sync.Mutex
	dead  bool
	conns []net.Conn
}

// processes starts one process, or two that stand by for each other, each of which is
// started again whenever it ends.
func (w *world) processes(group *sync.WaitGroup) {
	r := w.random("processes")
	for i := range 1 + r.IntN(4)/3 {
		group.Go(func() { w.supervise(fmt.Sprintf("process %d", i+1)) })
	}
}

// supervise starts a process again and again, as a service manager does.
func (w *world) supervise(name string) {
	r := w.random(name)
	sleep(r, time.Second)
	for life := 1; !over(w.end); life++ {
		p := &process{w: w, name: fmt.Sprintf("%s.%d", name, life)}
		w.count(func(t *tally) { t.Processes++ })
		p.live(r)
		sleep(r, 3*time.Second)
	}
}

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// live runs until the process is killed, is told to stop, or gives up.
func (p *process) live(r *rand.Rand) {
	runner, err := pipeline.New(p.config(r))
	if err != nil {
		p.w.t.Errorf("the configuration is refused: %v", err)
		return
	}
	ctx, kill := context.WithCancel(context.Background())
	defer kill()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- runner.Run(ctx, stop) }()
	lifetime := time.NewTimer(time.Duration(1 + r.Int64N(int64(2*time.Minute))))
	defer lifetime.Stop()
	killed := r.IntN(2) == 0
	calm := p.w.calm
	for {
		select {
		case <-calm:
			lifetime.Stop()
			calm = nil
		case <-p.w.end:
			p.stop(runner, stop, done)
			return
		case err := <-done:
			p.ended(err)
			return
		case <-lifetime.C:
			if killed {
				p.kill(kill)
				if err := <-done; fault.Classify(err) == fault.Bug { // nobody else is there to hear it
					p.w.t.Errorf("%s died with: %v", p.name, err)
				}
				return
			}
			p.w.fault(p.name+" is told to stop", func(t *tally) { t.Terms++ })
			p.stop(runner, stop, done)
			return
		}
	}
}

// stop tells the runner to stop. One that streamed and says that all went well has
// saved everything that was acked: the next start repeats none of it.
func (p *process) stop(runner *pipeline.Runner, stop chan struct{}, done chan error) {
	streaming := runner.Stats().State == pipeline.Streaming
	p.w.draining.Add(1)
	close(stop)
	err := <-done
	p.w.draining.Add(-1)
	p.stopped(err)
	after := runner.Stats()
	if !streaming || err != nil || after.Reason != "" { // the session broke before it heard of the stop
		return
	}
	if saved := p.w.ledger.savedPosition(); p.w.ledger.between(saved, after.Acked) {
		p.w.t.Errorf("%s stopped in order with %v acked, but only %v is saved", p.name, after.Acked, saved)
	}
}

// stopped judges what a stop ended with.
func (p *process) stopped(err error) {
	p.w.transcript.add("%s stopped: %v", p.name, err)
	switch {
	case err == nil, errors.Is(err, fault.ErrDrainTimeout) && !over(p.w.end), errors.Is(err, refusing):
	default:
		p.w.t.Errorf("%s stopped with: %v", p.name, err)
	}
}

// ended judges an end that nobody asked for: the operator mends what the broker
// refused, and nothing else may need one.
func (p *process) ended(err error) {
	p.w.transcript.add("%s ended: %v", p.name, err)
	if !errors.Is(err, refusing) {
		p.w.t.Errorf("%s gave up: %v", p.name, err)
	}
}

// kill takes the process away: its sockets are closed by the system, and nothing that
// it does afterwards reaches anybody.
func (p *process) kill(cancel context.CancelFunc) {
	p.w.fault(p.name+" is killed", func(t *tally) { t.Kills++ })
	p.mu.Lock()
	p.dead = true
	for _, c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	cancel()
}

func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dead
}

// own remembers a connection of the process.
func (p *process) own(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		c.Close()
		return nil, syscall.ECONNREFUSED
	}
	p.conns = append(p.conns, c)
	return c, nil
}

func (p *process) dialPostgres(ctx context.Context, network, address string) (net.Conn, error) {
	return p.own(p.w.server.Dial(ctx, network, address))
}

func (p *process) dialKafka(ctx context.Context, network, address string) (net.Conn, error) {
	l, err := p.w.kafka.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return p.own(l.client, nil)
}

// config is as real ones are, or as none should be.
func (p *process) config(r *rand.Rand) pipeline.Config {
	jitter := p.w.random(p.name + " jitter")
	logger := p.w.transcript.logger(p.name, p.alive)
	odd := func(most time.Duration) time.Duration { return time.Duration(1 + r.Int64N(int64(most))) }
	c := pipeline.Config{
		Wal: wal.Config{
			Database: "host=db user=u dbname=d sslmode=disable", Slot: slotName, Publication: "outboxcdc",
			Tables: []wal.Table{{Schema: "public", Name: "outbox"}}, Dial: p.dialPostgres,
			StatusInterval: time.Second + odd(12*time.Second),
		},
		Sink: kafkaURL("compression.type=none", fmt.Sprintf("linger.ms=%d", 1+r.IntN(20)),
			fmt.Sprintf("request.timeout.ms=%d", 1000+r.IntN(15_000))),
		SinkOptions:  sink.Options{Dial: p.dialKafka, BufferBytes: 1 + r.IntN(1<<(1+r.IntN(22)))},
		Outbox:       outbox.Config{Default: outbox.Mapping{Topic: topic}},
		SaveInterval: time.Millisecond + odd(time.Second), WatchInterval: time.Second + odd(15*time.Second),
		DrainTimeout: time.Second + odd(40*time.Second), BufferBytes: 1 + r.IntN(1<<(1+r.IntN(24))),
		QueueBatches: 1 + r.IntN(8), Jitter: func(most time.Duration) time.Duration { return time.Duration(jitter.Int64N(int64(most) + 1)) },
		Logger: logger,
	}
	if r.IntN(2) == 0 {
		c.Wal.BatchRows, c.Wal.BatchBytes = 1+r.IntN(20), 1+r.IntN(20_000)
	}
	if p.w.file != "" {
		c.Checkpoint = "file://" + p.w.file
	}
	return c
}

// checkpointFile names a file where to sync costs nothing, if there is such a place.
func checkpointFile(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		return t.TempDir() + "/checkpoint.json"
	}
	dir, err := os.MkdirTemp(memory, "outboxcdc-sim") //nolint:usetesting // that one is on a disk
	if err != nil {
		return t.TempDir() + "/checkpoint.json"
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // in memory
	return dir + "/checkpoint.json"
}
