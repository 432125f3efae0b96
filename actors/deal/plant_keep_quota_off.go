//go:build !plant_keep_quota

package deal

const plantKeepQuota = false
