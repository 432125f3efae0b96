//go:build !plant_skip_sync

package embedded

const plantSkipSync = false
