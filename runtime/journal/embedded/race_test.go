//go:build race

package embedded

// The race detector makes everything here about ten times slower, pebble with its own
// checks above all, so that the long tests take a sample of what they do without it.
const raceStride = 8
