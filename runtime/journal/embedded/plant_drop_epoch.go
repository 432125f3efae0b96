//go:build plant_drop_epoch

package embedded

// plantDropEpoch is a bug on purpose, for proof that the tests find it: the build
// takes appends of an owner that was fenced.
const plantDropEpoch = true
