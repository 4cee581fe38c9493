package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"slices"
	"strconv"

	"github.com/outboxcdc/outboxcdc/outbox"
	"github.com/outboxcdc/outboxcdc/sink"
	"github.com/outboxcdc/outboxcdc/wal"
)

// digest stands for an id, a key or a message. 128 bits of SHA-256: that two of a
// hundred million are equal by chance is less likely than that a disk lies.
type digest [16]byte

// position is a message's place in the log.
type position struct {
	commit uint64
	index  uint32
}

func (p position) less(q position) bool {
	return p.commit < q.commit || p.commit == q.commit && p.index < q.index
}

func (p position) String() string {
	return string(strconv.AppendUint(append(wal.LSN(p.commit).AppendHex(nil), '/'), uint64(p.index), 10))
}

var errPosition = errors.New("not a position")

// parsePosition reads the header that outbox.PositionHeader describes.
func parsePosition(text []byte) (position, error) {
	if len(text) < 18 || text[16] != '/' {
		return position{}, errPosition
	}
	commit, err := strconv.ParseUint(string(text[:16]), 16, 64)
	if err != nil {
		return position{}, errPosition
	}
	index, err := strconv.ParseUint(string(text[17:]), 10, 32)
	if err != nil {
		return position{}, errPosition
	}
	return position{commit: commit, index: uint32(index)}, nil
}

// header gives the last header of a name: the position comes last, and ours cannot
// be forged in front of it.
func header(headers []sink.Header, name string) (value []byte, ok bool) {
	for _, h := range slices.Backward(headers) {
		if h.Key == name {
			return h.Value, true
		}
	}
	return nil, false
}

// hasher makes digests; it is used by one goroutine.
type hasher struct {
	sum hash.Hash
	out []byte
}

func newHasher() *hasher { return &hasher{sum: sha256.New()} }

// of is the digest of parts, each with its length, so that nothing can move from
// one to the next. nil differs from empty.
func (h *hasher) of(parts ...[]byte) digest {
	h.sum.Reset()
	for _, part := range parts {
		h.write(part)
	}
	return h.digest()
}

// message is the digest of all that a row decides: topic, key, value and headers
// but for the position and the name of a replay.
func (h *hasher) message(m *sink.Message) digest {
	h.sum.Reset()
	h.write([]byte(m.Topic))
	h.write(m.Key)
	h.write(m.Value)
	for _, entry := range m.Headers {
		if entry.Key != outbox.PositionHeader && entry.Key != outbox.ReplayHeader {
			h.write([]byte(entry.Key))
			h.write(entry.Value)
		}
	}
	return h.digest()
}

func (h *hasher) write(part []byte) {
	length := uint64(len(part)) + 1
	if part == nil {
		length = 0
	}
	h.out = binary.BigEndian.AppendUint64(h.out[:0], length)
	h.sum.Write(h.out)
	h.sum.Write(part)
}

func (h *hasher) digest() digest {
	h.out = h.sum.Sum(h.out[:0])
	return digest(h.out[:16])
}

// place is where a record is. A row has one too: its table, and when it was created.
type place struct {
	at        position
	topic     uint16 // in the order in which topics were met; a row's table
	partition int32
	offset    int64 // a row's: microseconds of its created_at, 0 when unknown
}

func (p *place) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.at.commit)
	dst = binary.BigEndian.AppendUint32(dst, p.at.index)
	dst = binary.BigEndian.AppendUint16(dst, p.topic)
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.partition))
	return binary.BigEndian.AppendUint64(dst, uint64(p.offset))
}

func readPlace(b []byte) place {
	return place{
		at:        position{commit: binary.BigEndian.Uint64(b), index: binary.BigEndian.Uint32(b[8:])},
		topic:     binary.BigEndian.Uint16(b[12:]),
		partition: int32(binary.BigEndian.Uint32(b[14:])),
		offset:    int64(binary.BigEndian.Uint64(b[18:])),
	}
}

// An event entry stands for a row of the table or for a record of a topic, in the
// bucket of its identity. An order entry stands for a record in the bucket of its
// topic, partition and key.
const (
	placeBytes = 8 + 4 + 2 + 4 + 8
	eventBytes = 16 + 16 + 1 + 8 + placeBytes
	orderBytes = 16 + 8 + placeBytes
)

// Kinds of an event entry.
const (
	kindRow = iota + 1
	kindRecord
	kindUnmappable // a row that no event can be made of; it has no content
)

// event is an event entry, decoded.
type event struct {
	identity, content digest
	kind              byte
	number            uint64 // a record's, in the order of reading; a row's seq, 0 when it has none
	place
}

func (e *event) append(dst []byte) []byte {
	dst = append(append(append(dst, e.identity[:]...), e.content[:]...), e.kind)
	return e.place.append(binary.BigEndian.AppendUint64(dst, e.number))
}

func readEvent(b []byte) event {
	return event{
		identity: digest(b[:16]), content: digest(b[16:32]), kind: b[32],
		number: binary.BigEndian.Uint64(b[33:]), place: readPlace(b[41:]),
	}
}

// order is an order entry, decoded.
type order struct {
	key    digest
	number uint64
	place
}

func (o *order) append(dst []byte) []byte {
	return o.place.append(binary.BigEndian.AppendUint64(append(dst, o.key[:]...), o.number))
}

func readOrder(b []byte) order {
	return order{key: digest(b[:16]), number: binary.BigEndian.Uint64(b[16:]), place: readPlace(b[24:])}
}
