package waltest

import (
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outboxcdc/outboxcdc/wal"
)

// stream sends the log from the later of from and the slot's position until the
// client leaves or is done.
func (c *conn) stream(from wal.LSN) {
	c.backend.Send(&pgproto3.CopyBothResponse{})
	if c.backend.Flush() != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.receive()
	}()
	c.send(from, done)
	c.server.Close() // wakes receive
	<-done
}

// send follows the log.
func (c *conn) send(from wal.LSN, done <-chan struct{}) {
	c.s.mu.Lock()
	from = max(from, c.s.confirmed)
	first := AppendKeepalive(nil, c.s.confirmed, false)
	c.s.mu.Unlock()
	if c.put(first) != nil {
		return
	}
	for next := 0; ; {
		c.s.mu.Lock()
		log, changed := c.s.log[next:], c.s.changed
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
		select {
		case <-changed:
		case <-done:
			return
		}
	}
}

// frames is what the unit looks like on the wire, with keepalives where chance
// wants them: sent is the end of what came before.
func (u unit) frames(chance func() bool, sent wal.LSN) []byte {
	switch {
	case u.raw != nil:
		return u.raw
	case u.messages == nil:
		return AppendKeepalive(nil, u.end, chance())
	}
	var frames []byte
	if chance() {
		frames = AppendKeepalive(frames, sent/2, false)
	}
	for i, m := range u.messages {
		if i > 0 && chance() {
			frames = AppendKeepalive(frames, u.commit, false)
		}
		frames = AppendXLogData(frames, m)
	}
	return frames
}

// putUnit sends a unit; only then may a keepalive speak of its end.
func (c *conn) putUnit(u unit) error {
	c.write.Lock()
	defer c.write.Unlock()
	_, err := c.server.Write(u.frames(c.s.chance, c.sent))
	c.sent = u.end
	return err
}

func (s *Server) chance() bool { return s.Chance != nil && s.Chance() }

// putKeepalive tells how far this connection was served.
func (c *conn) putKeepalive() {
	c.write.Lock()
	defer c.write.Unlock()
	c.server.Write(AppendKeepalive(nil, c.sent, false)) //nolint:errcheck // the client may be gone
}

func (c *conn) put(frames []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
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
			var bye []byte
			bye = AppendFrame(bye, 'c', nil)
			bye = AppendFrame(bye, 'C', []byte("COPY 0\x00"))
			bye = AppendFrame(bye, 'Z', []byte{'I'})
			c.put(bye) //nolint:errcheck // the client may be gone
			return
		}
	}
}

// status believes what it is told, as Postgres does: a flush of 0 says nothing,
// any other moves the slot forward.
func (c *conn) status(body []byte) {
	status, ok := parseStatus(body)
	if !ok {
		return
	}
	status.At = time.Now()
	c.s.mu.Lock()
	c.s.statuses = append(c.s.statuses, status)
	c.s.confirmed = max(c.s.confirmed, status.Flush)
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
