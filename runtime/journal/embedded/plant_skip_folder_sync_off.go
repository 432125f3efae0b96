//go:build !plant_skip_folder_sync

package embedded

const plantSkipFolderSync = false
