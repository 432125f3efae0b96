//go:build plant_trust_wall

package clockd

// plantTrustWall is a bug on purpose, for proof that the tests find it: the build
// follows the system's wall clock wherever it is set.
const plantTrustWall = true
