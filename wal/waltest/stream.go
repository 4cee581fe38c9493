package waltest

import (
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/wal"
)

// stream sends the log from the later of from and the slot's position until the
// client leaves, is done, or is silent for too long.
func (c *conn) stream(from wal.LSN) {
	c.backend.Send(&pgproto3.CopyBothResponse{})
	if c.backend.Flush() != nil {
		return
	}
	c.s.mu.Lock()
	c.heard = time.Now()
	c.s.mu.Unlock()
	done := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { defer close(done); c.receive() })
	others.Go(func() { c.keepTime(done) })
	c.send(from, done)
	c.server.Close() //nolint:errcheck // memory; wakes receive
	others.Wait()
}

// send follows the log.
func (c *conn) send(from wal.LSN, done <-chan struct{}) {
	c.s.mu.Lock()
	from = max(from, c.s.slot.confirmed)
	first := AppendKeepalive(nil, c.s.slot.confirmed, false)
	c.sent, c.flushed = from, c.s.slot.confirmed
	c.s.mu.Unlock()
	if c.put(first) != nil {
		return
	}
	for next := 0; ; {
		c.s.mu.Lock()
		log, changed, stopping := c.s.log[next:], c.s.changed, c.s.stopping
		if c.s.asleep {
			log = nil
		}
		c.s.mu.Unlock()
		for _, u := range log {
			next++
			if u.commit < from {
				continue
			}
			if c.putUnit(u) != nil {
				return
			}
		}
		if len(log) > 0 {
			continue
		}
		if stopping && c.sayGoodbye() {
			return
		}
		select {
		case <-changed:
		case <-done:
			return
		}
	}
}

// sayGoodbye is what a server that shuts down does when all of its log is sent: it
// ends the copy once the client has confirmed everything, and else asks it to, again
// after each answer (walsender.c, WalSndDone).
func (c *conn) sayGoodbye() (gone bool) {
	c.write.take()
	sent := c.sent
	c.write.leave()
	c.s.mu.Lock()
	finished, ask := c.flushed >= sent, !c.pinged
	c.pinged = true
	if finished {
		c.release()
	}
	c.s.mu.Unlock()
	switch {
	case finished:
		c.put(AppendFrame(nil, 'C', []byte("COPY 0\x00"))) //nolint:errcheck // the client may be gone
		return true
	case ask:
		return c.put(AppendKeepalive(nil, sent, true)) != nil
	default:
		return false
	}
}

// keepTime asks a silent client for a status after half of the timeout and hangs up
// on it after the whole, without a word (walsender.c, WalSndCheckTimeOut).
func (c *conn) keepTime(done <-chan struct{}) {
	if c.timeout <= 0 {
		return
	}
	for {
		c.s.mu.Lock()
		heard, pinged, lost, muted := c.heard, c.pinged, c.lost, c.s.muted
		c.s.mu.Unlock()
		silence, next := time.Since(heard), heard.Add(c.timeout)
		switch {
		case silence >= c.timeout:
			c.server.Close() //nolint:errcheck // memory
			if !lost && !muted && c.s.OnTimeout != nil {
				c.s.OnTimeout(c.pid)
			}
			return
		case silence < c.timeout/2:
			next = heard.Add(c.timeout / 2)
		case !pinged && !muted:
			c.ping()
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-done:
			timer.Stop()
			return
		}
	}
}

// ping asks for a status, unless a message is being written: then the client is not
// reading, and the real walsender, which waits for it, asks no sooner either.
func (c *conn) ping() {
	if !c.write.try() {
		return
	}
	defer c.write.leave()
	c.s.mu.Lock()
	c.pinged = true
	c.s.mu.Unlock()
	c.server.Write(AppendKeepalive(nil, c.sent, true)) //nolint:errcheck // the client may be gone
}

// senderTimeout reads a wal_sender_timeout of the start-up packet; without one it is
// the server's default of a minute.
func senderTimeout(text string) time.Duration {
	if text == "0" {
		return 0
	}
	timeout, err := time.ParseDuration(text)
	if err != nil {
		return time.Minute
	}
	return timeout
}

// Shutdown begins a fast stop: ordinary sessions end at once, and each walsender when
// its client has confirmed everything or left. Stopped says when that is so.
func (s *Server) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for c := range s.conns {
		if s.slot.holder != c {
			c.client.in.finish()
		}
	}
	s.change()
}

// Stopped waits until a Shutdown has come to its end, and no longer than limit.
func (s *Server) Stopped(limit time.Duration) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		held, changed := s.slot.holder != nil, s.changed
		s.mu.Unlock()
		if !held {
			return true
		}
		select {
		case <-changed:
		case <-deadline.C:
			return false
		}
	}
}

// Started ends a stop that was begun by Shutdown.
func (s *Server) Started() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = false
	s.change()
}

// frames is what the unit looks like on the wire, with keepalives where chance
// wants them: the position that was sent is the end of what came before. The turn is
// had.
func (c *conn) frames(u unit) []byte {
	switch {
	case u.raw != nil:
		return u.raw
	case u.messages == nil:
		return AppendKeepalive(nil, u.end, c.chance())
	}
	var frames []byte
	if c.chance() {
		frames = AppendKeepalive(frames, c.sent/2, false)
	}
	var changed []string
	for i, m := range u.messages {
		if m[0] == 'R' {
			known, is := c.described[string(m[1:5])]
			if known == string(m) {
				continue
			}
			if is {
				changed = append(changed, string(m[1:5]))
			}
			c.described[string(m[1:5])] = string(m)
		}
		if i > 0 && c.chance() {
			frames = AppendKeepalive(frames, u.commit, false)
		}
		frames = AppendXLogData(frames, m)
	}
	// What a transaction changed is looked up anew after its commit.
	for _, oid := range changed {
		delete(c.described, oid)
	}
	return frames
}

// putUnit sends a unit; only then may a keepalive speak of its end.
func (c *conn) putUnit(u unit) error {
	c.write.take()
	defer c.write.leave()
	_, err := c.server.Write(c.frames(u))
	c.sent = max(c.sent, u.end)
	return err
}

func (s *Server) roll() bool { return s.Chance != nil && s.Chance() }

// putKeepalive tells how far this connection was served.
func (c *conn) putKeepalive() {
	c.write.take()
	defer c.write.leave()
	c.server.Write(AppendKeepalive(nil, c.sent, false)) //nolint:errcheck // the client may be gone
}

func (c *conn) put(frames []byte) error {
	c.write.take()
	defer c.write.leave()
	_, err := c.server.Write(frames)
	return err
}

// receive takes status updates until the client ends the copy or leaves.
func (c *conn) receive() {
	for {
		message, err := c.backend.Receive()
		if err != nil {
			return
		}
		switch m := message.(type) {
		case *pgproto3.CopyData:
			c.status(m.Data)
		case *pgproto3.CopyDone:
			c.s.mu.Lock()
			c.release()
			c.s.mu.Unlock()
			var bye []byte
			bye = AppendFrame(bye, 'c', nil)
			bye = AppendFrame(bye, 'C', []byte("COPY 0\x00"))
			bye = AppendFrame(bye, 'C', []byte("START_REPLICATION\x00"))
			bye = AppendFrame(bye, 'Z', []byte{'I'})
			c.put(bye) //nolint:errcheck // the client may be gone
			return
		}
	}
}

// believe moves the slot, as Postgres does: a flush of 0 says nothing, any other is
// taken for true, beyond the end of the log too, and before 18 even when it goes back
// (logical.c, LogicalConfirmReceivedLocation). mu is held.
func (s *Server) believe(flush wal.LSN) {
	if flush == 0 || s.Major >= 18 && flush < s.slot.confirmed {
		return
	}
	s.slot.confirmed = flush
}

// status takes in what the client tells.
func (c *conn) status(body []byte) {
	status, ok := parseStatus(body)
	if !ok {
		return
	}
	status.At = time.Now()
	c.s.mu.Lock()
	c.s.statuses = append(c.s.statuses, status)
	c.s.believe(status.Flush)
	c.flushed, c.heard, c.pinged = max(c.flushed, status.Flush), status.At, false
	c.s.asleep = false
	muted := c.s.muted
	c.s.change()
	c.s.mu.Unlock()
	if c.s.OnStatus != nil {
		c.s.OnStatus(status)
	}
	if status.ReplyWanted && !muted {
		// From a goroutine of its own, as a client that is busy writing does not
		// read; the real server's answer waits in the socket's buffer.
		go c.putKeepalive()
	}
}
