package wal

import "fmt"

// Place names a row for good: the same on every delivery of the same log.
type Place struct {
	Commit LSN // position of the commit record of its transaction
	Index  int // its place among the outbox rows of that transaction, from 0
}

// Place is the row's.
func (r *Row) Place() Place { return Place{r.Commit, r.Index} }

// Before says whether p comes before other in the log.
func (p Place) Before(other Place) bool {
	return p.Commit < other.Commit || p.Commit == other.Commit && p.Index < other.Index
}

// String is the text that events carry as their position: 16 hexadecimal digits, a
// slash, the index.
func (p Place) String() string { return fmt.Sprintf("%016X/%d", uint64(p.Commit), p.Index) }
