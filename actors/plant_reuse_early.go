//go:build plant_reuse_early

package actors

// plantReuseEarly is a bug on purpose, for proof that the tests find it: the build
// puts a write under way back into its pool.
const plantReuseEarly = true
