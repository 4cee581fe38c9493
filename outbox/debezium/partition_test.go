package debezium

import "encoding/binary"

// partitionOf is where Kafka's Java producer puts a record.
func partitionOf(r *Record, partitions int32) int32 {
	if r.Partition >= 0 {
		return r.Partition
	}
	return int32(murmur2(r.Key)&0x7fffffff) % partitions
}

// murmur2 is Kafka's (Utils.java).
func murmur2(data []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
