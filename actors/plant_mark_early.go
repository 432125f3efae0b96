//go:build plant_mark_early

package actors

// plantMarkEarly is a bug on purpose, for proof that the tests find it: the build
// moves the cursor of the lists before the lists.
const plantMarkEarly = true
