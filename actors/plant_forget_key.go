//go:build plant_forget_key

package actors

// plantForgetKey is a bug on purpose, for proof that the tests find it: the build
// forgets idempotency keys when a deal is replayed.
const plantForgetKey = true
