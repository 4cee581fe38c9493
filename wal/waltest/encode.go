package waltest

import (
	"encoding/binary"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
)

// The encoders below write what a walsender writes. Each appends one message to
// dst and gives the result.

const epoch = 946_684_800_000_000 // 2000-01-01 in Unix microseconds

func micros(t time.Time) uint64 { return uint64(t.UnixMicro() - epoch) }

// AppendFrame appends a protocol message of a kind with its length.
func AppendFrame(dst []byte, kind byte, body []byte) []byte {
	dst = append(dst, kind)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)+4))
	return append(dst, body...)
}

// AppendXLogData appends a pgoutput message inside XLogData inside CopyData.
func AppendXLogData(dst, message []byte) []byte {
	body := make([]byte, 1+2*8, 1+3*8+len(message))
	body[0] = 'w'
	body = binary.BigEndian.AppendUint64(body, micros(time.Now()))
	return AppendFrame(dst, 'd', append(body, message...))
}

// AppendKeepalive appends a primary keepalive inside CopyData.
func AppendKeepalive(dst []byte, end wal.LSN, replyWanted bool) []byte {
	body := binary.BigEndian.AppendUint64([]byte{'k'}, uint64(end))
	body = binary.BigEndian.AppendUint64(body, 0)
	if replyWanted {
		return AppendFrame(dst, 'd', append(body, 1))
	}
	return AppendFrame(dst, 'd', append(body, 0))
}

// Begin is a pgoutput Begin.
func Begin(commit wal.LSN, at time.Time, xid uint32) []byte {
	m := binary.BigEndian.AppendUint64([]byte{'B'}, uint64(commit))
	m = binary.BigEndian.AppendUint64(m, micros(at))
	return binary.BigEndian.AppendUint32(m, xid)
}

// Commit is a pgoutput Commit.
func Commit(commit, end wal.LSN, at time.Time) []byte {
	m := binary.BigEndian.AppendUint64([]byte{'C', 0}, uint64(commit))
	m = binary.BigEndian.AppendUint64(m, uint64(end))
	return binary.BigEndian.AppendUint64(m, micros(at))
}

// Relation is a pgoutput Relation with text columns.
func Relation(oid uint32, schema, name string, columns ...string) []byte {
	m := binary.BigEndian.AppendUint32([]byte{'R'}, oid)
	m = append(append(m, schema...), 0)
	m = append(append(m, name...), 0)
	m = append(m, 'd')
	m = binary.BigEndian.AppendUint16(m, uint16(len(columns)))
	for _, c := range columns {
		m = append(m, 0)
		m = append(append(m, c...), 0)
		m = binary.BigEndian.AppendUint32(m, 25)
		m = binary.BigEndian.AppendUint32(m, 0xFFFFFFFF)
	}
	return m
}

// Insert is a pgoutput Insert; a nil value is NULL.
func Insert(oid uint32, values ...[]byte) []byte {
	m := binary.BigEndian.AppendUint32([]byte{'I'}, oid)
	m = append(m, 'N')
	m = binary.BigEndian.AppendUint16(m, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			m = append(m, 'n')
			continue
		}
		m = append(m, 't')
		m = binary.BigEndian.AppendUint32(m, uint32(len(v)))
		m = append(m, v...)
	}
	return m
}

// Message is a pgoutput Message, which pg_logical_emit_message wrote in a record that
// ends at end.
func Message(transactional bool, end wal.LSN, prefix string, content []byte) []byte {
	m := []byte{'M', 0}
	if transactional {
		m[1] = 1
	}
	m = binary.BigEndian.AppendUint64(m, uint64(end))
	m = append(append(m, prefix...), 0)
	m = binary.BigEndian.AppendUint32(m, uint32(len(content)))
	return append(m, content...)
}

// Origin is a pgoutput Origin, which follows the Begin of a transaction that was
// itself replicated from elsewhere.
func Origin(name string) []byte {
	m := binary.BigEndian.AppendUint64([]byte{'O'}, 0)
	return append(append(m, name...), 0)
}

// Status is a standby status update as the server reads it.
type Status struct {
	Write, Flush, Apply wal.LSN
	ReplyWanted         bool
	At                  time.Time // when the server read it
}

func parseStatus(body []byte) (s Status, ok bool) {
	if len(body) != 1+4*8+1 || body[0] != 'r' {
		return s, false
	}
	at := func(i int) wal.LSN { return wal.LSN(binary.BigEndian.Uint64(body[1+8*i:])) }
	return Status{Write: at(0), Flush: at(1), Apply: at(2), ReplyWanted: body[33] == 1}, true
}
