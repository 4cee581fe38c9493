// Package sim simulates the whole: real runners, with real wal, sink and checkpoint
// code, against a Postgres and a Kafka in memory that misbehave as real ones do, on
// a simulated clock. Every choice comes from one seed, so that a failing world can be
// replayed. It has tests only.
package sim
