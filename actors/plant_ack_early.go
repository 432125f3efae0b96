//go:build plant_ack_early

package actors

// plantAckEarly is a bug on purpose, for proof that the tests find it: the build
// answers requests before their events are synced.
const plantAckEarly = true
