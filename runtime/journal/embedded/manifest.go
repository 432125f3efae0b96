package embedded

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// Pebble reads its manifest up to the first chunk that is not whole, and takes what is
// behind for a torn tail: tables that it should list would be gone without a word, and
// deleted. But each edit is synced before the next one is begun. So a record that
// begins behind a bad chunk proves that the chunk had been whole. This file looks for
// one before pebble reads the manifest.
//
// The manifest is a sequence of chunks that never cross a block of the log's size:
//
//	crc u32 · length u16 · kind u8 · payload

const (
	manifestHeader = 7
	manifestFull   = 1 // a record in one chunk
	manifestFirst  = 2 // the first chunk of a record
	manifestLast   = 4 // kinds 1 to 4 are chunks
)

// inspectManifest returns the format of the folder, "" if there is none yet. The error is
// a *journal.CorruptError if the manifest in dir is damaged before its end.
func inspectManifest(fs vfs.FS, dir string) (format string, err error) {
	name, err := atomicfs.ReadMarker(fs, dir, "manifest")
	if err != nil || name == "" {
		return "", err
	}
	path := fs.PathJoin(dir, name)
	data, err := readFile(fs, path)
	if err != nil {
		return "", err
	}
	bad := 0
	for bad < len(data) {
		block := rest(data, bad)
		size, _ := manifestChunkAt(block)
		if size == 0 && (len(block) >= manifestHeader || !allZero(block)) {
			break
		}
		bad += max(size, min(len(block), manifestHeader))
	}
	for offset := bad + 1; offset < len(data); offset++ {
		if _, kind := manifestChunkAt(rest(data, offset)); kind == manifestFull || kind == manifestFirst {
			return "", &journal.CorruptError{
				File:   path,
				Detail: fmt.Sprintf("the list of tables is damaged at byte %d, but goes on at byte %d", bad, offset),
				Remedy: remedy,
			}
		}
	}
	return formatOf(data), nil
}

// formatOf returns the name of the comparer, with which the first record of a manifest
// begins: a tag, a length, the name. Pebble refuses those that it was not told of.
func formatOf(data []byte) string {
	const tagComparer, nameMax = 1, 127
	if len(data) < manifestHeader+2 || data[manifestHeader] != tagComparer || data[manifestHeader+1] > nameMax {
		return ""
	}
	name := data[manifestHeader+2:]
	return string(name[:min(int(data[manifestHeader+1]), len(name))])
}

// manifestChunkAt returns the size and the kind of the whole chunk at the start of
// block, or 0.
func manifestChunkAt(block []byte) (size int, kind byte) {
	if len(block) < manifestHeader {
		return 0, 0
	}
	size, kind = manifestHeader+int(binary.LittleEndian.Uint16(block[4:])), block[6]
	if kind < manifestFull || kind > manifestLast || size > len(block) {
		return 0, 0
	}
	if binary.LittleEndian.Uint32(block) != mask(crc32.Checksum(block[6:size], castagnoli)) {
		return 0, 0
	}
	return size, kind
}

// mask is how pebble stores a checksum.
func mask(sum uint32) uint32 { return (sum>>15 | sum<<17) + 0xa282ead8 }
