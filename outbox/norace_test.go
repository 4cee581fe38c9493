//go:build !race

package outbox_test

const detectorAllocations = 0 // a row
