//go:build race

package main

// raced says that the race detector is on. It would end a test of the pool as it
// was, which is a data race by nature.
const raced = true
