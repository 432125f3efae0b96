//go:build race

package main

// The race detector slows what the host does and not what modules do.
const loopsMax = 500
