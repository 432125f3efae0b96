//go:build !plant_reuse_early

package actors

const plantReuseEarly = false
