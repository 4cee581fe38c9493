package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

const (
	startTimeout   = 30 * time.Second // for the server to accept START_REPLICATION
	goodbyeTimeout = 5 * time.Second  // for the server to read our last status
	batchBytes     = arenaBytes
	batchRows      = arenaRows
)

// Stream is a slot being read. One goroutine, the one in Run, owns the socket in
// both directions: a status frame is written between two reads, never beside one.
// That is what makes deadlines simple. They belong to the socket and not to a
// context: one is set for each tick of the status clock, and to wake the reader is
// to move it into the past.
//
// A batch cuts itself: it ends when it is full, or when every message that the
// kernel held has been taken. So a busy log comes in large batches, and a single
// row on an idle one is passed on at once.
//
// Backpressure is the channel. While nobody takes the batch the reader reads
// nothing, so Postgres holds the log and our memory stays flat, but it goes on
// telling the server that it is alive.
type Stream struct {
	conn   net.Conn
	frames *frameReader
	ahead  *readAhead // under TLS; nil without
	rows   assembler
	pace   pace
	window windowed // nil where it is not small
	full   bool     // the latest pull ended for want of room
	rest   rest
	config Config
	logger *slog.Logger

	interval time.Duration // status at least this often
	tick     time.Duration // at most this long from Confirm to status
	silence  time.Duration // of the server, after which the link is dead

	confirmed atomic.Uint64 // by Confirm; monotone
	given     atomic.Uint64 // the latest End of a batch that was taken

	// Owned by Run.
	status struct {
		at          time.Time // of the last one
		confirmed   LSN       // in the last one
		replyWanted bool      // by the server, and not yet answered
		frame       []byte
	}
	heard time.Time // when the server last said something, or could not
}

// ErrLinkDead means that the server answered nothing for Config.Silence.
var ErrLinkDead = errors.New("the server does not answer")

const (
	askAfter      = 5 * time.Second  // of silence, for a sign of life with each status
	writePatience = 10 * time.Second // for a status, where the link is full
)

// errEnded means that the server ended the stream in order.
var errEnded = errors.New("the server ended the stream")

// Start begins streaming the slot. The server starts at from or at what the slot
// has confirmed, whichever is later, and does not say which: compare before.
// from 0 leaves the choice to the slot. Everything up to from must be with the
// broker, since the first status already says so.
//
// Rows of a table that had another name when they were inserted are read when
// Preflight was called on the connection before, which learns who the tables are.
//
// The connection belongs to the Stream afterwards. A slot in use gives
// ErrSlotBusy.
func (c *Conn) Start(ctx context.Context, from LSN) (*Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// pglogrepl puts the name into the command as it is.
	options := pglogrepl.StartReplicationOptions{PluginArgs: c.startOptions()}
	err := pglogrepl.StartReplication(ctx, c.pg, quoteName(c.config.Slot), pglogrepl.LSN(from), options)
	if err != nil {
		return nil, Fault(fmt.Errorf("start slot %s at %v: %w", c.config.Slot, from, err))
	}
	hijacked, err := c.pg.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	s := newStream(hijacked.Conn, c.frames, c.config, from)
	s.rows.oids = c.oids
	return s, nil
}

func newStream(conn net.Conn, frames *frameReader, config Config, from LSN) *Stream {
	logger := config.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	interval := config.StatusInterval
	if interval == 0 {
		interval = DefaultStatusInterval
	}
	under := aheadOf(conn)
	s := &Stream{
		conn: conn, frames: frames, ahead: under, pace: newPace(conn, under), window: windowOf(conn, under), rest: rest{time: restTime}, config: config, logger: logger,
		interval: interval, tick: min(interval/2, time.Second/2),
		silence: config.Silence,
	}
	if s.silence == 0 {
		s.silence = DefaultSilence
	}
	s.rows = assembler{
		tables: config.Tables, prefix: config.MessagePrefix, relations: map[uint32]relation{}, last: from,
		batchRows: orDefault(config.BatchRows, batchRows), batchBytes: orDefault(config.BatchBytes, batchBytes),
		warn: func(schema, name string) {
			logger.Warn("rows of a table that was not asked for are dropped",
				slog.String("table", schema+"."+name), slog.String("publication", config.Publication))
		},
	}
	s.confirmed.Store(uint64(from))
	s.given.Store(uint64(from))
	return s
}

func orDefault(n, fallback int) int {
	if n == 0 {
		return fallback
	}
	return n
}

// Confirm tells the slot that it may forget what ends at or before lsn. Any
// goroutine may call it; it is one atomic store, and the position goes out with
// the next status. lsn is the End of a batch, everything up to it is saved, and
// it never goes backwards.
func (s *Stream) Confirm(lsn LSN) {
	given, confirmed := LSN(s.given.Load()), LSN(s.confirmed.Load())
	if lsn > given || lsn < confirmed {
		panic(fmt.Sprintf("bug: confirm %v, but confirmed is %v and read is %v", lsn, confirmed, given))
	}
	s.confirmed.Store(uint64(lsn))
}

// Read is the latest end position that was passed on. Any goroutine may ask.
func (s *Stream) Read() LSN { return LSN(s.given.Load()) }

// Confirmed is what Confirm was last told. Any goroutine may ask.
func (s *Stream) Confirmed() LSN { return LSN(s.confirmed.Load()) }

// Run reads until stop is closed or the stream breaks, and closes out then. After
// a stop it keeps the connection alive, reading nothing, until ctx ends; it says
// goodbye with what is confirmed by then and returns nil. When ctx ends before
// stop, it does the same without waiting. A broken stream returns its error at
// once. Run is called once and closes the connection.
//
// Every batch is passed on whole or not at all.
func (s *Stream) Run(ctx context.Context, stop <-chan struct{}, out chan<- Batch) error {
	defer s.conn.Close()
	s.heard = time.Now()

	woken := s.wakeOn(ctx, stop)
	err := fault.Guard(func() error { return s.read(ctx, stop, out) }) // whoever takes batches sees the end of them
	woken()
	close(out)
	if err != nil {
		return err
	}
	if err := s.idle(ctx); err != nil {
		return err
	}
	s.goodbye()
	return nil
}

// Close gives up a stream whose Run is never called.
func (s *Stream) Close() { s.conn.Close() }

// wakeOn starts the goroutine that ends a read when ctx or stop ends; the function
// it gives ends that goroutine.
func (s *Stream) wakeOn(ctx context.Context, stop <-chan struct{}) (end func()) {
	done := make(chan struct{})
	var waker sync.WaitGroup
	waker.Go(func() {
		select {
		case <-ctx.Done():
		case <-stop:
		case <-done:
			return
		}
		// The reader checks both after it set its own deadline, so whichever of
		// the two deadlines is set last, the reader does not sleep on.
		s.conn.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed connection wakes by itself
	})
	return func() {
		close(done)
		waker.Wait()
	}
}

func ended(ctx context.Context, stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// read passes batches on until it is told to end.
func (s *Stream) read(ctx context.Context, stop <-chan struct{}, out chan<- Batch) error {
	for {
		if err := s.take(ctx, stop, out); err != nil {
			return err
		}
		if err := s.report(time.Now()); err != nil {
			return err
		}
		some, err := s.gather(time.Now())
		if err != nil {
			return err
		}
		// The last of the deadlines: see wakeOn.
		if err := s.setDeadline(time.Now().Add(s.tick)); err != nil {
			return err
		}
		if ended(ctx, stop) {
			return nil
		}
		if some {
			continue
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

func (s *Stream) setDeadline(at time.Time) error {
	if err := s.conn.SetReadDeadline(at); err != nil {
		return fmt.Errorf("set read deadline: %w", err)
	}
	return nil
}

// fill reads once, under TLS all records that came with the first. No bytes before the
// deadline are no error: it is the tick.
func (s *Stream) fill() error {
	err := s.frames.fill()
	switch {
	case err == nil:
		s.heard = time.Now()
		s.drain()
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	default:
		return s.explainRead(err)
	}
}

// drain takes the records that are here already. What is wrong with one of them the
// next fill finds as well: an error of TLS stays.
func (s *Stream) drain() {
	if s.ahead == nil {
		return
	}
	s.ahead.dry = true
	for s.frames.room() && s.frames.fill() == nil {
	}
	s.ahead.dry = false
}

// take passes on everything that is in the read buffer.
func (s *Stream) take(ctx context.Context, stop <-chan struct{}, out chan<- Batch) error {
	for {
		kind, body, ok := s.frames.next()
		if !ok {
			return s.give(ctx, stop, out)
		}
		s.pace.got(1)
		if err := s.message(kind, body); err != nil {
			// What came before is good, and the cure may take long.
			return errors.Join(err, s.give(ctx, stop, out))
		}
		if s.rows.full() {
			if err := s.give(ctx, stop, out); err != nil {
				return err
			}
			if ended(ctx, stop) {
				return nil
			}
		}
	}
}

// give passes the batch on. While nobody takes it the server still gets its
// status. When the end is asked for meanwhile, the batch is dropped: nobody has
// sent it, so nothing of it is confirmed and the next session reads it again.
func (s *Stream) give(ctx context.Context, stop <-chan struct{}, out chan<- Batch) error {
	batch, ok := s.rows.cut()
	if !ok {
		return nil
	}
	// Published before it is taken, so that no confirmation can precede it.
	if batch.End != 0 {
		s.given.Store(uint64(batch.End))
	}
	select {
	case out <- batch:
		return nil
	default:
	}
	clock := time.NewTicker(s.tick)
	defer clock.Stop()
	for {
		select {
		case out <- batch:
			return nil
		case now := <-clock.C:
			s.heard = now // we do not listen, so silence says nothing
			if err := s.report(now); err != nil {
				return err
			}
		case <-stop:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// message takes one message of the server.
func (s *Stream) message(kind byte, body []byte) error {
	switch kind {
	case 'd':
		return s.copyData(body)
	case 'E':
		return s.serverError(body)
	case 'N':
		return s.notice(body)
	case 'S': // a changed server parameter; ours were fixed at start-up
		return nil
	case 'c', 'C', 'Z': // CopyDone, CommandComplete, ReadyForQuery: the server goes
		return errEnded
	default:
		return s.rows.explain(kind, errors.New("unexpected inside the stream"))
	}
}

func (s *Stream) copyData(body []byte) error {
	if len(body) == 0 {
		return s.rows.explain('d', errTruncated)
	}
	switch body[0] {
	case kindXLogData:
		message, clock, err := parseXLogData(body[1:])
		if err != nil {
			return s.rows.explain(kindXLogData, err)
		}
		s.rows.clock = clock
		if err := s.rows.message(message); err != nil {
			return err
		}
		if s.rows.tx.open {
			s.pace.sent(pgTime(clock).Sub(s.rows.tx.time))
		}
		return nil
	case kindKeepalive:
		k, err := parseKeepalive(body[1:])
		if err != nil {
			return s.rows.explain(kindKeepalive, err)
		}
		s.rows.keepalive(k.end)
		s.status.replyWanted = s.status.replyWanted || k.replyWanted
		return nil
	default:
		return s.rows.explain(body[0], errors.New("unknown inside copy data"))
	}
}

// report writes a status when one is due: the interval is over, there is news to
// confirm, or the server asked. The last two wait for the tick. A server that
// shuts down asks again after each answer that brings no news, tens of thousands
// of times a second if we let it.
func (s *Stream) report(now time.Time) error {
	since := now.Sub(s.status.at)
	news := s.Confirmed() > s.status.confirmed || s.status.replyWanted
	if since < s.interval && (since < s.tick || !news) {
		return nil
	}
	silence := now.Sub(s.heard)
	if silence >= s.silence {
		return fmt.Errorf("%w for %v", ErrLinkDead, silence.Round(time.Second))
	}
	return s.writeStatus(now, silence >= askAfter)
}

// writeStatus tells the server where we are; with ask it must answer, which is how
// a silent link is told from a dead one where the server sends no keepalives.
func (s *Stream) writeStatus(now time.Time, ask bool) error {
	confirmed := s.Confirmed()
	s.status.frame = appendStatus(s.status.frame[:0], confirmed, now, ask)
	if err := s.conn.SetWriteDeadline(now.Add(writePatience)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	if _, err := s.conn.Write(s.status.frame); err != nil {
		return fmt.Errorf("write status %v: %w", confirmed, err)
	}
	s.status.at, s.status.confirmed, s.status.replyWanted = now, confirmed, false
	return nil
}

// idle keeps the connection alive while what was sent is flushed and saved.
func (s *Stream) idle(ctx context.Context) error {
	clock := time.NewTicker(s.tick)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-clock.C:
			s.heard = now
			if err := s.report(now); err != nil {
				return err
			}
		}
	}
}

// goodbye tells the server the last position and ends the copy. It reads until the
// server has ended it too: closing a socket with unread input resets the
// connection, and the status might never be read. All of this is courtesy, since
// what is saved is where the next session starts; errors end it silently.
func (s *Stream) goodbye() {
	now := time.Now()
	if s.writeStatus(now, false) != nil || s.conn.SetDeadline(now.Add(goodbyeTimeout)) != nil {
		return
	}
	copyDone := []byte{'c', 0, 0, 0, 4}
	if _, err := s.conn.Write(copyDone); err != nil {
		return
	}
	for {
		kind, _, ok := s.frames.next()
		switch {
		case ok && (kind == 'Z' || kind == 'E'):
			s.conn.Write([]byte{'X', 0, 0, 0, 4}) //nolint:errcheck // Terminate; the server sees the close as well
			return
		case !ok:
			if err := s.frames.fill(); err != nil {
				return
			}
		}
	}
}
