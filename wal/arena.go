package wal

import "sync"

const (
	arenaBytes   = 256 << 10
	arenaRows    = 1024
	arenaColumns = 8 * arenaRows
)

// arena holds the rows of some successive batches. The reader copies each column
// into it once, out of the read buffer; mapper and sink then borrow it. When every
// batch that was cut from it is released it is used again, so a steady stream
// allocates nothing, and a batch of one row costs one row and not an arena.
//
// What a batch holds in memory is therefore its whole arena, however small the
// batch: one message that is not acked keeps them all. So the bytes of the batches
// that were held are given back together, by the Release of the last one.
type arena struct {
	// Owned by the reader.
	rows    []Row
	columns [][]byte
	text    []byte
	cut     int // rows that are in batches already

	mu   sync.Mutex
	out  int  // batches that are not released
	held int  // those of them that were held
	owed int  // bytes that were held since nothing was, the last time
	open bool // the reader may add more
}

//nolint:gochecknoglobals // a pool is one for the process or none
var arenas = sync.Pool{New: func() any {
	return &arena{
		rows:    make([]Row, 0, arenaRows),
		columns: make([][]byte, 0, arenaColumns),
		text:    make([]byte, 0, arenaBytes),
	}
}}

func newArena() *arena {
	a := arenas.Get().(*arena) //nolint:forcetypeassert // the pool holds nothing else
	a.open = true
	return a
}

// copyText copies a column. One that does not fit gets memory of its own, and the
// arena is full.
func (a *arena) copyText(text []byte) []byte {
	if len(a.text)+len(text) > cap(a.text) {
		a.text = a.text[:cap(a.text)]
		return append(make([]byte, 0, len(text)), text...)
	}
	at := len(a.text)
	a.text = append(a.text, text...)
	return a.text[at:len(a.text):len(a.text)]
}

// newColumns gives n column slots, all NULL.
func (a *arena) newColumns(n int) [][]byte {
	if len(a.columns)+n > cap(a.columns) {
		a.columns = a.columns[:cap(a.columns)]
		return make([][]byte, n)
	}
	at := len(a.columns)
	a.columns = a.columns[:at+n]
	slots := a.columns[at : at+n : at+n]
	clear(slots)
	return slots
}

// full says that the next row needs another arena.
func (a *arena) full() bool {
	return len(a.rows) == cap(a.rows) || len(a.columns) == cap(a.columns) || len(a.text) == cap(a.text)
}

// takeRows cuts a batch: the rows since the last cut. last says that the reader
// adds no more.
func (a *arena) takeRows(last bool) []Row {
	rows := a.rows[a.cut:len(a.rows):len(a.rows)]
	a.cut = len(a.rows)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out++
	a.open = !last
	return rows
}

// hold counts the bytes of a batch as in use.
func (a *arena) hold(bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held++
	a.owed += bytes
}

// release counts a batch that was held as done with, and gives the bytes that are
// not in use any more.
func (a *arena) release() (freed int) {
	a.mu.Lock()
	a.out--
	a.held--
	if a.held == 0 {
		freed, a.owed = a.owed, 0
	}
	done := a.out == 0 && !a.open
	a.mu.Unlock()
	if done {
		a.rewind()
		arenas.Put(a)
	}
	return freed
}

// rewindIdle makes an open arena empty again when no batch refers to it. It is for
// the reader, between two batches.
func (a *arena) rewindIdle() {
	a.mu.Lock()
	idle := a.out == 0
	a.mu.Unlock()
	if idle {
		a.rewind()
	}
}

// rewind forgets the old values, so that what they refer to can be collected.
func (a *arena) rewind() {
	clear(a.rows)
	clear(a.columns)
	a.rows, a.columns, a.text, a.cut = a.rows[:0], a.columns[:0], a.text[:0], 0
}
