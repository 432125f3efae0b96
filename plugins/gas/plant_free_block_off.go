//go:build !plant_free_block

package gas

const plantFreeBlock = false
