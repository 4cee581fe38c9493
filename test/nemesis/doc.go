// Package nemesis lets a stream run for a while in a world that breaks, and then
// proves from what is left that nothing was lost and nothing came out of order.
//
// The world is real: a Postgres and a Kafka of its own, outboxcdc as a process, and a
// proxy on either link. The faults are drawn from a deck that one seed has shuffled,
// and the seed is printed: a run is repeated with it as far as clocks and schedulers
// allow. A short run is part of the tests, a long one is
//
//	make nemesis DURATION=10m SEED=7
//
// What it does not do is turn clocks: that takes a machine of its own. Nothing in the
// stream's chain reads the wall clock but for what is shown to people. Intervals and
// deadlines come from the monotonic clock, which no change of the wall clock moves;
// the tests in bubbles, whose clock is simulated, cover those.
package nemesis
