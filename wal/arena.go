package wal

import "sync"

const (
	arenaBytes   = 256 << 10
	arenaRows    = 1024
	arenaColumns = 8 * arenaRows
)

// arena holds the bytes of one batch's rows. The reader copies each column into
// it once, out of the read buffer; mapper and sink then borrow it. When the batch
// is settled the arena goes back to a pool, so a steady stream allocates nothing.
type arena struct {
	rows    []Row
	columns [][]byte
	text    []byte
	used    int // bytes of text over all chunks
}

var arenas = sync.Pool{New: func() any {
	return &arena{
		rows:    make([]Row, 0, arenaRows),
		columns: make([][]byte, 0, arenaColumns),
		text:    make([]byte, 0, arenaBytes),
	}
}}

func newArena() *arena {
	return arenas.Get().(*arena) //nolint:forcetypeassert // the pool holds nothing else
}

// copyText copies a column. A full chunk is left to the rows that refer to it and
// a new one begun; a text larger than a chunk gets its own.
func (a *arena) copyText(text []byte) []byte {
	a.used += len(text)
	switch {
	case len(text) > arenaBytes:
		return append(make([]byte, 0, len(text)), text...)
	case len(a.text)+len(text) > cap(a.text):
		a.text = make([]byte, 0, arenaBytes)
	}
	at := len(a.text)
	a.text = append(a.text, text...)
	return a.text[at:len(a.text):len(a.text)]
}

// newColumns gives n column slots, all NULL.
func (a *arena) newColumns(n int) [][]byte {
	if len(a.columns)+n > cap(a.columns) {
		a.columns = make([][]byte, 0, max(n, 2*cap(a.columns)))
	}
	at := len(a.columns)
	a.columns = a.columns[:at+n]
	slots := a.columns[at : at+n : at+n]
	clear(slots)
	return slots
}

func (a *arena) recycle() {
	clear(a.rows)
	clear(a.columns)
	a.rows, a.columns, a.text, a.used = a.rows[:0], a.columns[:0], a.text[:0], 0
	arenas.Put(a)
}
