//go:build !plant_drop_epoch

package embedded

const plantDropEpoch = false
