package verify

import (
	"fmt"
	"os"
)

// buckets is how many parts a spool has. The memory for one part is what a
// comparison needs: with a hundred million entries some fifty megabytes.
const buckets = 256

// chunkBytes is how much of a bucket is gathered before it is written.
const chunkBytes = 16 << 10

// spool keeps entries of one size on disk, in buckets, in the order in which they
// came. Everything is in one temporary file, which has no name while it is open
// where the system allows that.
type spool struct {
	file    *os.File
	size    int // of an entry
	end     int64
	buckets [buckets]bucket
}

type bucket struct {
	chunks []int64 // where the full ones are in the file
	tail   []byte  // what is not written yet
}

func newSpool(directory string, size int) (*spool, error) {
	file, err := os.CreateTemp(directory, "outboxcdc-verify-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	os.Remove(file.Name()) //nolint:errcheck // close removes it where an open file must keep its name
	return &spool{file: file, size: size}, nil
}

func (s *spool) close() {
	s.file.Close()           //nolint:errcheck // nothing in it is wanted any more
	os.Remove(s.file.Name()) //nolint:errcheck // it is gone already on most systems
}

// put adds an entry to the bucket that its first byte names.
func (s *spool) put(entry []byte) error {
	b := &s.buckets[entry[0]]
	b.tail = append(b.tail, entry...)
	if len(b.tail)+s.size <= chunkBytes {
		return nil
	}
	// All chunks are as long as the first, so that a position says it all.
	if _, err := s.file.WriteAt(b.tail, s.end); err != nil {
		return fmt.Errorf("write a temporary file: %w", err)
	}
	b.chunks = append(b.chunks, s.end)
	s.end += int64(len(b.tail))
	b.tail = b.tail[:0]
	return nil
}

// each visits the entries of one bucket. An entry is valid until visit returns.
func (s *spool) each(number int, visit func(entry []byte)) error {
	b := &s.buckets[number]
	chunk := make([]byte, chunkBytes/s.size*s.size)
	for _, at := range b.chunks {
		if _, err := s.file.ReadAt(chunk, at); err != nil {
			return fmt.Errorf("read a temporary file: %w", err)
		}
		s.visit(chunk, visit)
	}
	s.visit(b.tail, visit)
	return nil
}

func (s *spool) visit(entries []byte, visit func([]byte)) {
	for ; len(entries) > 0; entries = entries[s.size:] {
		visit(entries[:s.size])
	}
}

// bitmap is a bit for each record.
type bitmap []uint64

func (b *bitmap) set(i uint64) {
	for uint64(len(*b)) <= i/64 {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

func (b *bitmap) has(i uint64) bool {
	return i/64 < uint64(len(*b)) && (*b)[i/64]&(1<<(i%64)) != 0
}
