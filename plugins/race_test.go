//go:build race

package plugins_test

// The race detector multiplies what everything takes.
const residentVersions = 100
