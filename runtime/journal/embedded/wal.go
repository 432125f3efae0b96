package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/doorbuster/doorbuster/runtime/journal"
)

// A crash leaves the newest write-ahead log with a torn tail: bytes that were never
// synced, so nobody was told of them. Pebble cuts them without a word, and with them
// everything behind a damaged chunk as long as no later 32 KiB block proves that the
// chunk had once been synced. This file reads the newest log before pebble does, says
// how much will be cut, and looks for that proof in the damaged block as well.
//
// The log is a sequence of chunks that never cross a block:
//
//	crc u32 · length u16 · kind u8 · log number u32 · synced offset u64 · payload
//
// The synced offset says up to where the log had been synced when the chunk was made:
// a bad chunk before that offset is damage, one behind every such offset is a tail.

const (
	walBlock     = 32 << 10
	walHeader    = 7 + 4 + 8 // of chunks with a synced offset
	walEOFHeader = 7 + 4     // of the trailer of a log that was closed
	walKindFirst = 9         // kinds 9 to 12 carry a synced offset
	walKindLast  = 12
	walKindEOF   = 5
)

// tail is what inspectLog found at the end of a log.
type tail struct {
	file string
	torn int64 // bytes behind the last whole chunk
}

// inspectLog reads the newest log in dir. The error is a *journal.CorruptError if
// the log is damaged before its synced end.
func inspectLog(fs vfs.FS, dir string) (tail, error) {
	name, num, err := newestLog(fs, dir)
	if err != nil || name == "" {
		return tail{}, err
	}
	path := fs.PathJoin(dir, name)
	data, err := readFile(fs, path)
	if err != nil {
		return tail{}, err
	}
	bad := firstBadChunk(data, uint32(num))
	end, synced := ownChunksBehind(data, bad, uint32(num))
	if synced > uint64(bad) {
		return tail{}, &journal.CorruptError{
			File:   path,
			Detail: fmt.Sprintf("the log is damaged at byte %d, but had been synced up to byte %d", bad, synced),
			Remedy: remedy,
		}
	}
	end = max(end, bad+tornChunk(rest(data, bad), uint32(num)))
	return tail{file: path, torn: int64(end - bad)}, nil
}

func newestLog(fs vfs.FS, dir string) (name string, num wal.NumWAL, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return "", 0, err
	}
	for _, candidate := range names {
		if n, _, ok := wal.ParseLogFilename(candidate); ok && (name == "" || n > num) {
			name, num = candidate, n
		}
	}
	return name, num, nil
}

func readFile(fs vfs.FS, path string) (data []byte, err error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var buf bytes.Buffer
	if info, err := f.Stat(); err == nil {
		buf.Grow(int(info.Size()) + bytes.MinRead)
	}
	_, err = io.Copy(&buf, f)
	return buf.Bytes(), err
}

// chunkAt returns the size of the whole chunk at the start of block, or 0, and its
// synced offset.
func chunkAt(block []byte, num uint32) (size int, synced uint64) {
	if len(block) < walHeader || block[6] < walKindFirst || block[6] > walKindLast {
		return 0, 0
	}
	if binary.LittleEndian.Uint32(block[7:]) != num {
		return 0, 0
	}
	size = walHeader + int(binary.LittleEndian.Uint16(block[4:]))
	if size > len(block) {
		return 0, 0
	}
	if binary.LittleEndian.Uint32(block) != mask(crc32.Checksum(block[6:size], castagnoli)) {
		return 0, 0
	}
	return size, binary.LittleEndian.Uint64(block[11:])
}

// rest is what remains of the block that offset lies in.
func rest(data []byte, offset int) []byte {
	end := min(len(data), offset/walBlock*walBlock+walBlock)
	return data[offset:end]
}

// firstBadChunk returns the offset behind the last chunk that is whole.
func firstBadChunk(data []byte, num uint32) int {
	offset := 0
	for offset < len(data) {
		block := rest(data, offset)
		size, _ := chunkAt(block, num)
		switch {
		case size > 0:
			offset += size
		case len(block) < walHeader && allZero(block) && offset+len(block) < len(data):
			offset += len(block) // the padding of a block too full for a chunk
		default:
			return offset
		}
	}
	return offset
}

// ownChunksBehind looks for whole chunks of this log behind a bad one, at whatever byte
// they begin. It returns the end of the last, or bad, and the highest synced offset that
// any of them claims. A chunk bears the log's number, and most of what is behind the
// last one never does: a log is made at its full size, of zeros.
func ownChunksBehind(data []byte, bad int, num uint32) (end int, synced uint64) {
	const numberAt = 7
	number := binary.LittleEndian.AppendUint32(nil, num)
	end = bad
	for offset := bad; offset+numberAt < len(data); {
		skipped := bytes.Index(data[offset+numberAt:], number)
		if skipped < 0 {
			break
		}
		offset += skipped
		size, claimed := chunkAt(rest(data, offset), num)
		if size > 0 {
			end = offset + size
			synced = max(synced, claimed)
		}
		offset += max(size, 1)
	}
	return end, synced
}

// tornChunk returns how much of a bad chunk of this log stands at the start of block. A
// log is written over an older one, or over zeros, so what follows its last chunk is
// seldom empty: it was ours if the log number is, or if it would be but for that number.
func tornChunk(block []byte, num uint32) int {
	if len(block) >= walEOFHeader && block[6] == walKindEOF && binary.LittleEndian.Uint32(block[7:]) == num+1 {
		return 0
	}
	if len(block) < walHeader {
		return len(bytes.TrimRight(block, "\x00")) // the file ends within a header
	}
	size := min(walHeader+int(binary.LittleEndian.Uint16(block[4:])), len(block))
	if binary.LittleEndian.Uint32(block[7:]) == num {
		return size
	}
	renumbered := bytes.Clone(block[:size])
	binary.LittleEndian.PutUint32(renumbered[7:], num)
	whole, _ := chunkAt(renumbered, num)
	return whole
}

func allZero(data []byte) bool { return len(bytes.TrimLeft(data, "\x00")) == 0 }
