//go:build !plant_trust_wall

package clockd

const plantTrustWall = false
