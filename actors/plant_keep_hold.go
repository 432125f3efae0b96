//go:build plant_keep_hold

package actors

// plantKeepHold is a bug on purpose, for proof that the tests find it: the build
// never returns what an expired reservation holds.
const plantKeepHold = true
