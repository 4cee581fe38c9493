//go:build race

package outbox_test

// The race detector keeps some temporary strings on the heap that are on the stack
// without it, one a row, and drops some of what is pooled.
const detectorAllocations = 2
