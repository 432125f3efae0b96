//go:build plant_skip_folder_sync

package embedded

// plantSkipFolderSync is a bug on purpose, for proof that the tests find it: the build
// does not sync the folder that holds the files.
const plantSkipFolderSync = true
