package wal

import (
	"encoding/binary"
	"time"
)

// Encoders for the tests inside the package; package waltest, which has more,
// imports this one.

func beginOf(commit LSN, at time.Time, xid uint32) []byte {
	m := binary.BigEndian.AppendUint64([]byte{'B'}, uint64(commit))
	m = binary.BigEndian.AppendUint64(m, uint64(at.UnixMicro()-postgresEpoch))
	return binary.BigEndian.AppendUint32(m, xid)
}

func commitOf(commit, end LSN) []byte {
	m := binary.BigEndian.AppendUint64([]byte{'C', 0}, uint64(commit))
	m = binary.BigEndian.AppendUint64(m, uint64(end))
	return binary.BigEndian.AppendUint64(m, 0)
}

func relationOf(oid uint32, schema, name string, columns ...string) []byte {
	m := binary.BigEndian.AppendUint32([]byte{'R'}, oid)
	m = append(m, schema+"\x00"+name+"\x00d"...)
	m = binary.BigEndian.AppendUint16(m, uint16(len(columns)))
	for _, c := range columns {
		m = append(m, "\x00"+c+"\x00\x00\x00\x00\x19\xff\xff\xff\xff"...)
	}
	return m
}

func insertOf(oid uint32, values ...string) []byte {
	m := binary.BigEndian.AppendUint32([]byte{'I'}, oid)
	m = append(m, 'N')
	m = binary.BigEndian.AppendUint16(m, uint16(len(values)))
	for _, v := range values {
		m = append(m, 't')
		m = binary.BigEndian.AppendUint32(m, uint32(len(v)))
		m = append(m, v...)
	}
	return m
}
