//go:build !race

package embedded

const raceStride = 1
