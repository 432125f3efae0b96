//go:build race

package host_test

// The race detector slows what the host does and not what modules do.
const hostileLoops = 500
