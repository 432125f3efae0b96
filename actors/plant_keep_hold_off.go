//go:build !plant_keep_hold

package actors

const plantKeepHold = false
