//go:build plant_skip_sync

package embedded

// plantSkipSync is a bug on purpose, for proof that the tests find it: the build
// acknowledges a group without a sync.
const plantSkipSync = true
