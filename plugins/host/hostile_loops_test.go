//go:build !race

package host_test

const hostileLoops = 8
