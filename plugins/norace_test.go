//go:build !race

package plugins_test

const residentVersions = 1_000
