package wal

import (
	"encoding/binary"
	"time"
)

// statusFrameBytes is a CopyData header and a standby status update.
const statusFrameBytes = frameHeader + 1 + 4*8 + 1

// appendStatus appends a standby status update inside CopyData (protocol
// documentation, "Standby status update"). Only the flush field moves a logical
// slot (walsender.c, ProcessStandbyReplyMessage), and the server believes it
// unchecked, even beyond the end of its log. So all three fields carry the one
// position that is proven: no default may turn a missing flush into something
// else.
func appendStatus(dst []byte, confirmed LSN, now time.Time, replyWanted bool) []byte {
	dst = append(dst, 'd')
	dst = binary.BigEndian.AppendUint32(dst, statusFrameBytes-1)
	dst = append(dst, 'r')
	for range 3 { // write, flush, apply
		dst = binary.BigEndian.AppendUint64(dst, uint64(confirmed))
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(now.UnixMicro()-postgresEpoch))
	if replyWanted {
		return append(dst, 1)
	}
	return append(dst, 0)
}
